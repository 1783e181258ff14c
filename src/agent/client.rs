//! Calls to the server: [`protocol`] over HTTPS, outbound only.

use std::error::Error as _;
use std::fmt;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use tracing::warn;
use url::Url;

use crate::https::Https;
use config::Config;
use protocol::Secret;
use protocol::limits::{MAX_FILE, MAX_STATE, Message};
use protocol::{
    Attempt, BASE, Claimed, Code, Events, Finish, Heartbeat, LogOffset, Poll, Problem, Register,
    Registered, Resume, Resumed,
};

/// How long the server may take to answer anything but a poll.
const TIMEOUT: Duration = Duration::from_secs(25);

/// How much longer than announced a held poll may take. A server that asks for polls of 40 s
/// instead of 20 s holds them for that long also when its answer was lost.
const POLL_GRACE: Duration = Duration::from_secs(30);

/// How long a file may take, a plan or a state for example.
const FILE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server said no. To a call of a task, it means that the task is not this
    /// agent's.
    #[error("{why}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What it means, where a server says that.
        code: Option<Code>,
        /// The server's reason.
        why: String,
        /// How much of the log it has, where that is why.
        offset: Option<u64>,
    },
    /// The server does not take a task's file, or does not give it: that says nothing of
    /// the task.
    #[error("{0}")]
    FileRefused(String),
    /// No answer, or an answer of a proxy before the server: worth another try.
    #[error("{0:#}")]
    Away(anyhow::Error),
    /// An error on this host.
    #[error(transparent)]
    Here(#[from] anyhow::Error),
}

impl CallError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            CallError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The error of a call about a task's file. Only an attempt that is over loses the
    /// task; a server that sends no codes says that in its answer to the next call that
    /// is about the task itself.
    fn of_file(self) -> Self {
        match self {
            CallError::Refused { code, why, .. } if code != Some(Code::AttemptOver) => {
                CallError::FileRefused(why)
            }
            other => other,
        }
    }
}

/// The server, as this agent sees it.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    session: Arc<RwLock<Secret>>,
}

impl Client {
    /// A client for the server in `config`.
    ///
    /// # Errors
    /// HTTPS can't be set up.
    pub fn new(config: &Config, https: &Https) -> Result<Self> {
        Ok(Self {
            http: https.client().build().context("cannot set up HTTPS")?,
            base: config
                .url
                .join(&format!("{BASE}/"))
                .context("cannot use the server's address")?,
            session: Arc::default(),
        })
    }

    /// Registers, and keeps the session's token for the calls to come.
    ///
    /// # Errors
    /// See [`CallError`]; 401 means that the pool's token is wrong.
    pub(crate) async fn register(
        &self,
        token: &Secret,
        register: &Register,
    ) -> Result<Registered, CallError> {
        let request = self.request(Method::POST, "register", token).json(register);
        let registered: Registered = read(send(request.timeout(TIMEOUT)).await?).await?;
        self.set_session(registered.session_token.clone());
        Ok(registered)
    }

    /// The session's token from now on.
    pub(crate) fn set_session(&self, token: Secret) {
        *self.session.write().expect("nothing panics while it holds the token") = token;
    }

    /// Asks for events; the server may hold the answer for `held`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn poll(&self, poll: &Poll, held: Duration) -> Result<Events, CallError> {
        let request = self.in_session("poll").json(poll);
        read(send(request.timeout(held + POLL_GRACE)).await?).await
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// See [`CallError`]; 401: the token was revoked, 409: register again.
    pub(crate) async fn heartbeat(&self, mut beat: Heartbeat) -> Result<(), CallError> {
        beat.shorten();
        send(self.in_session("heartbeat").json(&beat).timeout(TIMEOUT)).await.map(drop)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn deregister(&self) -> Result<(), CallError> {
        send(self.in_session("deregister").timeout(TIMEOUT)).await.map(drop)
    }

    /// Claims an offered task.
    ///
    /// # Errors
    /// See [`CallError`]; 409: somebody else has it.
    pub(crate) async fn claim(&self, task_id: &str, attempt: u32) -> Result<Claimed, CallError> {
        let call = || async {
            let request =
                self.in_session(&format!("tasks/{task_id}/claim")).json(&Attempt { attempt });
            read(send(request.timeout(TIMEOUT)).await?).await
        };
        patiently("claim a task", call, || {}).await
    }

    /// Asks whether a task of another boot, or of another machine, is still this agent's.
    /// Gives the task's token from now on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn resume(&self, task_id: &str, resume: &Resume) -> Result<Secret, CallError> {
        let request = self.in_session(&format!("tasks/{task_id}/resume")).json(resume);
        let resumed: Resumed = read(send(request.timeout(TIMEOUT)).await?).await?;
        Ok(resumed.task_token)
    }

    /// A client for the calls about one task.
    pub fn of_task(&self, claimed: &Claimed) -> TaskClient {
        TaskClient {
            client: self.clone(),
            path: format!("tasks/{}", claimed.task.id),
            attempt: claimed.task.attempt,
            token: claimed.task_token.clone(),
            waiting: Arc::default(),
        }
    }

    /// The session's token at present, which no log may show.
    pub(crate) fn session(&self) -> Secret {
        self.session.read().expect("nothing panics while it holds the token").clone()
    }

    fn in_session(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path, &self.session())
    }

    fn request(&self, method: Method, path: &str, token: &Secret) -> RequestBuilder {
        let url = self.base.join(path).expect("a path of ours is a path");
        self.http.request(method, url).bearer_auth(token.expose())
    }
}

/// A file that goes to the server or comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskFile {
    /// The run's configuration, a tar.gz.
    Configuration,
    /// The saved plan.
    Plan,
    /// `.terraform.lock.hcl`.
    LockFile,
    /// What the plan made in its working directory, a tar.gz.
    PlanFiles,
    /// What Terraform says of a plan in JSON, without what is sensitive.
    PlanJson,
    /// The workspace's state.
    State,
}

impl fmt::Display for TaskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path().replace('-', " "))
    }
}

impl TaskFile {
    fn path(self) -> &'static str {
        match self {
            TaskFile::Configuration => "configuration",
            TaskFile::Plan => "plan",
            TaskFile::LockFile => "lock-file",
            TaskFile::PlanFiles => "plan-files",
            TaskFile::PlanJson => "plan-json",
            TaskFile::State => "state",
        }
    }

    /// The most that it may have, in bytes. How large a state may be, the server says.
    fn most(self) -> u64 {
        match self {
            TaskFile::State => MAX_STATE,
            _ => MAX_FILE,
        }
    }
}

/// The server, as seen by one task. While the server is away these calls wait:
/// what a task has to report is never given up.
#[derive(Clone, Debug)]
pub struct TaskClient {
    client: Client,
    path: String,
    attempt: u32,
    token: Secret,
    /// How many calls wait for the server to be back.
    waiting: Arc<AtomicUsize>,
}

/// A call waits while this lives.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waiting))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TaskClient {
    /// Whether something that the task has to say waits for a server that is away.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Says that the task's container is about to be started.
    ///
    /// # Errors
    /// See [`CallError`]; 409: it is no longer ours, and must not be started.
    pub(crate) async fn start(&self) -> Result<(), CallError> {
        let attempt = Attempt { attempt: self.attempt };
        self.patiently("say that a task starts", || async {
            let request = self.request(Method::POST, "start").json(&attempt).timeout(TIMEOUT);
            send(request).await.map(drop)
        })
        .await
    }

    /// Gives the task back, which was not started.
    ///
    /// # Errors
    /// See [`CallError`]; 404: the server is older than this call, and offers the task again when
    /// its lease ends.
    pub(crate) async fn give_back(&self) -> Result<(), CallError> {
        let attempt = Attempt { attempt: self.attempt };
        let request = self.request(Method::POST, "give-back").json(&attempt).timeout(TIMEOUT);
        send(request).await.map(drop)
    }

    /// Gets a file, which replaces the content of `to`; returns whether the server has one.
    ///
    /// # Errors
    /// See [`CallError`]; or `to` can't be written.
    pub(crate) async fn get(&self, file: TaskFile, to: &File) -> Result<bool, CallError> {
        self.patiently("get a task's files", || async {
            let request = self
                .request(Method::GET, file.path())
                .query(&[("attempt", self.attempt)])
                .timeout(FILE_TIMEOUT);
            let mut response = match send(request).await {
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => return Ok(false),
                Err(error) => {
                    return Err(match error.of_file() {
                        CallError::FileRefused(why) => {
                            CallError::FileRefused(format!("cannot get the {file}: {why}"))
                        }
                        other => other,
                    });
                }
                Ok(response) => response,
            };
            let cannot = || format!("cannot write the {file} to the disk");
            let mut to = to;
            // A try before may have got a part of it.
            to.set_len(0).with_context(cannot)?;
            to.rewind().with_context(cannot)?;
            let mut length = 0;
            while let Some(piece) =
                response.chunk().await.map_err(|error| CallError::Away(in_one_line(error)))?
            {
                length += piece.len() as u64;
                let most = file.most();
                if length > most {
                    return Err(CallError::FileRefused(format!(
                        "cannot get the {file}: it is larger than the {most} bytes that the agent \
                         accepts"
                    )));
                }
                to.write_all(&piece).with_context(cannot)?;
            }
            Ok(true)
        })
        .await
    }

    /// Puts the file that `content` is the path of.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn put(&self, file: TaskFile, content: &Path) -> Result<(), CallError> {
        self.patiently("save a task's files", || async {
            let describe = || format!("cannot read {}", content.display());
            let open = tokio::fs::File::open(content).await.with_context(describe)?;
            let length = open.metadata().await.with_context(describe)?.len();
            let request = self
                .request(Method::PUT, file.path())
                .query(&[("attempt", self.attempt)])
                .header(header::CONTENT_LENGTH, length)
                .body(open)
                .timeout(FILE_TIMEOUT);
            send(request).await.map(drop).map_err(CallError::of_file)
        })
        .await
    }

    /// Appends a piece to the log at `offset` and gives the offset to go on at,
    /// whether the piece was taken or the server was elsewhere. An empty piece
    /// asks where the server is.
    ///
    /// # Errors
    /// See [`CallError`]; 409: the attempt is over.
    pub async fn log(&self, offset: u64, piece: &[u8]) -> Result<LogOffset, CallError> {
        let packed: Bytes = gzip(piece)?.into();
        self.patiently("send a task's log", || async {
            let request = self
                .request(Method::PUT, "log")
                .query(&[("attempt", u64::from(self.attempt)), ("offset", offset)])
                .header(header::CONTENT_ENCODING, "gzip")
                .body(packed.clone())
                .timeout(TIMEOUT);
            match send(request).await {
                Ok(response) => read(response).await,
                Err(CallError::Refused { offset: Some(offset), .. }) => {
                    Ok(LogOffset { offset, interval_milliseconds: None })
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Says how the task ended; gives an offset if the log has to be sent again
    /// from there, which the server's log then ends at.
    ///
    /// # Errors
    /// See [`CallError`]; 409: the attempt is over.
    pub(crate) async fn finish(&self, finish: &Finish) -> Result<Option<u64>, CallError> {
        let mut finish = finish.clone();
        finish.shorten();
        self.patiently("report a task's outcome", || async {
            let request = self.request(Method::POST, "finish").json(&finish).timeout(TIMEOUT);
            match send(request).await {
                Ok(_) => Ok(None),
                Err(CallError::Refused { offset: Some(offset), .. }) => Ok(Some(offset)),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn patiently<T, F, C>(&self, what: &str, call: F) -> Result<T, CallError>
    where
        F: FnMut() -> C,
        C: Future<Output = Result<T, CallError>>,
    {
        let mut waiting = None;
        patiently(what, call, || {
            waiting.get_or_insert_with(|| Waiting::begin(&self.waiting));
        })
        .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, &format!("{}/{path}", self.path), &self.token)
    }
}

fn gzip(piece: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(piece).context("cannot compress a piece of a log")?;
    encoder.finish().context("cannot compress a piece of a log")
}

/// Repeats a call while the server is away, for ever; `on_pause` is called before
/// each new try.
async fn patiently<T, F, C>(what: &str, call: F, mut on_pause: impl FnMut()) -> Result<T, CallError>
where
    F: FnMut() -> C,
    C: Future<Output = Result<T, CallError>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times();
    call.retry(pauses)
        .when(|error| matches!(error, CallError::Away(_)))
        .notify(|error, pause| {
            on_pause();
            warn!("cannot {what}, trying again in {} ms: {error}", pause.as_millis());
        })
        .await
}

async fn send(request: RequestBuilder) -> Result<Response, CallError> {
    let response = request.send().await.map_err(|error| CallError::Away(in_one_line(error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    // A proxy or a load balancer answers in HTML; the server is behind it, and
    // may be back soon.
    let is_passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
    if status.is_server_error() || is_passing.contains(&status) || !ours {
        return Err(CallError::Away(anyhow!(
            "{} answered {status}{}",
            response.url().host_str().unwrap_or("the server"),
            if ours { "" } else { ", and not as the server of an agent pool does" }
        )));
    }
    let body = body(response, Problem::MAX_BYTES).await.unwrap_or_default();
    let offset = accepted::<LogOffset>(&body).ok().map(|log| log.offset);
    let problem = accepted(&body)
        .unwrap_or_else(|_| Problem { error: format!("the server answered {status}"), code: None });
    Err(CallError::Refused { status, code: problem.code, why: problem.error, offset })
}

async fn read<T: Message>(response: Response) -> Result<T, CallError> {
    accepted(&body(response, T::MAX_BYTES).await?)
}

/// The body of an answer, which has at most `max` bytes.
async fn body(mut response: Response, max: usize) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(piece) =
        response.chunk().await.map_err(|error| CallError::Away(in_one_line(error)))?
    {
        if body.len() + piece.len() > max {
            return Err(CallError::Here(anyhow!(
                "the server's answer is longer than the {max} bytes that the agent accepts"
            )));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn accepted<T: Message>(body: &[u8]) -> Result<T, CallError> {
    // A proxy's login page comes with 200.
    let message: T = serde_json::from_slice(body).map_err(|_| {
        CallError::Away(anyhow!("what answered there is not the server of an agent pool"))
    })?;
    message.check().context("the server's answer is refused")?;
    Ok(message)
}

/// What went wrong and what to do, for the usual ways in which a connection
/// fails.
pub(super) fn in_one_line(error: reqwest::Error) -> anyhow::Error {
    let url = error.url().cloned();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("the server").to_owned();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    let last = causes.last().cloned().unwrap_or_else(|| error.to_string());
    let all = causes.join(": ").to_lowercase();
    if all.contains("proxy authorization required") {
        anyhow!(
            "the proxy requires a user and a password, or refuses those that it gets (407); set them with `scalr-agent-setup proxy --http -`"
        )
    } else if all.contains("tunnel error: failed to create underlying connection")
        && all.contains("certificate")
        && is_about_time(&last)
    {
        anyhow!("the proxy's certificate is not valid now ({last}); check this host's clock, too")
    } else if all.contains("tunnel error: failed to create underlying connection")
        && all.contains("certificate")
    {
        anyhow!(
            "the proxy's certificate is not accepted ({last}); name its authority with --ca-cert, \
             or put it into the system's trust store"
        )
    } else if all.contains("tunnel error: failed to create underlying connection") {
        anyhow!(
            "the proxy does not answer ({last}); look at it with `scalr-agent-setup proxy show`"
        )
    } else if all.contains("tunnel error: unsuccessful") {
        anyhow!(
            "the proxy does not connect to {host}; check its user and password if it takes them, \
             and ask its operator"
        )
    } else if error.is_timeout() {
        anyhow!(
            "{host} did not answer in time; check that it, or the proxy, can be reached from here"
        )
    } else if all.contains("certificate") {
        not_trusted(&host, &last)
    } else if all.contains("dns") || all.contains("lookup") {
        anyhow!("cannot resolve {host} ({last}); check the name, and whether a proxy is needed")
    } else if error.is_connect() {
        anyhow!(
            "cannot connect to {host} ({last}); check that it is running, and whether a proxy is needed"
        )
    } else {
        anyhow!("the connection to {host} failed ({last})")
    }
}

/// Why the server's certificate is refused: `why` is what rustls says.
fn not_trusted(host: &str, why: &str) -> anyhow::Error {
    if why.contains("CaUsedAsEndEntity") {
        anyhow!(
            "{host} presents an authority's certificate (CA:TRUE) as its own; the server needs a \
             server certificate"
        )
    } else if why.contains("not valid for name") {
        anyhow!(
            "the certificate of {host} is for another name ({why}); the server needs one with \
             {host} as a subject alternative name"
        )
    } else if is_about_time(why) {
        anyhow!("the certificate of {host} is not valid now ({why}); check this host's clock, too")
    } else if why.to_lowercase().contains("signaturealgorithm") {
        anyhow!(
            "the certificate of {host} has a signature that is not accepted, SHA-1 for example \
             ({why}); the server needs another certificate"
        )
    } else {
        anyhow!(
            "{host} is not trusted ({why}); name its certificate authority with --ca-cert, or put \
             it into the system's trust store"
        )
    }
}

/// Whether rustls refuses a certificate for its times.
fn is_about_time(why: &str) -> bool {
    why.contains("expired") || why.contains("not valid yet")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use config::Settings;

    /// What the proxy receives of a request to `url`, up to the empty line.
    async fn request_to_proxy(url: &str, variable: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:a%20b@{}", listener.local_addr().unwrap());
        let https = Https::new(None, &[(variable.to_owned(), proxy)]).unwrap();
        let request = tokio::spawn(https.client().build().unwrap().get(url).send());
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            received.push(connection.read_u8().await.unwrap());
        }
        request.abort();
        String::from_utf8(received).unwrap()
    }

    /// What an agent says whose proxy gives this answer; none: it is not there.
    async fn said_behind_proxy(answer: Option<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        match answer {
            None => drop(listener),
            Some(answer) => drop(tokio::spawn(async move {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut received = Vec::new();
                while !received.ends_with(b"\r\n\r\n") {
                    received.push(connection.read_u8().await.unwrap());
                }
                connection.write_all(answer.as_bytes()).await.unwrap();
            })),
        }
        let https = Https::new(None, &[("HTTPS_PROXY".to_owned(), proxy)]).unwrap();
        let http = https.client().build().unwrap();
        let error = http.get("https://pools.test").send().await.unwrap_err();
        in_one_line(error).to_string()
    }

    #[tokio::test]
    async fn a_proxy_that_is_dead_or_refuses_is_named_as_the_cause() {
        let dead = said_behind_proxy(None).await;
        assert!(dead.contains("the proxy does not answer"), "{dead}");
        let status = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        let refused = said_behind_proxy(Some(status)).await;
        assert!(refused.contains("(407)"), "{refused}");
        let away = said_behind_proxy(Some("HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(away.contains("does not connect to pools.test"), "{away}");
    }

    /// A client of a server that answers every call in this way.
    async fn client_of(answer: axum::response::Response<String>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(async move || answer.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        let settings = Settings {
            url: Some(url.parse().unwrap()),
            token: Some(Secret::new("token")),
            ..Settings::default()
        };
        Client::new(&settings.resolve().unwrap(), &Https::new(None, &[]).unwrap()).unwrap()
    }

    fn json(status: u16, body: impl Into<String>) -> axum::response::Response<String> {
        let answer = axum::response::Response::builder().status(status);
        answer.header("content-type", "application/json").body(body.into()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_beyond_a_bound_is_refused() {
        let drains = vec![r#"{"event": "drain"}"#; 10_000].join(",");
        let offer = |id: &str| {
            format!(r#"{{"event": "offer", "task_id": "{id}", "attempt": 1, "kind": "plan"}}"#)
        };
        for (events, why) in [
            (offer("../../../etc"), "events[0].task_id: it is not an id"),
            (drains, "events: it has 10000 entries"),
            ("x".repeat(3 * 1024 * 1024), "longer than the 1048576 bytes"),
        ] {
            let client = client_of(json(200, format!(r#"{{"events": [{events}]}}"#))).await;
            let poll = Poll { free_slots: 1, tasks: Vec::new() };
            let error = client.poll(&poll, Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, CallError::Here(_)), "{error:?}");
            let CallError::Here(error) = error else { unreachable!() };
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }

    #[tokio::test]
    async fn a_state_may_be_larger_than_the_other_files_of_a_task() {
        let length = MAX_FILE + 1;
        let content = "x".repeat(usize::try_from(length).unwrap());
        let task = TaskClient {
            client: client_of(json(200, content)).await,
            path: "tasks/task-1".to_owned(),
            attempt: 1,
            token: Secret::new("token"),
            waiting: Arc::default(),
        };
        let file = tempfile::tempfile().unwrap();
        assert!(task.get(TaskFile::State, &file).await.unwrap());
        assert_eq!(file.metadata().unwrap().len(), length);
        let error = task.get(TaskFile::Plan, &file).await.unwrap_err();
        assert!(error.to_string().contains("larger than the 104857600 bytes"), "{error}");
    }

    #[tokio::test]
    async fn the_reason_of_a_refusal_is_read_within_a_bound() {
        let client =
            client_of(json(422, format!(r#"{{"error": "{}"}}"#, "x".repeat(1 << 22)))).await;
        let poll = Poll { free_slots: 1, tasks: Vec::new() };
        let error = client.poll(&poll, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.to_string(), "the server answered 422 Unprocessable Entity");
    }

    #[tokio::test]
    async fn a_request_goes_through_the_proxy_with_its_credentials() {
        // me:a b
        let credentials = "basic bwu6ysbi";
        for (url, variable, line) in [
            ("https://pools.test/x", "HTTPS_PROXY", "connect pools.test:443 http/1.1"),
            ("http://pools.test/x", "ALL_PROXY", "get http://pools.test/x http/1.1"),
        ] {
            let received = request_to_proxy(url, variable).await.to_lowercase();
            assert!(received.starts_with(line) && received.contains(credentials), "{received}");
        }
    }
    #[tokio::test]
    async fn a_body_that_was_too_slow_for_the_server_is_worth_another_try() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
                          content-length: 2\r\n\r\n{}";
            drop(stream.read(&mut [0; 1024]).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = send(http.get(url)).await.unwrap_err();
        assert!(matches!(error, CallError::Away(_)), "{error}");
        server.await.unwrap();
    }
}

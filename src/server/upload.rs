//! Bodies that may be large: read as they come, never whole in memory.

use std::convert::Infallible;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::App;
use crate::objects::{Draft, too_large};
use crate::scheduler::Error;
use crate::turns::Turns;

/// How long an upload may take: more than the 10 minutes after which agents give up.
pub(crate) const TIME: Duration = Duration::from_secs(15 * 60);

/// How much is read of a body that is refused, in bytes, and for how long: a client that is
/// still sending does not see the answer, and would only find that its connection has ended.
const MAX_REST: u64 = 1024 * 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(60);

/// How many uploads are read at once, and how many of them with one token, or without one to one
/// link. Each has a thread while it comes, of the 512 that also write the logs of all runs.
const AT_ONCE: usize = 256;
const OF_ONE: usize = 16;

/// Whose upload is read next.
pub(crate) fn turns() -> Turns {
    Turns::new(AT_ONCE, OF_ONE)
}

/// How long a body may be, and what it is for: a state in base64 in a document is shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The whole body, in bytes.
    pub body: u64,
    /// What is kept of it, in bytes.
    pub content: u64,
}

impl Limit {
    /// That of a body that is kept as it is.
    pub(crate) fn of(content: u64) -> Self {
        Self { body: content, content }
    }
}

/// The body of a request.
pub(crate) struct Upload {
    body: Pin<Box<dyn AsyncRead + Send>>,
    /// How long the client says that it is, in bytes.
    length: Option<u64>,
    /// Whether the client sends nothing before the server wants it.
    waits: bool,
    turns: Arc<Turns>,
    client: u64,
    /// Ends the body when nobody waits for it any more: the thread that reads it does not know.
    ends: DropGuard,
}

impl FromRequest<App> for Upload {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &App) -> Result<Self, Infallible> {
        let headers = request.headers();
        let turns = Arc::clone(&app.uploads);
        let client = turns.client(headers, request.uri());
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let waits = headers.contains_key(EXPECT);
        let body = request.into_body().into_data_stream().map_err(io::Error::other);
        let end = CancellationToken::new();
        let body = Box::pin(StreamReader::new(body.take_until(end.clone().cancelled_owned())));
        Ok(Self { body, length, waits, turns, client, ends: end.drop_guard() })
    }
}

impl Upload {
    /// Receives an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or it does not come whole, or can't be written.
    pub(crate) async fn receive(self, app: &App, limit: u64) -> Result<Draft, Error> {
        let app = Arc::clone(app);
        self.read(Limit::of(limit), move |body| {
            let mut draft = app.scheduler.objects.draft(limit)?;
            io::copy(body, &mut draft)?;
            Ok(draft)
        })
        .await
    }

    /// Has `read` read the body, unless that is longer than `limit`. `read` is called on a thread
    /// of its own when it is the client's turn, and what it writes to is made there: whoever
    /// waits has no file yet.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or those of `read`.
    pub(crate) async fn read<T, E>(
        self,
        limit: Limit,
        read: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let is_too_long = self.length.is_some_and(|length| length > limit.body);
        if is_too_long && self.waits {
            return Err(Error::from(too_large(limit.content)).into());
        }
        let waits = self.waits;
        let _ends = self.ends;
        let turn = self.turns.take(self.client).await;
        let turn = turn.map_err(|error| Error::Failed(error.into()))?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut body = SeenBody { body: SyncIoBridge::new(self.body), is_read: false };
            let result = match is_too_long {
                true => Err(Error::from(too_large(limit.content)).into()),
                false => read(&mut body),
            };
            (result, body.is_read, body.body.into_inner())
        });
        let read = reading.await.map_err(|error| Error::Failed(error.into()))?;
        let (result, is_read, body) = read;
        drop(turn);
        // It was refused before the client began to send, as on a full disk.
        if waits && !is_read {
            return result;
        }
        let (mut rest, mut nowhere) = (body.take(MAX_REST), tokio::io::sink());
        let _ = tokio::time::timeout(REST_TIME, tokio::io::copy(&mut rest, &mut nowhere)).await;
        result
    }
}

/// A body, and whether any of it was asked for.
struct SeenBody {
    body: SyncIoBridge<Pin<Box<dyn AsyncRead + Send>>>,
    is_read: bool,
}

impl Read for SeenBody {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.is_read = true;
        self.body.read(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use axum::body::{Body, Bytes};
    use axum::http::{Method, StatusCode};
    use futures_util::future::join_all;
    use futures_util::{StreamExt as _, stream};
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::OF_ONE;
    use crate::in_process::InProcess;
    use protocol::BASE;

    /// Who sends a body's beginning and then waits, until this is dropped.
    struct SlowClient {
        /// Comes when the beginning was read.
        begun: oneshot::Receiver<()>,
        _stays: oneshot::Sender<()>,
    }

    fn slow_client() -> (Body, SlowClient) {
        let beginning = Bytes::from_static(br#"{"data": {"attributes": {"state": "e30"#);
        let (read, begun) = oneshot::channel();
        let (stays, gone) = oneshot::channel();
        let rest = stream::once(async move {
            let _ = read.send(());
            let _: Result<(), _> = gone.await;
            Err(std::io::Error::other("the client is gone"))
        });
        let body = Body::from_stream(stream::iter([Ok(beginning)]).chain(rest));
        (body, SlowClient { begun, _stays: stays })
    }

    #[tokio::test]
    async fn slow_uploads_of_one_agent_keep_no_thread_from_the_logs_of_others() {
        let server = InProcess::new().await;
        let (slow, other) = (server.working().await, server.working().await);
        let state = format!("{BASE}/tasks/{}/state?attempt=1", slow.task);
        let (bodies, _clients): (Vec<_>, Vec<_>) = (0..600).map(|_| slow_client()).unzip();
        let uploads = bodies
            .into_iter()
            .map(|body| server.call(Method::PUT, &state, &slow.task_token, &[], body));
        let log = format!("{BASE}/tasks/{}/log?attempt=1&offset=0", other.task);
        let drafts = server.app.scheduler.objects.folder().join("drafts");
        let drafts = || fs::read_dir(&drafts).unwrap().count();
        let append = async {
            while drafts() < OF_ONE {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let answer = server.call(Method::PUT, &log, &other.task_token, &[], "one\n").await;
            assert_eq!(drafts(), OF_ONE, "an upload that waits has a file");
            answer.0
        };
        tokio::select! {
            answers = join_all(uploads) => panic!("{answers:?}"),
            status = tokio::time::timeout(Duration::from_secs(60), append) => {
                assert_eq!(status, Ok(StatusCode::OK));
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_sends_nothing_to_a_full_disk() {
        let server = InProcess::with_reserve(u64::MAX).await;
        let (_, link) = server.configuration_version().await;
        let (body, mut client) = slow_client();
        let headers = [("expect", "100-continue")];
        let (status, answer) = server.call(Method::PUT, &link, "", &headers, body).await;
        assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{answer:?}");
        assert!(client.begun.try_recv().is_err(), "the body was asked for");
    }

    #[tokio::test]
    async fn a_slow_upload_keeps_no_other_writer_waiting() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let (_, configuration) = server.configuration_version().await;
        let of_task = |what: &str| format!("{BASE}/tasks/{}/{what}", working.task);
        let (put, post) = (Method::PUT, Method::POST);
        for (method, path, token) in [
            (put.clone(), of_task("plan?attempt=1"), &working.task_token),
            (put.clone(), of_task("state?attempt=1"), &working.task_token),
            (put.clone(), of_task("log?attempt=1&offset=0"), &working.task_token),
            (put, configuration, &String::new()),
            (post, "/api/iacp/v3/state-versions".into(), &server.admin),
        ] {
            let (body, mut client) = slow_client();
            let upload = server.call(method, &path, token, &[], body);
            let others = async {
                (&mut client.begun).await.unwrap();
                let beat = json!({ "status": "busy", "error_message": null, "tasks": [] });
                server.tell("heartbeat", &working.session, &beat).await.0
            };
            tokio::select! {
                answer = upload => panic!("{path}: {answer:?}"),
                status = tokio::time::timeout(Duration::from_secs(60), others) => {
                    assert_eq!(status, Ok(StatusCode::NO_CONTENT), "{path}");
                }
            }
        }
    }
}

//! Starts a server and talks to it: as an admin, and as an agent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::{
    Attempt, BASE, Claimed, Event, Events, Finish, Identity, LogOffset, Outcome, Poll, Register,
    Registered, TaskState, TaskStatus,
};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for files of hundreds of megabytes, in a debug build.
pub(crate) const PATIENCE_WITH_LARGE_FILES: Duration = Duration::from_secs(5 * 60);

/// A server of a test's own; it ends with the test.
pub(crate) struct Server {
    pub data: PathBuf,
    pub url: String,
    pub admin: String,
    pub http: Client,
    options: Vec<String>,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one, with TLS of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with more options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let options = [&["--tls-self-signed"], options].concat();
        Self::start_bare(&options, None).await
    }

    /// Starts one with these options only; `ca` is the certificate that it is
    /// trusted by, unless it has an authority of its own.
    pub(crate) async fn start_bare(options: &[&str], ca: Option<&[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, lines) = launch(&data, "127.0.0.1:0", &options).await;
        let admin = lines.iter().find_map(|line| line.strip_prefix("Admin token: "));
        let admin = admin.expect("the first start prints the token").to_owned();
        let url = url_in(&lines);
        let own = fs::read(data.join("tls/ca.pem")).ok();
        let ca = ca.or(own.as_deref()).map(|pem| Certificate::from_pem(pem).unwrap());
        install_provider();
        let http =
            Client::builder().tls_certs_only(ca).no_proxy().timeout(PATIENCE).build().unwrap();
        Self { data, url, admin, http, options, child, _folder: folder }
    }

    /// Kills it with SIGKILL and starts it again in the same place.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.child.kill().await.unwrap();
        let address = self.url.rsplit('/').next().unwrap().to_owned();
        let (child, lines) = launch(&self.data, &address, &self.options).await;
        assert!(!lines.iter().any(|line| line.contains("token")), "told once: {lines:?}");
        self.child = child;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// Waits until its log has `text`.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        let wait = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("never logged {text}: {}", self.log()));
    }

    /// Stops it with SIGTERM; its exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }

    /// Has an agent poll, and waits until the server holds the poll.
    pub(crate) async fn hold_poll(
        &self,
        agent: &Agent,
        tasks: Vec<TaskStatus>,
    ) -> JoinHandle<(StatusCode, String)> {
        let agent = agent.clone();
        self.hold("/api/agent/v1/poll", async move { agent.poll(tasks).await }).await
    }

    /// Begins a call whose address has `path`, and waits until the server has it.
    pub(crate) async fn hold<T: Send + 'static>(
        &self,
        path: &str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let calls = || self.log().matches(path).count();
        let before = calls();
        let calling = tokio::spawn(call);
        let arrived = async {
            while calls() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.expect("the call never arrived");
        calling
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap()));
        let status = status.unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(&self.data)).unwrap()
    }

    /// A call of the pool API; status and document.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        self.call_with(&self.admin, method, path, body).await
    }

    /// The same, with a token.
    pub(crate) async fn call_with(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request =
            self.http.request(method, format!("{}/api/iacp/v3{path}", self.url)).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, document) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {document}");
        document
    }

    /// Makes something; its resource.
    pub(crate) async fn create(
        &self,
        path: &str,
        attributes: Value,
        related: &[(&str, &str)],
    ) -> Value {
        let (status, document) = self.call(Method::POST, path, resource(attributes, related)).await;
        assert_eq!(status, StatusCode::CREATED, "POST {path}: {document}");
        document["data"].clone()
    }

    pub(crate) async fn action(&self, run: &str, action: &str) -> StatusCode {
        self.call(Method::POST, &format!("/runs/{run}/actions/{action}"), Value::Null).await.0
    }

    pub(crate) async fn run_status(&self, run: &str) -> String {
        let run = self.get(&format!("/runs/{run}")).await;
        run["data"]["attributes"]["status"].as_str().unwrap().to_owned()
    }

    /// Waits until an attribute has a value.
    pub(crate) async fn wait_for(&self, path: &str, attribute: &str, value: &str) {
        let wait = async {
            while self.get(path).await["data"]["attributes"][attribute] != value {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{path} never had {attribute} {value}"));
    }

    /// Pool, token, workspace and an uploaded configuration.
    pub(crate) async fn pool_and_workspace(&self) -> Site {
        self.pool_and_workspace_named("pool", "main").await
    }

    /// The same with these names.
    pub(crate) async fn pool_and_workspace_named(&self, pool: &str, workspace: &str) -> Site {
        let environment = self.get("/environments?filter[name]=default").await;
        let environment = id(&environment["data"][0]);
        let pool = id(&self.create("/agent-pools", json!({ "name": pool }), &[]).await);
        let path = format!("/agent-pools/{pool}/access-tokens");
        let token = self.create(&path, json!({}), &[]).await;
        let links = [("environment", environment.as_str()), ("agent-pool", pool.as_str())];
        let name = json!({ "name": workspace });
        let workspace = id(&self.create("/workspaces", name, &links).await);
        let site = Site {
            environment,
            pool,
            token_id: id(&token),
            token: token["attributes"]["token"].as_str().unwrap().to_owned(),
            workspace,
        };
        self.upload_configuration(&site.workspace).await;
        site
    }

    /// Makes a configuration version with its archive; its upload link.
    pub(crate) async fn upload_configuration(&self, workspace: &str) -> String {
        let links = [("workspace", workspace)];
        let version = self.create("/configuration-versions", json!({}), &links).await;
        let link = version["links"]["upload"].as_str().unwrap().to_owned();
        let upload = self.http.put(&link).body(configuration()).send().await.unwrap();
        assert_eq!(upload.status(), StatusCode::OK);
        link
    }

    /// Makes a run; its resource.
    pub(crate) async fn run(&self, site: &Site) -> Value {
        self.create("/runs", json!({}), &[("workspace", &site.workspace)]).await
    }

    pub(crate) async fn agent(&self, site: &Site, name: &str) -> Agent {
        let (status, text, mut agent) = self.register(site, name, None).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        let registered: Registered = serde_json::from_str(&text).unwrap();
        agent.token = registered.session_token.expose().to_owned();
        agent
    }

    /// Introduces an agent; status, text and the agent with its pool's token.
    pub(crate) async fn register(
        &self,
        site: &Site,
        name: &str,
        identity: Option<Identity>,
    ) -> (StatusCode, String, Agent) {
        let register = Register {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            os: "debian_12".to_owned(),
            driver: "docker".to_owned(),
            runtime: "vm".to_owned(),
            platform: "linux_amd64".to_owned(),
            concurrency: 1,
            identity,
            memory: None,
            level: protocol::LEVEL,
        };
        let url = format!("{}{BASE}", self.url);
        let http = self.http.clone();
        let agent = Agent { url, http, token: site.token.clone() };
        let (status, text) = agent.call(Method::POST, "register", &register).await;
        (status, text, agent)
    }

    /// An agent of the first version, which does not say what it can do.
    pub(crate) async fn old_agent(&self, site: &Site, name: &str) -> Agent {
        let register = json!({
            "name": name, "version": "0.1.0", "os": "debian_12", "driver": "docker",
            "platform": "linux_amd64", "concurrency": 1,
        });
        let (url, http) = (format!("{}{BASE}", self.url), self.http.clone());
        let agent = Agent { url, http, token: site.token.clone() };
        let registered: Registered = agent.ok(Method::POST, "register", &register).await;
        Agent { token: registered.session_token.expose().to_owned(), ..agent }
    }
}

/// What [`Server::pool_and_workspace`] made.
#[derive(Clone)]
pub(crate) struct Site {
    pub environment: String,
    pub pool: String,
    pub token_id: String,
    pub token: String,
    pub workspace: String,
}

/// A fake agent.
#[derive(Clone)]
pub(crate) struct Agent {
    pub token: String,
    url: String,
    http: Client,
}

impl Agent {
    /// A call with a JSON body; status and text.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> (StatusCode, String) {
        let request = self.http.request(method, format!("{}/{path}", self.url));
        let answer = request.bearer_auth(&self.token).json(body).send().await.unwrap();
        let status = answer.status();
        (status, answer.text().await.unwrap())
    }

    async fn ok<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> T {
        let (status, text) = self.call(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn poll(&self, tasks: Vec<TaskStatus>) -> (StatusCode, String) {
        self.call(Method::POST, "poll", &Poll { free_slots: 1, tasks }).await
    }

    /// Polls until there are events, besides the new intervals that a restarted server sends.
    pub(crate) async fn events(&self, tasks: &[TaskStatus]) -> Vec<Event> {
        let poll = Poll { free_slots: 1, tasks: tasks.to_vec() };
        loop {
            let mut events: Events = self.ok(Method::POST, "poll", &poll).await;
            events.events.retain(|event| !matches!(event, Event::NewIntervals(_)));
            if !events.events.is_empty() {
                return events.events;
            }
        }
    }

    /// Waits for an offer and claims it.
    pub(crate) async fn claim(&self) -> Job {
        let events = self.events(&[]).await;
        self.claim_offer(&events).await
    }

    /// Claims what the only event offers.
    pub(crate) async fn claim_offer(&self, events: &[Event]) -> Job {
        let [Event::Offer { task_id, attempt, .. }] = events else {
            panic!("no offer: {events:?}")
        };
        let path = format!("tasks/{task_id}/claim");
        let claimed: Claimed = self.ok(Method::POST, &path, &Attempt { attempt: *attempt }).await;
        let token = claimed.task_token.expose().to_owned();
        let run_token = claimed.run_token.expect("the server gives one").expose().to_owned();
        Job { agent: Agent { token, ..self.clone() }, task: claimed.task, run_token }
    }

    /// Waits for an offer, claims it and says that it was started.
    pub(crate) async fn take(&self) -> Job {
        let job = self.claim().await;
        assert_eq!(job.start().await, StatusCode::NO_CONTENT);
        job
    }
}

/// A task that a fake agent has.
pub(crate) struct Job {
    pub task: protocol::Task,
    /// Its bearer is the task's token.
    pub agent: Agent,
    /// What its run reads the pool API with.
    pub run_token: String,
}

impl Job {
    pub(crate) async fn start(&self) -> StatusCode {
        let attempt = Attempt { attempt: self.task.attempt };
        self.agent.call(Method::POST, &self.path("start"), &attempt).await.0
    }

    pub(crate) async fn get(&self, what: &str) -> (StatusCode, Vec<u8>) {
        let url = format!("{}/{}", self.agent.url, self.path(what));
        let answer = self.agent.http.get(url).bearer_auth(&self.agent.token).send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn put(&self, what: &str, content: &str) -> (StatusCode, String) {
        self.put_bytes(what, content.into()).await
    }

    pub(crate) async fn put_bytes(&self, what: &str, content: Vec<u8>) -> (StatusCode, String) {
        let attempt = self.task.attempt;
        let separator = if what.contains('?') { '&' } else { '?' };
        let url = format!("{}/{}{separator}attempt={attempt}", self.agent.url, self.path(what));
        let request = self.agent.http.put(url).bearer_auth(&self.agent.token);
        let request = request.timeout(PATIENCE_WITH_LARGE_FILES);
        let answer = request.body(content).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// Sends a piece of the log; status and the offset that the server answers.
    pub(crate) async fn log(&self, offset: u64, piece: &str) -> (StatusCode, Option<u64>) {
        let (status, text) = self.put(&format!("log?offset={offset}"), piece).await;
        (status, serde_json::from_str(&text).ok().map(|log: LogOffset| log.offset))
    }

    /// Says how it ended, `log` being the whole log.
    pub(crate) async fn finish(
        &self,
        outcome: Outcome,
        has_changes: Option<bool>,
        log: &str,
    ) -> (StatusCode, String) {
        self.say_finish(&self.ended(outcome, has_changes, log)).await
    }

    /// Says how it ended, with no log, and why its state may not be saved.
    pub(crate) async fn finish_unsaved(&self, outcome: Outcome, why: &str) -> (StatusCode, String) {
        let unsaved_state = Some(why.to_owned());
        self.say_finish(&Finish { unsaved_state, ..self.ended(outcome, None, "") }).await
    }

    pub(crate) async fn say_finish(&self, finish: &Finish) -> (StatusCode, String) {
        self.agent.call(Method::POST, &self.path("finish"), finish).await
    }

    pub(crate) fn ended(&self, outcome: Outcome, has_changes: Option<bool>, log: &str) -> Finish {
        Finish {
            attempt: self.task.attempt,
            outcome,
            message: None,
            exit_code: Some(0),
            oom_killed: false,
            has_changes,
            log_bytes: log.len() as u64,
            log_sha256: hex::encode(Sha256::digest(log)),
            unsaved_state: None,
            image: None,
            summary: None,
        }
    }

    /// As the agent lists it.
    pub(crate) fn status(&self) -> TaskStatus {
        TaskStatus {
            task_id: self.task.id.clone(),
            attempt: self.task.attempt,
            state: TaskState::Running,
        }
    }

    fn path(&self, what: &str) -> String {
        format!("tasks/{}/{what}", self.task.id)
    }
}

/// A document with a new or changed resource.
pub(crate) fn resource(attributes: Value, related: &[(&str, &str)]) -> Value {
    let relationships: serde_json::Map<String, Value> = related
        .iter()
        .map(|(name, id)| ((*name).to_owned(), json!({ "data": { "type": name, "id": id } })))
        .collect();
    json!({ "data": { "attributes": attributes, "relationships": relationships } })
}

pub(crate) fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap_or_else(|| panic!("no id in {resource}")).to_owned()
}

/// The id of what a resource is related to.
pub(crate) fn related(resource: &Value, name: &str) -> String {
    id(&resource["relationships"][name]["data"])
}

/// The only error in a document: title, detail and pointer.
pub(crate) fn error(document: &Value) -> (&str, &str, &str) {
    let error = &document["errors"][0];
    let text = |value: &'static str| error.pointer(value).and_then(Value::as_str).unwrap_or("");
    (text("/title"), text("/detail"), text("/source/pointer"))
}

/// A state as Terraform writes it.
pub(crate) fn state(serial: u32, outputs: Value) -> String {
    json!({
        "version": 4,
        "serial": serial,
        "lineage": "l-1",
        "outputs": outputs,
        "resources": [{ "mode": "managed" }],
    })
    .to_string()
}

/// Gives HTTP clients their TLS.
pub(crate) fn install_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
}

/// The command that runs the server.
pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_scalr-server-under-test"));
    program.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    program
}

fn configuration() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    archive.append_data(&mut header, "main.tf", std::io::empty()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

/// Starts the program; it, and what it printed until it was up.
async fn launch(data: &Path, address: &str, options: &[String]) -> (Child, Vec<String>) {
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    let log = fs::File::options().create(true).append(true).open(log_file(data)).unwrap();
    let mut child = program()
        .args(["serve", "--listen", address, "--data"])
        .arg(data)
        .args(options)
        .env("RUST_LOG", "debug")
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    let up = async {
        while let Some(line) = output.next_line().await.unwrap() {
            let is_up = line.starts_with("Listening on ");
            lines.push(line);
            if is_up {
                return;
            }
        }
        panic!("the server ended: {}", fs::read_to_string(log_file(data)).unwrap());
    };
    tokio::time::timeout(PATIENCE, up).await.unwrap();
    (child, lines)
}

fn log_file(data: &Path) -> PathBuf {
    data.with_extension("log")
}

fn url_in(lines: &[String]) -> String {
    let line = lines.last().unwrap();
    line.rsplit(' ').next().unwrap().trim_end_matches('/').to_owned()
}

/// The events in the answer to a poll.
pub(crate) fn events((status, text): (StatusCode, String)) -> Vec<Event> {
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str::<Events>(&text).unwrap().events
}

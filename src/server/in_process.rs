//! A server without a network, for tests: its routes are called directly.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tower::ServiceExt as _;

use crate::app::{App, Parts};
use crate::clock::Clock;
use crate::disk::Reserve;
use crate::kept_forms::KeptForms;
use crate::logs::Logs;
use crate::objects::{MAX_OBJECT, Objects};
use crate::scheduler::{Presence, Scheduler, Terms, Wake};
use crate::sign_in_attempts::Attempts;
use crate::store::Store;
use crate::token::new_id;
use crate::usage::{Quotas, Usage};
use crate::watched::Watched;
use crate::{admin, routes};
use protocol::BASE;

/// A database with all tables, which each server begins with: making them takes longer than most
/// tests.
static EMPTY_DATABASE: OnceCell<Vec<u8>> = OnceCell::const_new();

/// A server with a pool and a workspace.
pub(crate) struct InProcess {
    pub app: App,
    pub admin: String,
    pub pool_token: String,
    pub workspace: String,
    environment: String,
    pool: String,
    routes: Router,
    _folder: TempDir,
}

/// An agent's session, and a plan that it has claimed and started.
pub(crate) struct Working {
    pub workspace: String,
    pub session: String,
    pub task: String,
    pub task_token: String,
}

async fn empty_database() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.db");
    Store::open(&file).await.unwrap().close().await;
    fs::read(&file).unwrap()
}

impl InProcess {
    pub(crate) async fn new() -> Self {
        Self::with(Clock::default(), 0, Quotas::default()).await
    }

    /// A server whose clock the test sets.
    pub(crate) async fn with_clock(clock: Clock) -> Self {
        Self::with(clock, 0, Quotas::default()).await
    }

    /// A server that leaves so many bytes of its disk free.
    pub(crate) async fn with_reserve(bytes: u64) -> Self {
        Self::with(Clock::default(), bytes, Quotas::default()).await
    }

    /// A server whose workspaces may store only so much.
    pub(crate) async fn with_quotas(quotas: Quotas) -> Self {
        Self::with(Clock::default(), 0, quotas).await
    }

    async fn with(clock: Clock, reserve: u64, quotas: Quotas) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path(), reserve);
        let usage = Usage::default();
        let database = folder.path().join("server.db");
        fs::write(&database, EMPTY_DATABASE.get_or_init(empty_database).await).unwrap();
        let scheduler = Scheduler {
            store: Store::open(&database).await.unwrap(),
            objects: Objects::open(
                &folder.path().join("objects"),
                reserve.clone(),
                usage.clone(),
                MAX_OBJECT,
            )
            .unwrap(),
            clock,
            wake: Wake::default(),
            presence: Presence::default(),
            // A poll without events is not held for long; nothing sweeps the leases.
            terms: Terms {
                lease: Duration::from_millis(20),
                plan_timeout: Duration::from_secs(60),
                apply_timeout: Duration::from_secs(60),
            },
        };
        let admin = admin::first_start(&scheduler.store, scheduler.clock.now(), None).await;
        let app = Arc::new(Parts {
            authority: None,
            scheduler,
            logs: Logs::open(&folder.path().join("logs"), reserve, usage.clone()).unwrap(),
            usage,
            quotas,
            watched: Watched::default(),
            uploads: Arc::new(crate::upload::turns()),
            outputs: Arc::new(crate::api::outputs_turns()),
            sign_ins: Attempts::default(),
            kept_forms: KeptForms::default(),
            url: "https://pools.example.com".parse().unwrap(),
            metrics_token: None,
            packages: None,
        });
        let mut server = Self {
            admin: admin.unwrap().unwrap().expose().to_owned(),
            pool_token: String::new(),
            workspace: String::new(),
            environment: String::new(),
            pool: String::new(),
            routes: routes(&app),
            app,
            _folder: folder,
        };
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        server.environment = environments["data"][0]["id"].as_str().unwrap().to_owned();
        server.pool = server.create("/agent-pools", json!({ "name": "pool" }), &[]).await;
        let path = format!("/agent-pools/{}/access-tokens", server.pool);
        let token = server.api(Method::POST, &path, json!({ "data": {} })).await;
        server.pool_token = token["data"]["attributes"]["token"].as_str().unwrap().to_owned();
        server.workspace = server.new_workspace("main").await;
        server
    }

    async fn new_workspace(&self, name: &str) -> String {
        let (environment, pool) = (self.environment.as_str(), self.pool.as_str());
        let related = [("environment", environment), ("agent-pool", pool)];
        self.create("/workspaces", json!({ "name": name }), &related).await
    }

    /// A call; its status and what it answers.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, Bytes) {
        let answer = self.answer(method, path, token, headers, body).await;
        let status = answer.status();
        (status, to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    }

    /// A call; all of what it answers.
    pub(crate) async fn answer(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.routes.clone().oneshot(request).await.unwrap()
    }

    /// A call of the agents' protocol with a message.
    pub(crate) async fn tell(
        &self,
        call: &str,
        token: &str,
        message: &Value,
    ) -> (StatusCode, Value) {
        let (path, headers) = (format!("{BASE}/{call}"), [("content-type", "application/json")]);
        let body = message.to_string();
        let (status, answer) = self.call(Method::POST, &path, token, &headers, body).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// A call of the pool API as an admin, which succeeds.
    pub(crate) async fn api(&self, method: Method, path: &str, document: Value) -> Value {
        let path = format!("/api/iacp/v3{path}");
        let body = if document.is_null() { String::new() } else { document.to_string() };
        let (status, answer) = self.call(method, &path, &self.admin, &[], body).await;
        assert!(status.is_success(), "{path}: {status} {answer:?}");
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    /// Makes something; its id.
    pub(crate) async fn create(
        &self,
        path: &str,
        attributes: Value,
        related: &[(&str, &str)],
    ) -> String {
        let mut relationships = json!({});
        for (name, id) in related {
            relationships[name] = json!({ "data": { "type": format!("{name}s"), "id": id } });
        }
        let data = json!({ "attributes": attributes, "relationships": relationships });
        let made = self.api(Method::POST, path, json!({ "data": data })).await;
        made["data"]["id"].as_str().unwrap().to_owned()
    }

    /// A new configuration version, and the path that its archive goes to.
    pub(crate) async fn configuration_version(&self) -> (String, String) {
        self.configuration_version_of(&self.workspace).await
    }

    pub(crate) async fn configuration_version_of(&self, workspace: &str) -> (String, String) {
        let workspace = json!({ "data": { "type": "workspaces", "id": workspace } });
        let document = json!({ "data": { "relationships": { "workspace": workspace } } });
        let made = self.api(Method::POST, "/configuration-versions", document).await;
        let link = made["data"]["links"]["upload"].as_str().unwrap();
        let path = link.strip_prefix("https://pools.example.com").unwrap().to_owned();
        (made["data"]["id"].as_str().unwrap().to_owned(), path)
    }

    /// A new run of a configuration that is not there: its workspace, which is new, and its id.
    pub(crate) async fn run(&self) -> (String, String) {
        let workspace = self.new_workspace(&new_id("workspace")).await;
        let (version, _) = self.configuration_version_of(&workspace).await;
        let mut tx = self.app.scheduler.store.write().await.unwrap();
        crate::store::configuration_version::set_uploaded(&mut tx, &version, "").await.unwrap();
        tx.commit().await.unwrap();
        let related =
            [("workspace", workspace.as_str()), ("configuration-version", version.as_str())];
        let run = self.create("/runs", json!({}), &related).await;
        (workspace, run)
    }

    /// A new agent's claim of the first task that it is offered.
    pub(crate) async fn claim(&self) -> Value {
        let (_, registered) = self.tell("register", &self.pool_token, &register()).await;
        let session = registered["session_token"].as_str().unwrap();
        let poll = json!({ "free_slots": 1, "tasks": [] });
        let (_, events) = self.tell("poll", session, &poll).await;
        let task = events["events"][0]["task_id"].as_str().unwrap();
        let attempt = json!({ "attempt": 1 });
        self.tell(&format!("tasks/{task}/claim"), session, &attempt).await.1
    }

    /// A new run, and an agent that works on its plan.
    pub(crate) async fn working(&self) -> Working {
        let (workspace, _) = self.run().await;
        let (status, registered) = self.tell("register", &self.pool_token, &register()).await;
        assert_eq!(status, StatusCode::CREATED, "{registered}");
        let session = registered["session_token"].as_str().unwrap().to_owned();
        let poll = json!({ "free_slots": 1, "tasks": [] });
        let (_, events) = self.tell("poll", &session, &poll).await;
        let task = events["events"][0]["task_id"].as_str().unwrap().to_owned();
        let attempt = json!({ "attempt": 1 });
        let (_, claimed) = self.tell(&format!("tasks/{task}/claim"), &session, &attempt).await;
        let task_token = claimed["task_token"].as_str().unwrap().to_owned();
        let start = format!("tasks/{task}/start");
        let (status, _) = self.tell(&start, &task_token, &attempt).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        Working { workspace, session, task, task_token }
    }
}

/// How an agent introduces itself.
pub(crate) fn register() -> Value {
    json!({
        "name": "one", "version": "0.1.0", "os": "debian_12", "driver": "docker",
        "platform": "linux_amd64", "concurrency": 5,
    })
}

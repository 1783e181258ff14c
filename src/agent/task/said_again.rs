//! The test of a crash at a task's very end: between its outcome and its clean-up.

use std::sync::{Arc, Mutex, RwLock};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{SetOnce, watch};

use super::tests::claimed;
use super::{Wire, carry_out};
use crate::agent::client::Client;
use crate::agent::connection::Keeper;
use crate::agent::context::{Context, RunUser};
use crate::agent::engine::Engine;
use crate::agent::images::Images;
use crate::agent::journal::{Container, Journal};
use crate::agent::progress;
use crate::agent::providers::Providers;
use crate::agent::slots::Slots;
use crate::agent::telemetry::Telemetry;
use crate::config::Settings;
use crate::protocol::{Finish, Intervals, Kind, Outcome, TaskState};

/// What was asked, as `METHOD PATH`.
type Asked = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn an_outcome_that_may_have_been_heard_is_said_again_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (of_server, of_engine) = (Asked::default(), Asked::default());
    let context = context(folder.path(), &of_server, &of_engine).await;
    let mut claimed = claimed();
    claimed.task.kind = Kind::Apply;
    let mut entry = context.journal.begin(claimed, 0).unwrap();
    entry.note_container(Container { id: "c1".into(), log_start: 0 }).unwrap();
    let finish = Finish {
        attempt: 1,
        outcome: Outcome::Finished,
        message: None,
        exit_code: Some(0),
        oom_killed: false,
        has_changes: None,
        log_bytes: 0,
        log_sha256: String::new(),
    };
    entry.note_finish(finish).unwrap();

    // The agent is started again.
    let entry = context.journal.entries().unwrap().remove(0);
    let slot = context.slots.take_again(0);
    let (state, _) = watch::channel(TaskState::Claimed);
    let (_orders, orders) = watch::channel(None);
    carry_out(Arc::clone(&context), entry, slot, Wire { state, orders, offered: None }).await;

    assert_eq!(*of_server.lock().unwrap(), ["POST /api/agent/v1/tasks/task-1/finish"]);
    let of_engine = of_engine.lock().unwrap();
    assert!(of_engine.iter().any(|asked| asked.starts_with("DELETE ")), "{of_engine:?}");
    assert!(context.journal.entries().unwrap().is_empty());
    assert!(!folder.path().join("lost").exists(), "no state was lost");
}

/// An agent whose server takes no more than an outcome, and whose engine has no
/// more than one container.
async fn context(folder: &std::path::Path, of_server: &Asked, of_engine: &Asked) -> Arc<Context> {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", tcp.local_addr().unwrap());
    let server = fake(of_server, |asked| match asked.ends_with("/finish") {
        true => StatusCode::OK.into_response(),
        false => (StatusCode::CONFLICT, json(r#"{"error": "it is over"}"#)).into_response(),
    });
    tokio::spawn(async move { axum::serve(tcp, server).await });
    let socket = folder.join("docker.sock");
    let unix = UnixListener::bind(&socket).unwrap();
    let engine = fake(of_engine, |asked| {
        json(match asked {
            asked if asked.ends_with("/containers/json") => {
                r#"[{"Id": "c1", "Labels": {"scalr.task": "task-1", "scalr.attempt": "1"}}]"#
            }
            asked if asked.ends_with("/version") => r#"{"ApiVersion": "1.41"}"#,
            _ => "{}",
        })
    });
    tokio::spawn(async move { axum::serve(unix, engine).await });

    let settings = format!(
        "url = \"{url}\"\ntoken = \"t\"\ndata_dir = \"{}\"\nengine = \"unix://{}\"\n",
        folder.display(),
        socket.display()
    );
    std::fs::write(folder.join("agent.toml"), settings).unwrap();
    let config = Settings::load(&folder.join("agent.toml"), []).unwrap().resolve().unwrap();
    Arc::new(Context {
        client: Client::new(&config, &[]).unwrap(),
        engine: Engine::connect(&format!("unix://{}", socket.display())).await.unwrap(),
        images: Images::open(folder).unwrap(),
        slots: Slots::new(1, 1),
        journal: Journal::open(folder).unwrap(),
        providers: Providers::open(&config, &[]).unwrap(),
        proxy: Vec::new(),
        certificates: None,
        user: RunUser { uid: 0, gid: 0 },
        connection: Keeper::new(folder),
        progress: progress::Keeper::new(folder, Telemetry::off()),
        telemetry: Telemetry::off(),
        intervals: RwLock::new(Intervals::default()),
        registered: SetOnce::new(),
        config,
    })
}

/// Something that writes down what it is asked.
fn fake(asked: &Asked, answer: fn(&str) -> Response) -> Router {
    let asked = Arc::clone(asked);
    Router::new().fallback(async move |request: Request| {
        let what = format!("{} {}", request.method(), request.uri().path());
        let answer = answer(&what);
        asked.lock().unwrap().push(what);
        answer
    })
}

fn json(text: &'static str) -> Response {
    ([("content-type", "application/json")], text).into_response()
}

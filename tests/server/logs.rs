//! Logs, sent by the agent's own code.

use std::path::Path;
use std::time::Duration;

use agent::Spool;
use agent::upload;
use agent::{Client, Https, TaskClient};
use config::Settings;
use protocol::Claimed;
use protocol::Secret;
use reqwest::StatusCode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::harness::{Job, Server, related};

/// How long a log takes that nobody waits for, and as long as no test takes.
const LONG: Duration = Duration::from_secs(3600);

/// The agent's client for a task.
fn client(server: &Server, job: &Job) -> TaskClient {
    let settings = Settings {
        url: Some(server.url.parse().unwrap()),
        token: Some(Secret::new("unused")),
        ..Settings::default()
    };
    let task_token = Secret::new(job.agent.token.clone());
    let claimed = Claimed { task: job.task.clone(), task_token, run_token: None };
    let https = Https::new(Some(&server.data.join("tls/ca.pem")), &[]).unwrap();
    Client::new(&settings.resolve().unwrap(), &https).unwrap().of_task(&claimed)
}

/// Sends all of a log.
async fn send(client: &TaskClient, log: &Path) {
    let spool = Spool::open(log).unwrap();
    let complete = CancellationToken::new();
    complete.cancel();
    upload(client, log, spool.watch(), &complete, LONG, |_| ()).await.unwrap();
}

async fn output(server: &Server, plan: &str) -> String {
    let (status, text) =
        server.call(reqwest::Method::GET, &format!("/plans/{plan}/output"), Value::Null).await;
    assert!(status == StatusCode::OK, "{status} {text}");
    text.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_log_arrives_whole_whatever_the_server_had_before() {
    let mut server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let run = server.run(&site).await;
    let agent = server.agent(&site, "one").await;
    let job = agent.take().await;
    let plan = related(&run, "plan");
    // Longer than two pieces, with characters across their borders.
    let text: String = (0..150_000).map(|n| format!("\x1b[1mline {n} é€😀\x1b[0m\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");

    // A beginning that went up before; then the server went away.
    std::fs::write(&log, &text.as_bytes()[..70_001]).unwrap();
    send(&client(&server, &job), &log).await;
    server.crash_and_restart().await;
    std::fs::write(&log, &text).unwrap();
    send(&client(&server, &job), &log).await;
    assert!(output(&server, &plan).await == text);

    // The server has what nobody sent.
    assert_eq!(job.log(text.len() as u64, "more").await.0, StatusCode::OK);
    send(&client(&server, &job), &log).await;
    let finish = job.finish(protocol::Outcome::Finished, Some(false), &text).await;
    assert_eq!(finish.0, StatusCode::PRECONDITION_FAILED);
    send(&client(&server, &job), &log).await;
    assert!(output(&server, &plan).await == text);
    let finish = job.finish(protocol::Outcome::Finished, Some(false), &text).await;
    assert_eq!(finish.0, StatusCode::OK);
}

#[tokio::test]
async fn an_agent_knows_whether_somebody_watches() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let run = server.run(&site).await;
    let agent = server.agent(&site, "one").await;
    let job = agent.take().await;
    let client = client(&server, &job);

    let unwatched = client.log(0, b"one\n").await.unwrap().interval_milliseconds.unwrap();
    assert_eq!(output(&server, &related(&run, "plan")).await, "one\n");
    let watched = client.log(4, b"two\n").await.unwrap().interval_milliseconds.unwrap();
    assert_eq!((watched, unwatched), (50, 1_000));
}

#[tokio::test]
async fn what_comes_after_a_pause_goes_up_at_once() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    server.run(&site).await;
    let job = server.agent(&site, "one").await.take().await;
    let client = client(&server, &job);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut spool = Spool::open(&log).unwrap();
    let (length, complete) = (spool.watch(), CancellationToken::new());
    let (acknowledged, mut known) = tokio::sync::mpsc::unbounded_channel();
    let sending = upload(&client, &log, length, &complete, LONG, |offset| {
        acknowledged.send(offset).unwrap();
    });
    let writing = async {
        assert_eq!(known.recv().await, Some(0), "it waits for the log to grow");
        spool.write(b"one\n").unwrap();
        assert_eq!(known.recv().await, Some(4));
    };
    tokio::select! {
        sent = sending => panic!("the log is not complete: {sent:?}"),
        written = tokio::time::timeout(Duration::from_secs(60), writing) => written.unwrap(),
    }
}

#[tokio::test]
async fn what_unpacks_to_more_than_a_piece_is_refused() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    server.run(&site).await;
    let job = server.agent(&site, "one").await.take().await;
    let client = client(&server, &job);
    let error = client.log(0, &vec![0; 20 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::PAYLOAD_TOO_LARGE), "{error}");
    assert_eq!(client.log(0, b"").await.unwrap().offset, 0);
}

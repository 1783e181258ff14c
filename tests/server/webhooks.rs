//! The webhooks of pools: what starts an agent for each queued task.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{Server, id};

/// A little HTTP server: its answers are given, and what it gets is kept.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    answers: Arc<Mutex<Vec<StatusCode>>>,
    calls: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// One that answers so, and with 200 from then on.
    pub(crate) async fn start(mut answers: Vec<StatusCode>) -> Self {
        answers.reverse();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(answers));
        let receiver = Self { url, answers, calls: Arc::default(), texts: Arc::default() };
        let routes = Router::new().fallback(answer).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        receiver
    }

    /// Waits until it has so many calls; those.
    pub(crate) async fn calls(&self, count: usize) -> Vec<(String, HeaderMap, Value)> {
        let wait = async {
            while self.calls.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("never called {count} times: {:?}", self.calls.lock()));
        self.calls.lock().unwrap().clone()
    }

    /// The bodies of its calls, as they came.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

async fn answer(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    receiver.texts.lock().unwrap().push(body.clone());
    let body = serde_json::from_str(&body).unwrap_or_default();
    receiver.calls.lock().unwrap().push((uri.to_string(), headers, body));
    let status = receiver.answers.lock().unwrap().pop().unwrap_or(StatusCode::OK);
    (status, [("location", format!("{}/elsewhere", receiver.url))]).into_response()
}

#[tokio::test]
async fn a_queued_task_is_announced_until_the_webhook_accepts_it() {
    let mut server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let refusals = vec![StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TEMPORARY_REDIRECT];
    let receiver = Receiver::start(refusals).await;
    let attributes = json!({
        "webhook-enabled": true,
        "webhook-url": format!("{}/start?key=path-secret", receiver.url),
        "webhook-headers": [
            { "name": "Authorization", "value": "Bearer hunter2", "sensitive": true },
        ],
    });
    let path = format!("/agent-pools/{}", site.pool);
    let body = json!({ "data": { "attributes": attributes } });
    let (status, answer) = server.call(Method::PATCH, &path, body).await;
    assert_eq!(status, reqwest::StatusCode::OK, "{answer}");

    let run = id(&server.run(&site).await);
    receiver.calls(1).await;
    server.wait_for_log("webhook failed").await;
    // What was not accepted yet outlives the server.
    server.crash_and_restart().await;
    let calls = receiver.calls(3).await;
    for (uri, headers, body) in &calls {
        assert_eq!(uri, "/start?key=path-secret", "a redirect was followed");
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["idempotency-key"], body["task_id"].as_str().unwrap());
        assert_eq!((&body["action"], &body["run_id"]), (&json!("plan"), &json!(run)));
        assert_eq!(body["workspace_id"], site.workspace);
        assert_eq!(body["environment_id"], site.environment);
        assert!(body["created_at"].as_str().unwrap().ends_with('Z'), "{body}");
    }
    server.wait_for_log("webhook called").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(receiver.calls(3).await.len(), 3, "it was accepted");
    let log = server.log();
    assert!(!log.contains("hunter2") && !log.contains("path-secret"), "{log}");

    let job = server.agent(&site, "started").await.claim().await;
    assert_eq!(job.task.id, calls[0].2["task_id"].as_str().unwrap());
}

/// Answers its first call with `head` and then `rest` again and again, with a pause before
/// each, until the server closes the connection; gives how many bytes were sent by then.
async fn answer_without_an_end(
    listener: TcpListener,
    head: &str,
    rest: &[u8],
    pause: Duration,
) -> usize {
    let (mut connection, _) = listener.accept().await.unwrap();
    let _ = connection.read(&mut [0; 8192]).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut sent = head.len();
    while connection.write_all(rest).await.is_ok() {
        sent += rest.len();
        tokio::time::sleep(pause).await;
    }
    sent
}

#[tokio::test]
async fn an_answer_without_an_end_is_neither_waited_for_nor_read() {
    const HUGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n";
    let server = Server::start().await;
    for (name, head, rest, pause, log) in [
        ("drips", "HTTP/1.1 200 OK\r\n", &b"x"[..], Duration::from_secs(1), "webhook failed"),
        ("huge", HUGE, &[b'x'; 65_536][..], Duration::ZERO, "webhook called"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let site = server.pool_and_workspace_named(name, name).await;
        let attributes = json!({ "webhook-enabled": true, "webhook-url": url });
        let body = json!({ "data": { "attributes": attributes } });
        let path = format!("/agent-pools/{}", site.pool);
        let (status, answer) = server.call(Method::PATCH, &path, body).await;
        assert_eq!(status, reqwest::StatusCode::OK, "{answer}");
        server.run(&site).await;
        let answered = answer_without_an_end(listener, head, rest, pause);
        let sent = tokio::time::timeout(Duration::from_secs(30), answered).await;
        let sent = sent.unwrap_or_else(|_| panic!("{name}: the server reads on"));
        // What the buffers of both ends take.
        assert!(sent < 20 << 20, "{name}: {sent}");
        server.wait_for_log(log).await;
    }
}

#[tokio::test]
async fn nothing_is_announced_of_a_task_with_an_agent_nor_to_a_webhook_that_is_off() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let receiver = Receiver::start(vec![StatusCode::INTERNAL_SERVER_ERROR; 100]).await;
    let path = format!("/agent-pools/{}", site.pool);
    let patch = async |attributes: Value| {
        let body = json!({ "data": { "attributes": attributes } });
        let (status, answer) = server.call(Method::PATCH, &path, body).await;
        assert_eq!(status, reqwest::StatusCode::OK, "{answer}");
    };
    patch(json!({ "webhook-url": receiver.url })).await;
    let run = id(&server.run(&site).await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(receiver.calls(0).await.len(), 0, "it is off");
    patch(json!({ "webhook-enabled": true })).await;
    receiver.calls(2).await;
    let job = server.agent(&site, "started").await.take().await;
    assert_eq!(job.task.run_id, run);
    let before = receiver.calls(2).await.len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(receiver.calls(2).await.len() <= before + 1, "an agent has the task");
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_holds_up_no_other() {
    let server = Server::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = Receiver::start(Vec::new()).await;
    let waits = server.pool_and_workspace().await;
    let other = server.pool_and_workspace_named("other", "other").await;
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    for (site, url) in [(&waits, &silent_url), (&other, &receiver.url)] {
        let attributes = json!({ "webhook-enabled": true, "webhook-url": url });
        let body = json!({ "data": { "attributes": attributes } });
        let path = format!("/agent-pools/{}", site.pool);
        let (status, answer) = server.call(Method::PATCH, &path, body).await;
        assert_eq!(status, reqwest::StatusCode::OK, "{answer}");
    }
    server.run(&waits).await;
    let accepted = tokio::time::timeout(Duration::from_secs(30), silent.accept()).await;
    let (waiting, _) = accepted.expect("the webhook is called").unwrap();
    server.run(&other).await;
    receiver.calls(1).await;
    // The first call is still waited for.
    let mut request = [0; 4096];
    while let Ok(length) = waiting.try_read(&mut request) {
        assert_ne!(length, 0, "the other one was called only when the first one had been given up");
    }
}

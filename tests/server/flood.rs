//! Clients that mean harm, all at once, beside agents that go on.

use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use protocol::{BASE, Finish, Heartbeat, Outcome, PlanSummary, Status, TaskState, TaskStatus};
use reqwest::{Body, Certificate, Client, Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::spawn;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Agent, Job, Server, resource};
use crate::lists::sign_in;

const MIB: u64 = 1024 * 1024;

/// The most memory that the server may have had.
const MOST_MEMORY: u64 = 150 * MIB;

/// How long a healthy client waits at most for an answer that the server does not hold.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long a connection lasts at most that never authenticates: for a place, for the
/// handshake and for the head of its request.
const LONGEST: Duration = Duration::from_secs(20 + 2 * 10 + 20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_takes_little_memory_and_agents_go_on() {
    // First: on a busy host that takes longer than a lease.
    let bomb = bomb();
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "busy").await;
    server.run(&site).await;
    let job = agent.take().await;
    let idle_memory = server.peak_memory();

    let mut flood: Vec<(&str, JoinHandle<()>)> = Vec::new();
    let began = Instant::now();
    for _ in 0..1000 {
        flood.push(("half-open", spawn(ends(connect(&server, "127.0.0.2")))));
    }
    for _ in 0..200 {
        flood.push(("slow head", spawn(slow_head(connect_tls(&server, "127.0.0.3")))));
    }
    let read = Arc::new(AtomicU64::new(0));
    for path in [
        "/api/agent/v1/register",
        "/api/agent/v1/poll",
        "/api/agent/v1/tasks/task-1/log?attempt=1&offset=0",
        "/api/agent/v1/tasks/task-1/state?attempt=1",
        "/api/agent/v1/nothing",
        "/api/iacp/v3/workspaces",
        "/api/iacp/v3/state-versions",
        "/api/iacp/v3/configuration-versions/cv-1/upload/cv-1.00",
        "/api/v2/workspaces/ws-1/state-versions",
        "/api/v2/state-uploads/sv-1/sv-1.00",
        "/api/v2/state-uploads/sv-1/sv-1.00/json",
        "/sign-in",
    ] {
        let url = format!("{}{path}", server.url);
        for token in [None, Some("at-1.00")] {
            let http = client(&server, "127.0.0.4");
            flood.push(("large body", spawn(large_body(http, url.clone(), token, read.clone()))));
        }
    }
    for _ in 0..100 {
        let connection = connect_tls(&server, "127.0.0.5");
        flood.push(("slow body", spawn(slow_body(connection, "/api/agent/v1/register"))));
        let connection = connect_tls(&server, "127.0.0.5");
        flood.push(("slow form", spawn(slow_body(connection, "/sign-in"))));
    }
    for _ in 0..150 {
        for path in ["/sign-in", "/oauth/token"] {
            let connection = connect_tls(&server, "127.0.0.9");
            flood.push(("tiny chunks", spawn(tiny_chunks(connection, path))));
        }
        flood.push(("large head", spawn(large_head(connect_tls(&server, "127.0.0.10")))));
    }
    for _ in 0..300 {
        let http = client(&server, "127.0.0.7");
        flood.push(("large form", spawn(large_form(http, format!("{}/sign-in", server.url)))));
    }
    for path in ["/events?topic=pools", "/api/v2/logs/plan-1/plan-1.00", "/runs/run-1/log"] {
        for _ in 0..50 {
            flood.push(("held", spawn(held(connect_tls(&server, "127.0.0.8"), path))));
        }
    }
    for _ in 0..32 {
        let http = client(&server, "127.0.0.6");
        flood.push(("gzip bomb", spawn(gzip_bomb(http, server.url.clone(), &job, &bomb))));
    }
    flood.push(("long list", spawn(long_list(server.agent(&site, "long list").await))));

    let mut slowest = Duration::ZERO;
    let mut rounds = 0;
    let healthy = server.agent(&site, "healthy").await;
    let poll = spawn(async move { healthy.poll(Vec::new()).await.0 });
    while !flood.is_empty() && began.elapsed() < LONGEST {
        slowest = slowest.max(healthy_round(&server, &agent, &job).await);
        rounds += 1;
        for (_, ended) in flood.extract_if(.., |(_, client)| client.is_finished()) {
            ended.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let left: Vec<&str> = flood.iter().map(|(name, _)| *name).collect();
    assert!(left.is_empty(), "never ended: {left:?}");
    assert_eq!(poll.await.unwrap(), StatusCode::OK);

    let peak = server.peak_memory();
    println!(
        "the flood ended after {:.1} s; memory: {} MiB idle, {} MiB at most; {} MiB of bodies were \
         read; {rounds} rounds of healthy calls, the slowest of {} ms",
        began.elapsed().as_secs_f32(),
        idle_memory / MIB,
        peak / MIB,
        read.load(Ordering::Relaxed) / MIB,
        slowest.as_millis(),
    );
    assert!(peak < MOST_MEMORY, "the server had {} MiB", peak / MIB);
}

/// A run leaves whatever it likes as its state, and reads that with its token.
#[tokio::test]
async fn what_a_run_leaves_as_its_state_takes_little_memory() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.take().await;
    plan.put("plan", "plan").await;
    let (status, said) = plan.finish(Outcome::Finished, Some(true), "").await;
    assert!(status.is_success(), "{said}");
    let run = server.get("/runs").await["data"][0]["id"].as_str().unwrap().to_owned();
    assert!(server.action(&run, "apply").await.is_success());
    let apply = agent.take().await;

    let long = "x".repeat(60 * 1024 * 1024);
    let state = |serial: u32, outputs: &str, rest: &str| {
        format!(
            r#"{{"version": 4, "serial": {serial}, "lineage": "l", "outputs": {outputs}{rest}}}"#
        )
    };
    let lineage = format!(r#"{{"version": 4, "serial": 1, "lineage": "{long}"}}"#);
    for (state, status) in [
        (lineage, StatusCode::UNPROCESSABLE_ENTITY),
        (state(2, "{}", &format!(r#", "{long}": 1"#)), StatusCode::UNPROCESSABLE_ENTITY),
        (
            state(3, "{}", &format!(r#", "resources": [{{"mode": "{long}"}}]"#)),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (state(4, "{}", &format!(r#", "resources": [{{"x": "{long}"}}]"#)), StatusCode::NO_CONTENT),
    ] {
        let (answered, said) = apply.put("state", &state).await;
        assert_eq!(answered, status, "{said}");
    }

    // Nearly as much as is read.
    let outputs =
        format!(r#"{{"o": {{"type": "string", "value": [{}0]}}}}"#, r#"{"a":0},"#.repeat(500_000));
    let (status, said) = apply.put("state", &state(5, &outputs, "")).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{said}");
    let version = format!("/workspaces/{}/current-state-version", site.workspace);
    let version = server.get(&version).await["data"]["id"].as_str().unwrap().to_owned();
    let mut reads = Vec::new();
    for path in [
        format!("/api/iacp/v3/workspaces/{}/outputs", site.workspace),
        format!("/api/v2/workspaces/{}/current-state-version-outputs", site.workspace),
        format!("/api/v2/state-versions/{version}/outputs"),
        format!("/api/v2/state-version-outputs/{version}.6f"),
    ] {
        for _ in 0..3 {
            let read = server.http.get(format!("{}{path}", server.url));
            let read = read.bearer_auth(&apply.run_token);
            reads.push(spawn(async move {
                let answer = read.send().await.unwrap();
                (answer.status(), answer.bytes().await.unwrap().len())
            }));
        }
    }
    for read in reads {
        let (status, length) = read.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(length > 4_000_000, "{length}");
    }
    let peak = server.peak_memory();
    assert!(peak < MOST_MEMORY, "the server had {} MiB", peak / MIB);
}

#[tokio::test]
async fn a_page_with_a_plan_of_many_values_takes_little_memory() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await["id"].as_str().unwrap().to_owned();
    let plan = agent.take().await;
    let json = format!(
        r#"{{"resource_changes": [{{"address": "x.y",
            "change": {{"actions": ["create"], "after": {{"o": [{}0]}}}}}}]}}"#,
        r#"{"a":0},"#.repeat(1_800_000)
    );
    assert_eq!(plan.put("plan-json", &json).await.0, StatusCode::NO_CONTENT);
    let summary = Some(PlanSummary { additions: 1, ..PlanSummary::default() });
    let finish = Finish { summary, ..plan.ended(Outcome::Finished, Some(true), "") };
    let (status, said) = plan.say_finish(&finish).await;
    assert!(status.is_success(), "{said}");
    let cookie = sign_in(&server).await;
    let page = server.http.get(format!("{}/runs/{run}", server.url)).header("cookie", cookie);
    let page = page.send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let peak = server.peak_memory();
    assert!(peak < MOST_MEMORY, "the server had {} MiB", peak / MIB);
}

/// Each reads the beginning of an answer, and nothing more.
#[tokio::test]
async fn a_run_that_reads_its_outputs_slowly_keeps_nobody_from_theirs() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.take().await;
    let outputs = json!({ "o": { "type": "string", "value": "x".repeat(4_000_000) } });
    let state = json!({ "version": 4, "serial": 1, "lineage": "l", "outputs": outputs });
    let state = json!({ "state": STANDARD.encode(state.to_string()) });
    server.create("/state-versions", state, &[("workspace", &site.workspace)]).await;
    let path = format!("/workspaces/{}/outputs", site.workspace);
    let head = format!(
        "GET /api/iacp/v3{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        plan.run_token
    );
    let mut slow = Vec::new();
    for number in 0..30 {
        let mut connection = connect_tls(&server, "127.0.0.2").await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        // As many as are read at once for one token; the others wait.
        if number < 2 {
            let mut beginning = [0; 16];
            let read =
                tokio::time::timeout(Duration::from_secs(60), connection.read(&mut beginning))
                    .await;
            assert_ne!(read.unwrap().unwrap(), 0);
        }
        slow.push(connection);
    }
    assert!(server.get(&path).await["data"][0]["value"].is_string());
    let peak = server.peak_memory();
    assert!(peak < MOST_MEMORY, "the server had {} MiB", peak / MIB);
}

#[tokio::test]
async fn a_body_that_drips_is_refused_with_408() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let drip = |piece: &'static str| {
        Body::wrap_stream(futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(piece), ()))
        }))
    };
    let poll = server.http.post(format!("{}{BASE}/poll", server.url)).bearer_auth(&agent.token);
    let poll = poll.header("content-type", "application/json").body(drip(" "));
    let create = server.http.post(format!("{}/api/iacp/v3/workspaces", server.url));
    let create = create.bearer_auth(&server.admin).body(drip(" "));
    let (poll, create) = tokio::join!(poll.send(), create.send());
    assert_eq!(poll.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(create.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn json_has_at_most_one_mebibyte_and_a_head_16_kibibytes() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let text = "x".repeat(1024 * 1024);
    let (status, _) = agent.call(Method::POST, "heartbeat", &text).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = server.call(Method::POST, "/workspaces", Value::String(text)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    for (length, status) in [
        (15 * 1024, StatusCode::OK),
        // The last piece of a head that is read is not cut.
        (40 * 1024, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let ping = server.http.get(format!("{}/healthz", server.url));
        let answer = ping.header("x-long", "x".repeat(length)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{length}");
    }
}

#[tokio::test]
async fn only_a_request_with_a_valid_token_keeps_its_connection() {
    let server = Server::start().await;
    let url = format!("{}/api/iacp/v3/environments", server.url);
    let answer = server.http.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["connection"], "close");
    let answer = server.http.get(format!("{}/healthz", server.url)).send().await.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    let answer = server.http.get(&url).bearer_auth(&server.admin).send().await.unwrap();
    assert!(!answer.headers().contains_key("connection"));
}

/// An upload without an end, with the token of another admin, who is dismissed meanwhile.
#[tokio::test]
async fn an_upload_ends_with_its_token() {
    let server = Server::start().await;
    let (path, named) = ("/access-tokens", json!({ "description": "of another admin" }));
    let (status, made) = server.call(Method::POST, path, resource(named, &[])).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let token = made["data"]["attributes"]["token"].as_str().unwrap();
    let mut connection = connect_tls(&server, "127.0.0.2").await.unwrap();
    let head = format!(
        "POST /api/iacp/v3/state-versions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
         content-type: application/vnd.api+json\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let (mut answer, mut upload) = tokio::io::split(connection);
    let sends = spawn(async move {
        while upload.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    // It has begun, and goes on longer than the server waits before it looks at the token.
    let mut said = Vec::new();
    let before = tokio::time::timeout(Duration::from_secs(5), answer.read_buf(&mut said)).await;
    assert!(before.is_err(), "{}", String::from_utf8_lossy(&said));
    let id = token.rsplit_once('.').unwrap().0;
    let (status, _) = server.call(Method::DELETE, &format!("{path}/{id}"), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let ended = async {
        let _ = answer.read_to_end(&mut said).await;
        sends.await
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ended").unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 401 ") && said.contains("was revoked"), "{said}");
}

#[tokio::test]
async fn a_connection_ends_with_the_first_request_whose_token_is_not_valid_any_more() {
    let server = Server::start().await;
    let mut connection = connect_tls(&server, "127.0.0.2").await.unwrap();
    let mut ask = async |token: &str| {
        let request = format!(
            "GET /api/iacp/v3/environments HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}") {
            assert_ne!(connection.read_buf(&mut said).await.unwrap(), 0);
        }
        String::from_utf8(said).unwrap()
    };
    let answered = ask(&server.admin).await;
    assert!(answered.starts_with("HTTP/1.1 200 ") && !answered.contains("connection: close"));
    let refused = ask("at-1.00").await;
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("connection: close"));
    assert_eq!(connection.read(&mut [0]).await.unwrap_or(0), 0);
}

/// Polls on as many connections as an agent may have, and on one more.
#[tokio::test]
async fn an_agent_cannot_take_the_connections_of_others() {
    let server = Server::start_with(&["--max-connections", "40"]).await;
    let site = server.pool_and_workspace().await;
    let greedy = server.agent(&site, "greedy").await;
    let polls: Vec<_> = (0..12)
        .map(|_| {
            let (http, token) = (client(&server, "127.0.0.2"), greedy.token.clone());
            let poll = http.post(format!("{}{BASE}/poll", server.url)).bearer_auth(token);
            spawn(poll.json(&json!({ "free_slots": 0, "tasks": [] })).send())
        })
        .collect();
    let refused = async {
        loop {
            for poll in &polls {
                if poll.is_finished() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), refused).await.expect("one is refused");
    server.wait_for_log("call of an agent refused").await;
    assert!(server.log().contains("too many connections with this token"), "{}", server.log());
    let other = server.agent(&site, "other").await;
    let (status, said) =
        other.call(Method::POST, "heartbeat", &json!({"status": "idle", "tasks": []})).await;
    assert!(status.is_success(), "{status} {said}");
    polls.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_refused_path_is_in_the_log_with_its_beginning_alone() {
    let server = Server::start().await;
    let path = format!("{BASE}/{}", "%0a".repeat(2000));
    let answer = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    server.wait_for_log("call of an agent refused").await;
    let log = server.log();
    let mut refused = log.lines().filter(|line| line.contains("call of an agent refused"));
    assert!(refused.all(|line| line.len() < 600), "{log}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_and_the_log_says_why() {
    let server = Server::start_with(&["--max-connections", "1"]).await;
    server.get("/environments").await;
    let mut second = connect(&server, "127.0.0.2").await;
    assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(server.log().contains("all 1 connections are taken"), "{}", server.log());
    server.get("/environments").await;
}

/// Calls of a registered agent, of its task and of the pool API, each on a connection of its
/// own and on held ones; the longest time that one took.
async fn healthy_round(server: &Server, agent: &Agent, job: &Job) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut timed = async |name: &str, call: &mut (dyn Future<Output = bool> + Unpin)| {
        let began = Instant::now();
        let done = tokio::time::timeout(HEALTHY, call).await;
        assert!(done.unwrap_or_else(|_| panic!("{name}: no answer")), "{name} failed");
        slowest = slowest.max(began.elapsed());
    };
    let beat = Heartbeat { status: Status::Busy, error_message: None, tasks: vec![job.status()] };
    timed(
        "heartbeat",
        &mut Box::pin(async {
            agent.call(Method::POST, "heartbeat", &beat).await.0 == StatusCode::NO_CONTENT
        }),
    )
    .await;
    timed(
        "pools",
        &mut Box::pin(async {
            let url = format!("{}/api/iacp/v3/agent-pools", server.url);
            let fresh = client(server, "127.0.0.1").get(url).bearer_auth(&server.admin);
            fresh.send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
        }),
    )
    .await;
    timed(
        "workspaces",
        &mut Box::pin(async { server.get("/workspaces").await["data"].is_array() }),
    )
    .await;
    slowest
}

fn client(server: &Server, from: &str) -> Client {
    let ca = Certificate::from_pem(&fs::read(server.data.join("tls/ca.pem")).unwrap()).unwrap();
    let from: IpAddr = from.parse().unwrap();
    Client::builder().tls_certs_only([ca]).no_proxy().local_address(from).build().unwrap()
}

fn connect(server: &Server, from: &str) -> impl Future<Output = TcpStream> + 'static {
    let to: SocketAddr = server.url.rsplit('/').next().unwrap().parse().unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        socket.connect(to).await.unwrap()
    }
}

/// A connection with TLS; none if the server ends it before that.
fn connect_tls(
    server: &Server,
    from: &str,
) -> impl Future<Output = Option<TlsStream<TcpStream>>> + 'static {
    let mut roots = RootCertStore::empty();
    let ca = fs::read(server.data.join("tls/ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tcp = connect(server, from);
    async move { TlsConnector::from(Arc::new(config)).connect(name, tcp.await).await.ok() }
}

/// Sends nothing until the server ends the connection.
async fn ends(connection: impl Future<Output = TcpStream>) {
    let _ = connection.await.read(&mut [0]).await;
}

async fn slow_head(connection: impl Future<Output = Option<TlsStream<TcpStream>>>) {
    let Some(mut connection) = connection.await else { return };
    let head = b"GET /healthz HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in head {
        if connection.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A body in chunks, without an end.
async fn slow_body(connection: impl Future<Output = Option<TlsStream<TcpStream>>>, path: &str) {
    let Some(mut connection) = connection.await else { return };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
         content-type: application/json\r\n\r\n"
    );
    let _ = connection.write_all(head.as_bytes()).await;
    while connection.write_all(b"1\r\n \r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A body of 8000 chunks of a byte each, without an end.
async fn tiny_chunks(connection: impl Future<Output = Option<TlsStream<TcpStream>>>, path: &str) {
    let Some(mut connection) = connection.await else { return };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n"
    );
    let _ = connection.write_all(head.as_bytes()).await;
    let _ = connection.write_all(&b"1\r\na\r\n".repeat(8000)).await;
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

/// Most of a head, and nothing more.
async fn large_head(connection: impl Future<Output = Option<TlsStream<TcpStream>>>) {
    let Some(mut connection) = connection.await else { return };
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {}", "x".repeat(60 * 1024));
    let _ = connection.write_all(head.as_bytes()).await;
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

async fn large_body(http: Client, url: String, token: Option<&'static str>, read: Arc<AtomicU64>) {
    let pieces = (0..100).map(move |_| {
        read.fetch_add(MIB, Ordering::Relaxed);
        Ok::<_, Infallible>(vec![b' '; 1024 * 1024])
    });
    let is_put = ["/tasks/", "/upload/", "/state-uploads/"].iter().any(|part| url.contains(part));
    let method = if is_put { "PUT" } else { "POST" };
    let request = http
        .request(method.parse().unwrap(), url)
        .header("content-type", "application/json")
        .body(Body::wrap_stream(futures_util::stream::iter(pieces)));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    // The answer may come too late for a client that is still sending.
    if let Ok(answer) = request.send().await {
        let status = answer.status();
        let refusals =
            [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND, StatusCode::PAYLOAD_TOO_LARGE];
        assert!(refusals.contains(&status), "{status}");
    }
}

/// Half a million fields.
async fn large_form(http: Client, url: String) {
    let form = http.post(url).header("content-type", "application/x-www-form-urlencoded");
    // The answer may come too late for a client that is still sending.
    if let Ok(answer) = form.body("a&".repeat(512 * 1024)).send().await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

/// Asks for an answer that the server holds for people who are signed in, and waits for its end.
async fn held(connection: impl Future<Output = Option<TlsStream<TcpStream>>>, path: &str) {
    let Some(mut connection) = connection.await else { return };
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let _ = connection.write_all(head.as_bytes()).await;
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

/// 1 GiB of zeros.
fn bomb() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..1024 {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.finish().unwrap()
}

fn gzip_bomb(
    http: Client,
    server: String,
    job: &Job,
    bomb: &[u8],
) -> impl Future<Output = ()> + 'static {
    let url = format!("{server}{BASE}/tasks/{}/log?attempt=1&offset=0", job.task.id);
    let put = http.put(url).bearer_auth(&job.agent.token).header("content-encoding", "gzip");
    let put = put.body(bomb.to_vec());
    async move {
        if let Ok(answer) = put.send().await {
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
    }
}

async fn long_list(agent: Agent) {
    let task = |number| TaskStatus {
        task_id: format!("task-{number}"),
        attempt: 1,
        state: TaskState::Running,
    };
    // Whether it is refused does not matter here.
    agent.poll((0..10_000).map(task).collect()).await;
}

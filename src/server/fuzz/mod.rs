//! Whatever agents and clients send, the server answers it: no panic, no 5xx, and what it
//! keeps is what was accepted.
//!
//! `corpus` has a valid message for each call. A failure that proptest finds becomes a
//! test of its own beside the code that it was in.

mod mutation;

use std::fs;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::in_process::{InProcess, Working};
use crate::logs::Key;
use mutation::{apply, change, damage, damaged};
use protocol::BASE;

/// The calls with a message.
const CALLS: [&str; 6] = ["register", "poll", "heartbeat", "claim", "start", "finish"];

/// Runs `check` with many values: as many as `PROPTEST_CASES` says.
fn check_all<S: Strategy, C: Future<Output = ()>>(
    strategy: S,
    check: impl Fn(Arc<Fixture>, S::Value) -> C,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = Arc::new(runtime.block_on(Fixture::new()));
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |value| {
            runtime.block_on(check(Arc::clone(&fixture), value));
            Ok(())
        })
        .unwrap();
}

/// A server, and an agent that works on a plan or an apply there.
struct Fixture {
    server: InProcess,
    working: Mutex<Arc<Working>>,
}

impl Fixture {
    async fn new() -> Self {
        let server = InProcess::new().await;
        let working = Mutex::new(Arc::new(server.working().await));
        Self { server, working }
    }

    fn working(&self) -> Arc<Working> {
        Arc::clone(&self.working.lock().unwrap())
    }

    /// Another task, after the last one has ended.
    async fn renew(&self) {
        let working = Arc::new(self.server.working().await);
        *self.working.lock().unwrap() = working;
    }

    /// Sends the body of a message; its status.
    async fn send(&self, call: &str, body: Vec<u8>) -> StatusCode {
        let working = self.working();
        let (path, token) = match call {
            "register" => (call.to_owned(), &self.server.pool_token),
            "poll" | "heartbeat" => (call.to_owned(), &working.session),
            "claim" => (format!("tasks/{}/{call}", working.task), &working.session),
            _ => (format!("tasks/{}/{call}", working.task), &working.task_token),
        };
        let headers = [("content-type", "application/json")];
        let path = format!("{BASE}/{path}");
        let (status, answer) = self.server.call(Method::POST, &path, token, &headers, body).await;
        assert!(status.as_u16() < 500, "{status} {answer:?}");
        assert!(answer.len() < 100_000, "an answer of {} bytes", answer.len());
        assert!(answer.is_empty() || serde_json::from_slice::<Value>(&answer).is_ok());
        status
    }

    fn message(&self, call: &str) -> Value {
        let text = String::from_utf8(corpus(&format!("{call}.json"))).unwrap();
        serde_json::from_str(&text.replace("TASK", &self.working().task)).unwrap()
    }
}

fn corpus(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    fs::read(folder.join(file)).unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

#[test]
fn changed_messages_are_answered() {
    let call = prop::sample::select(&CALLS[..]);
    let changes = prop::collection::vec(change(), 0..4);
    check_all((call, changes, damage()), async |fixture, (call, changes, damage)| {
        let mut message = fixture.message(call);
        changes.iter().for_each(|change| apply(change, &mut message));
        let body = damaged(message.to_string().into_bytes(), &damage);
        let status = fixture.send(call, body).await;
        if status.is_success() && ["register", "finish"].contains(&call) {
            fixture.renew().await;
        }
        // Nothing that was sent makes it refuse the next message.
        let beat = fixture.message("heartbeat").to_string().into_bytes();
        assert_eq!(fixture.send("heartbeat", beat).await, StatusCode::NO_CONTENT);
    });
}

/// A piece of a log, how it is sent, and how far its offset is from the log's end.
#[derive(Clone, Debug)]
struct Piece {
    content: Vec<u8>,
    is_packed: bool,
    damage: Vec<(Index, u8)>,
    offset: i64,
}

fn piece() -> impl Strategy<Value = Piece> {
    let content = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 0_usize..200_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let offset = prop_oneof![6 => Just(0), 2 => -300_i64..300, 1 => any::<i64>()];
    (content, any::<bool>(), damage(), offset).prop_map(|(content, is_packed, damage, offset)| {
        Piece { content, is_packed, damage, offset }
    })
}

#[test]
fn a_log_is_what_was_acknowledged() {
    check_all(prop::collection::vec(piece(), 1..8), async |fixture, pieces| {
        let working = fixture.working();
        let key = Key {
            workspace_id: working.workspace.clone(),
            task_id: working.task.clone(),
            attempt: 1,
        };
        let mut log = fs::read(fixture.server.app.logs.path(&key)).unwrap_or_default();
        for Piece { content, is_packed, damage, offset } in pieces {
            let end = i64::try_from(log.len()).unwrap();
            let offset = end.wrapping_add(offset);
            let path = format!("{BASE}/tasks/{}/log?attempt=1&offset={offset}", working.task);
            let packed = if is_packed { gzip(&content) } else { content.clone() };
            let is_whole = damage.is_empty();
            let body = if is_packed { damaged(packed, &damage) } else { packed };
            let headers: &[_] = if is_packed { &[("content-encoding", "gzip")] } else { &[] };
            let token = &working.task_token;
            let (status, answer) =
                fixture.server.call(Method::PUT, &path, token, headers, body).await;
            assert!(status.as_u16() < 500, "{status} {answer:?}");
            let is_at_the_end = offset == end;
            let now = fs::read(fixture.server.app.logs.path(&key)).unwrap_or_default();
            match status {
                StatusCode::OK => {
                    assert!(is_at_the_end);
                    assert_eq!(now[..log.len()], log[..], "what was there has changed");
                    if is_whole || !is_packed {
                        assert_eq!(now[log.len()..], content[..]);
                    }
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    assert_eq!(answer["offset"], now.len());
                }
                StatusCode::RANGE_NOT_SATISFIABLE => assert!(!is_at_the_end && now == log),
                _ => assert_eq!(now, log, "a refused piece was written: {status}"),
            }
            log = now;
        }
        if log.len() > 4 << 20 {
            fixture.send("finish", fixture.message("finish").to_string().into_bytes()).await;
            fixture.renew().await;
        }
    });
}

#[test]
fn an_uploaded_state_is_kept_as_it_came() {
    let changes = prop::collection::vec(change(), 0..3);
    let serial = prop::option::weighted(0.7, any::<u32>());
    let strategy = (changes, damage(), serial, any::<bool>(), change(), damage());
    check_all(
        strategy,
        async |fixture, (changes, in_state, serial, force, of_document, in_document)| {
            let server = &fixture.server;
            let mut state: Value = serde_json::from_slice(&corpus("state.json")).unwrap();
            if let Some(serial) = serial {
                state["serial"] = serial.into();
            }
            changes.iter().for_each(|change| apply(change, &mut state));
            let state = damaged(state.to_string().into_bytes(), &in_state);
            let attributes = json!({ "state": STANDARD.encode(&state), "force": force });
            let workspace = json!({ "data": { "type": "workspaces", "id": server.workspace } });
            let mut document = json!({
                "data": { "attributes": attributes, "relationships": { "workspace": workspace } }
            });
            // Most documents are good ones, so that their states are looked at.
            let is_whole = !in_document.is_empty() || in_state.is_empty();
            if !is_whole {
                apply(&of_document, &mut document);
            }
            let body = match is_whole {
                true => document.to_string().into_bytes(),
                false => damaged(document.to_string().into_bytes(), &in_document),
            };
            let path = "/api/iacp/v3/state-versions";
            let (status, answer) = server.call(Method::POST, path, &server.admin, &[], body).await;
            assert!(status.as_u16() < 500, "{status} {answer:?}");
            if status == StatusCode::CREATED && is_whole {
                let path = format!("/api/iacp/v3/workspaces/{}/outputs", server.workspace);
                let (status, answer) =
                    server.call(Method::GET, &path, &server.admin, &[], "").await;
                assert!(status.as_u16() < 500, "{status} {answer:?}");
                let path =
                    format!("/api/iacp/v3/workspaces/{}/current-state-version", server.workspace);
                let (_, current) = server.call(Method::GET, &path, &server.admin, &[], "").await;
                let current: Value = serde_json::from_slice(&current).unwrap();
                let id = current["data"]["id"].as_str().unwrap();
                let path = format!("/api/iacp/v3/state-versions/{id}/download");
                let (_, kept) = server.call(Method::GET, &path, &server.admin, &[], "").await;
                assert_eq!(kept, state);
            }
        },
    );
}

#[test]
fn an_uploaded_configuration_is_kept_as_it_came() {
    let archives = archives();
    let which = any::<Index>();
    check_all((which, damage(), damage()), async |fixture, (which, inside, outside)| {
        let server = &fixture.server;
        let tar = damaged(which.get(&archives).clone(), &inside);
        let body = Bytes::from(damaged(gzip(&tar), &outside));
        let (_, path) = server.configuration_version().await;
        let (status, answer) = server.call(Method::PUT, &path, "", &[], body.clone()).await;
        assert!(status.as_u16() < 500, "{status} {answer:?}");
        // The same again is no conflict, and what was refused is refused again.
        let (again, _) = server.call(Method::PUT, &path, "", &[], body).await;
        assert_eq!(status, again);
        if status == StatusCode::OK {
            let (other, _) = server.call(Method::PUT, &path, "", &[], gzip(b"other")).await;
            assert_eq!(other, StatusCode::CONFLICT);
        }
    });
}

/// The unpacked archives that other programs made.
fn archives() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configuration/tests/fixtures");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let unpacked = |file| {
        let mut content = Vec::new();
        let packed = MultiGzDecoder::new(fs::File::open(file).unwrap());
        // The content of the sparse ones adds nothing.
        packed.take(64 << 10).read_to_end(&mut content).unwrap();
        content
    };
    files.into_iter().map(unpacked).collect()
}

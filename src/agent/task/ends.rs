//! Tests of a task's very end, with a server and an engine that answer as told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{SetOnce, watch};

use super::ahead::Ahead;
use super::container_maker::ContainerMaker;
use super::follow::{OutputFrom, follow};
use super::tests::{claimed, here};
use super::{End, Job, TaskChannels, failed, run_task};
use crate::client::Client;
use crate::connection::Keeper;
use crate::context::{Context, RunUser};
use crate::engine::Engine;
use crate::firewall::Firewall;
use crate::https::Https;
use crate::journal::{Container, Entry, Journal};
use crate::log::Filter;
use crate::log::end_mark::EndMark;
use crate::log::limit::Limiter;
use crate::log::spool::Spool;
use crate::progress;
use crate::providers::Providers;
use crate::pulled_images::Images;
use crate::seen_images::SeenImages;
use crate::slots::Slots;
use crate::sum;
use crate::telemetry::Telemetry;
use config::Settings;
use protocol::redact::Redactor;
use protocol::{Finish, Intervals, Kind, Outcome, Registered, Secret, TaskState};

/// What was asked, as `METHOD PATH`; with the query where it says which file.
pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// What the container has as its state.
pub(super) const STATE: &str = r#"{"version": 4}"#;

#[tokio::test]
async fn an_outcome_that_may_have_been_heard_is_said_again_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (of_server, of_engine) = (Asked::default(), Asked::default());
    let server = |asked: &str| match asked.ends_with("/finish") {
        true => StatusCode::OK.into_response(),
        false => refusal(StatusCode::CONFLICT),
    };
    let context = context(folder.path(), fake(&of_server, server), fake(&of_engine, engine)).await;
    let mut entry = applied(&context);
    let finish = Finish {
        attempt: 1,
        outcome: Outcome::Finished,
        message: None,
        exit_code: Some(0),
        oom_killed: false,
        has_changes: None,
        log_bytes: 0,
        log_sha256: String::new(),
        unsaved_state: None,
        image: None,
        summary: None,
    };
    entry.note_finish(finish).unwrap();
    drop(entry);

    // The agent is started again.
    let entry = context.journal.entries().unwrap().remove(0);
    run_task_alone(&context, entry).await;

    assert_eq!(*of_server.lock().unwrap(), ["POST /api/agent/v1/tasks/task-1/finish"]);
    let of_engine = of_engine.lock().unwrap();
    assert!(of_engine.iter().any(|asked| asked.starts_with("DELETE ")), "{of_engine:?}");
    assert!(context.journal.entries().unwrap().is_empty());
    assert!(!folder.path().join("lost").exists(), "no state was lost");
}

#[tokio::test]
async fn a_claimed_task_without_its_firewall_is_given_back_and_never_started() {
    let folder = tempfile::tempdir().unwrap();
    let (of_server, of_engine) = (Asked::default(), Asked::default());
    let server = |asked: &str| match asked.ends_with("/configuration") {
        true => gzip(&tar_of("main.tf", "")).into_response(),
        false => StatusCode::NO_CONTENT.into_response(),
    };
    let engine = |asked: &str| match asked.split_once("/containers/create") {
        Some(_) => json(r#"{"Id": "c1", "Warnings": []}"#),
        None if asked.ends_with("/networks/create") => json(r#"{"Id": "n1", "Warning": ""}"#),
        None if asked.starts_with("PUT ") => json("{}"),
        None => engine(asked),
    };
    let mut context =
        context(folder.path(), fake(&of_server, server), fake(&of_engine, engine)).await;
    let all = Arc::get_mut(&mut context).unwrap();
    // Nothing listens there.
    all.config.firewall = config::Firewall::Service;
    all.firewall = Firewall::new(&all.config, &[]);
    let ids = Registered {
        agent_id: "agent-1".to_owned(),
        pool_id: "apool-1".to_owned(),
        session_token: Secret::new("s"),
        intervals: Intervals::default(),
    };
    all.registered.set(ids).unwrap();
    let mut claimed = claimed();
    claimed.task.image = Some("run:1".to_owned());
    let entry = context.journal.begin(claimed, 0).unwrap();
    let ran = tokio::time::timeout(Duration::from_secs(60), run_task_alone(&context, entry));
    ran.await.expect("it is not tried again");

    let of_engine = of_engine.lock().unwrap();
    let made = of_engine.iter().any(|asked| asked.ends_with("/containers/create"));
    assert!(made && !of_engine.iter().any(|asked| asked.ends_with("/start")), "{of_engine:?}");
    assert!(of_engine.iter().any(|asked| asked.starts_with("DELETE ")), "{of_engine:?}");
    let of_server = of_server.lock().unwrap();
    let is_end = |asked: &String| asked.ends_with("/start") || asked.ends_with("/finish");
    assert!(!of_server.iter().any(is_end), "{of_server:?}");
    let given_back = of_server.iter().filter(|asked| asked.ends_with("/give-back"));
    assert_eq!(given_back.count(), 1, "{of_server:?}");
    assert!(context.journal.entries().unwrap().is_empty());
}

#[tokio::test]
async fn a_state_that_comes_too_late_is_kept_here() {
    let folder = tempfile::tempdir().unwrap();
    let of_engine = Asked::default();
    let over = r#"{"error": "it is over", "code": "attempt_over"}"#;
    let server = choosy(&Finishes::default(), move |_| Some((StatusCode::CONFLICT, over)));
    let context = context(folder.path(), server, fake(&of_engine, engine)).await;
    run_task_alone(&context, applied(&context)).await;

    assert_eq!(fs::read_to_string(folder.path().join(KEPT)).unwrap(), STATE);
    assert!(context.journal.entries().unwrap().is_empty(), "and the task is forgotten");
    let of_engine = of_engine.lock().unwrap();
    assert!(of_engine.iter().any(|asked| asked.starts_with("DELETE ")), "{of_engine:?}");
}

#[tokio::test]
async fn a_refused_state_never_loses_the_task() {
    let conflict = r#"{"error": "why", "code": "state_refused"}"#;
    for (status, problem) in [
        (StatusCode::CONFLICT, conflict),
        // From a server without codes, or with newer ones.
        (StatusCode::CONFLICT, r#"{"error": "why"}"#),
        (StatusCode::UNPROCESSABLE_ENTITY, r#"{"error": "why", "code": "newer"}"#),
        (StatusCode::PAYLOAD_TOO_LARGE, r#"{"error": "why", "code": "too_large"}"#),
        (StatusCode::BAD_REQUEST, r#"{"error": "why"}"#),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let finishes = Finishes::default();
        let server = choosy(&finishes, move |_| Some((status, problem)));
        let context = context(folder.path(), server, fake(&Asked::default(), engine)).await;
        run_task_alone(&context, applied(&context)).await;

        let kept = folder.path().join(KEPT);
        assert_eq!(fs::read_to_string(&kept).unwrap(), STATE, "{status} {problem}");
        let finishes = finishes.lock().unwrap();
        let [finish] = &finishes[..] else { panic!("{status} {problem}: {finishes:?}") };
        assert_eq!(finish.outcome, Outcome::Errored);
        let expected = format!(
            "cannot save the state of {} bytes: why\nIt is kept in {} on the agent's host.",
            STATE.len(),
            kept.display()
        );
        assert_eq!(finish.unsaved_state.as_ref(), Some(&expected));
        assert_eq!(finish.message, Some(format!("Error: {expected}")));
        assert!(context.journal.entries().unwrap().is_empty(), "and the task is forgotten");
    }
}

#[tokio::test]
async fn a_refused_state_is_not_sent_again_while_it_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked::default();
    let server = fake(&asked, |_| refusal(StatusCode::PAYLOAD_TOO_LARGE));
    let context = context(folder.path(), server, fake(&Asked::default(), engine)).await;
    context.set_intervals(Intervals { state_milliseconds: 5, ..Intervals::default() });
    let entry = applied(&context);
    let client = context.client.of_task(&entry.record().claimed);
    let job = Job {
        progress: context.progress.begin(&entry.record().claimed.task, client.clone(), None),
        slot: context.slots.take_again(0),
        channels: channels(),
        context: Arc::clone(&context),
        entry,
        client,
        left: Mutex::default(),
        model: None,
        is_over_disk: AtomicBool::default(),
    };
    let saving = job.save_state_as_it_changes("c1");
    assert!(tokio::time::timeout(Duration::from_millis(500), saving).await.is_err());
    assert_eq!(*asked.lock().unwrap(), ["PUT /api/agent/v1/tasks/task-1/state"]);
}

#[tokio::test]
async fn a_refused_file_of_a_plan_fails_it() {
    for (refused, message) in [
        ("LOCK", "Error: cannot save the lock file of 4 bytes: why"),
        ("PLAN", "Error: cannot save the plan of 4 bytes: why"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let finishes = Finishes::default();
        let server = choosy(&finishes, move |content| {
            (content == refused.as_bytes()).then_some((StatusCode::CONFLICT, r#"{"error": "why"}"#))
        });
        let engine = fake(&Asked::default(), |asked| match asked {
            asked if asked.ends_with("status") => packed("init 0\nplan 2\n").into_response(),
            asked if asked.ends_with("run%2Fplan") => packed("PLAN").into_response(),
            asked if asked.ends_with("lock.hcl") => packed("LOCK").into_response(),
            asked => engine(asked),
        });
        let context = context(folder.path(), server, engine).await;
        let mut entry = context.journal.begin(claimed(), 0).unwrap();
        entry.note_container(Container { id: "c1".into(), ..Container::default() }).unwrap();
        run_task_alone(&context, entry).await;

        let finishes = finishes.lock().unwrap();
        let [finish] = &finishes[..] else { panic!("{message}: {finishes:?}") };
        assert_eq!((finish.outcome, finish.message.as_deref()), (Outcome::Errored, Some(message)));
        assert_eq!(finish.unsaved_state, None);
        assert!(!folder.path().join("lost").exists(), "only states are kept");
    }
}

#[tokio::test]
async fn what_a_plan_left_is_fetched_by_one_call() {
    let folder = tempfile::tempdir().unwrap();
    let (of_engine, finishes) = (Asked::default(), Finishes::default());
    let engine = fake(&of_engine, |asked| match asked {
        asked if asked.ends_with("path=%2Fscalr%2Frun") => {
            let files = [("run/plan", "PLAN"), ("run/status", "init 0\nplan 2\n")];
            let mut archive = tar::Builder::new(Vec::new());
            for (path, content) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
            archive.into_inner().unwrap().into_response()
        }
        asked => engine(asked),
    });
    let context = context(folder.path(), choosy(&finishes, |_| None), engine).await;
    let mut entry = context.journal.begin(claimed(), 0).unwrap();
    let container = Container { id: "c1".into(), ..Container::default() };
    entry.note_container(container).unwrap();
    run_task_alone(&context, entry).await;

    let finish = finishes.lock().unwrap().remove(0);
    assert_eq!((finish.outcome, finish.has_changes), (Outcome::Finished, Some(true)));
    let of_engine = of_engine.lock().unwrap();
    assert!(of_engine.iter().any(|asked| asked.ends_with("lock.hcl")), "{of_engine:?}");
    for name in ["status", "plan", "plan.json", "times"] {
        let path = format!("path=%2Fscalr%2Frun%2F{name}");
        assert!(!of_engine.iter().any(|asked| asked.ends_with(&path)), "{of_engine:?}");
    }
}

#[tokio::test]
async fn an_image_is_looked_into_once() {
    let (folder, of_engine) = (tempfile::tempdir().unwrap(), Asked::default());
    let engine = fake(&of_engine, |asked| match asked.ends_with("passwd") {
        true => packed("root:x:0:0::/:/bin/sh\n").into_response(),
        false => engine(asked),
    });
    let context = context(folder.path(), Router::new(), engine).await;
    let job = job(&context, applied(&context));
    let looks =
        || of_engine.lock().unwrap().iter().filter(|asked| asked.contains("/archive")).count();
    let maker = ContainerMaker { context: &job.context, scratch: folder.path() };
    let seen = maker.seen_image("c1").await.unwrap();
    assert_eq!(seen.passwd.as_deref(), Some(&b"root:x:0:0::/:/bin/sh\n"[..]));
    assert_eq!((seen.group.as_deref(), seen.has_open_tmp, looks()), (None, false, 3));
    assert_eq!(maker.seen_image("c1").await.unwrap(), seen);
    assert_eq!(looks(), 3);
}

#[tokio::test]
async fn of_two_states_the_newer_one_counts() {
    let newer = r#"{"version": 4, "serial": 2}"#;
    for (refused, is_saved) in [(STATE, true), (newer, false)] {
        let folder = tempfile::tempdir().unwrap();
        let finishes = Finishes::default();
        let server = choosy(&finishes, move |content| {
            let problem = r#"{"error": "why", "code": "state_refused"}"#;
            (content == refused.as_bytes()).then_some((StatusCode::CONFLICT, problem))
        });
        let engine = fake(&Asked::default(), |asked| match asked.contains("errored.tfstate") {
            true => packed(r#"{"version": 4, "serial": 2}"#).into_response(),
            false => engine(asked),
        });
        let context = context(folder.path(), server, engine).await;
        run_task_alone(&context, applied(&context)).await;
        let finish = finishes.lock().unwrap().remove(0);
        assert_eq!(finish.unsaved_state.is_none(), is_saved, "{finish:?}");
        let kept = folder.path().join("lost/task-1-1/errored.tfstate");
        assert_eq!(fs::read_to_string(kept).is_ok_and(|kept| kept == newer), !is_saved);
    }
}

#[tokio::test]
async fn an_apply_whose_container_is_gone_tells_that_its_state_may_not_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let finishes = Finishes::default();
    let engine = fake(&Asked::default(), |asked| match asked.contains("/containers/c1/") {
        true => {
            (StatusCode::NOT_FOUND, json(r#"{"message": "no such container"}"#)).into_response()
        }
        false => engine(asked),
    });
    let context = context(folder.path(), choosy(&finishes, |_| None), engine).await;
    run_task_alone(&context, applied(&context)).await;
    let finish = finishes.lock().unwrap().remove(0);
    assert_eq!(finish.outcome, Outcome::Errored);
    assert!(finish.unsaved_state.unwrap().contains("The container of the apply was removed"));
}

#[tokio::test]
async fn an_apply_that_leaves_the_state_as_it_was_fails_and_its_states_are_kept() {
    const ELSEWHERE: &str = r#"{"version": 4, "serial": 1, "lineage": "5b1c"}"#;
    for (before, is_finished) in [(Some(STATE), false), (Some("other"), true), (None, true)] {
        let folder = tempfile::tempdir().unwrap();
        let engine = fake(&Asked::default(), |asked| match asked {
            _ if asked.ends_with("path=%2Ftmp") => packed(ELSEWHERE).into_response(),
            _ if asked.ends_with("/changes") => json("null"),
            _ => engine(asked),
        });
        let context = context(folder.path(), Router::new(), engine).await;
        let state_sha256 = before.map(|before| sum::sha256_of(before.as_bytes()).unwrap());
        let container = Container { id: "c1".into(), state_sha256, ..Container::default() };
        let mut end = End { outcome: Outcome::Finished, message: None, ..failed(String::new()) };
        let job = job(&context, applied(&context));
        job.check_state_moved(&container, &mut end).await.unwrap();

        assert_eq!(end.outcome == Outcome::Finished, is_finished, "{end:?}");
        assert_eq!(end.unsaved_state.is_none(), is_finished, "{end:?}");
        let kept = folder.path().join("lost/task-1-1/file");
        assert_eq!(kept.exists(), !is_finished);
        if !is_finished {
            assert_eq!(fs::read_to_string(kept).unwrap(), ELSEWHERE);
            let message = end.message.unwrap();
            assert!(message.contains("state is as it was before"), "{message}");
            assert!(message.contains("lost/task-1-1 on the agent's host: /file."), "{message}");
        }
    }
}

#[tokio::test]
async fn what_a_finished_plan_made_is_handed_over_and_an_old_server_is_no_failure() {
    let old =
        "Not handed over to the apply: what the plan made, because the server is too old for that.";
    let large = "Not handed over to the apply: ";
    for (status, note) in [
        (StatusCode::NO_CONTENT, None),
        (StatusCode::NOT_FOUND, Some(old)),
        (StatusCode::PAYLOAD_TOO_LARGE, Some(large)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let put = Arc::new(Mutex::new(Vec::new()));
        let of_server = Arc::clone(&put);
        let server = Router::new().fallback(async move |request: Request| {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            if path.ends_with("/configuration") {
                return gzip(&tar_of("main.tf", "before")).into_response();
            }
            assert!(path.ends_with("/plan-files"), "{path}");
            if method == Method::GET && status != StatusCode::NOT_FOUND {
                return StatusCode::NO_CONTENT.into_response();
            }
            of_server.lock().unwrap().extend_from_slice(&body);
            if status.is_success() { status.into_response() } else { refusal(status) }
        });
        let engine = Router::new().fallback(async move |request: Request| {
            let uri = request.uri();
            let asked = format!("GET {}?{}", uri.path(), uri.query().unwrap_or_default());
            match uri.path().ends_with("/archive") {
                true => tar_of("work/fn.zip", "made").into_response(),
                false => self::engine(&asked),
            }
        });
        let context = context(folder.path(), server, engine).await;
        let mut entry = context.journal.begin(claimed(), 0).unwrap();
        entry.note_container(Container { id: "c1".into(), ..Container::default() }).unwrap();
        let job = job(&context, entry);
        let errored = failed(String::new());
        assert_eq!(job.hand_over_plan_files(&errored).await.unwrap().note, None);
        let finished = End { outcome: Outcome::Finished, ..failed(String::new()) };
        let said = job.hand_over_plan_files(&finished).await.unwrap().note;
        match note {
            None => assert_eq!(said, None),
            Some(note) => assert!(said.as_ref().unwrap().starts_with(note), "{said:?}"),
        }
        let put = std::mem::take(&mut *put.lock().unwrap());
        assert_eq!(put.is_empty(), status == StatusCode::NOT_FOUND);
        if put.is_empty() {
            continue;
        }
        let mut files = configuration::Reader::new(put.as_slice(), None).unwrap();
        assert_eq!(files.next().unwrap().unwrap().path, Path::new("fn.zip"));
        assert_eq!(files.next().unwrap(), None);
    }
}

#[tokio::test]
async fn a_plan_is_counted_and_its_json_leaves_the_host_masked() {
    const PLAN: &str = include_str!("recorded/plan-1.11.4.json");
    const OLD: StatusCode = StatusCode::NOT_FOUND;
    for (json, status, additions, note, is_sent) in [
        (PLAN, StatusCode::NO_CONTENT, Some(1), None, true),
        (PLAN, OLD, Some(1), None, false),
        (PLAN, StatusCode::PAYLOAD_TOO_LARGE, Some(1), Some("only its numbers"), true),
        ("", StatusCode::NO_CONTENT, None, None, false),
        ("{", StatusCode::NO_CONTENT, None, Some("The plan is not counted"), false),
        (r#"{"format_version": "1.2"}"#, StatusCode::NO_CONTENT, Some(0), None, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let put = Arc::new(Mutex::new(Vec::new()));
        let of_server = Arc::clone(&put);
        let server = Router::new().fallback(async move |request: Request| {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            assert!(path.ends_with("/plan-json"), "{path}");
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            if method == Method::GET && status != OLD {
                return StatusCode::NO_CONTENT.into_response();
            }
            of_server.lock().unwrap().extend_from_slice(&body);
            if status.is_success() { status.into_response() } else { refusal(status) }
        });
        let engine = Router::new().fallback(async move |request: Request| {
            let uri = request.uri();
            let asked = format!("GET {}?{}", uri.path(), uri.query().unwrap_or_default());
            match uri.path().ends_with("/archive") {
                true => packed(json).into_response(),
                false => self::engine(&asked),
            }
        });
        let context = context(folder.path(), server, engine).await;
        let mut claimed = claimed();
        claimed.task.variables = vec![protocol::Variable {
            key: "size".to_owned(),
            value: Secret::new("terraform_data"),
            category: protocol::Category::Terraform,
            hcl: false,
            sensitive: true,
        }];
        let mut entry = context.journal.begin(claimed, 0).unwrap();
        let container = Container { id: "c1".into(), ..Container::default() };
        entry.note_container(container).unwrap();
        let job = job(&context, entry);
        let finished = End { outcome: Outcome::Finished, ..failed(String::new()) };
        let said = job.hand_over_plan_json(&finished).await.unwrap();
        assert_eq!(said.summary.map(|summary| summary.additions), additions, "{status}");
        match note {
            None => assert_eq!(said.note, None),
            Some(note) => assert!(said.note.as_ref().unwrap().contains(note), "{:?}", said.note),
        }
        let put = String::from_utf8(std::mem::take(&mut *put.lock().unwrap())).unwrap();
        assert_eq!(!put.is_empty(), is_sent);
        if json == PLAN && is_sent {
            let plan: serde_json::Value = serde_json::from_str(&put).unwrap();
            assert_eq!(plan["variables"]["size"]["value"], "(sensitive value)");
            assert!(!put.contains("hunter") && !put.contains("terraform_data"), "{plan:#}");
        }
    }
}

#[tokio::test]
async fn a_search_for_states_that_fails_is_an_error_and_claims_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = fake(&Asked::default(), |asked| match asked.ends_with("/changes") {
        true => refusal(StatusCode::INTERNAL_SERVER_ERROR),
        false => engine(asked),
    });
    let context = context(folder.path(), Router::new(), engine).await;
    let state_sha256 = Some(sum::sha256_of(STATE.as_bytes()).unwrap());
    let container = Container { id: "c1".into(), state_sha256, ..Container::default() };
    let mut end = End { outcome: Outcome::Finished, message: None, ..failed(String::new()) };
    let job = job(&context, applied(&context));
    // The task is tried again then, with its container still there.
    assert!(job.check_state_moved(&container, &mut end).await.is_err());
    assert_eq!((end.message, end.unsaved_state), (None, None));
}

#[tokio::test]
async fn what_the_engine_does_not_give_out_is_read_from_its_file() {
    for (begun, whole, expected) in [
        ("one\n", "one\ntwo\n", "one\ntwo\n"),
        ("", "one\n", "one\n"),
        ("one\n", "one\n", "one\n"),
        // The engine's file is not what was given out.
        ("one\n", "only\ntwo\n", "one\n"),
        // It is not read when the container's last word has come.
        ("one\nend of output of c1\n", "one\nend of output of c1\ntwo\n", "one\n"),
        ("one\nend of out", "one\nend of output of c1\n", "one\n"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let engine = Router::new().fallback(async move |request: Request| {
            let uri = request.uri();
            let asked = format!("GET {}?{}", uri.path(), uri.query().unwrap_or_default());
            match (uri.path().ends_with("/logs"), asked.contains("follow=true")) {
                (true, true) => framed(begun).into_response(),
                (true, false) => framed(whole).into_response(),
                _ => self::engine(&asked),
            }
        });
        let context = context(folder.path(), Router::new(), engine).await;
        let container = Container { id: "c1".into(), ..Container::default() };
        let mut spool = Spool::open(&folder.path().join("log")).unwrap();
        let filter = || Filter::new(EndMark::new("c1"), Redactor::new([]), Limiter::new(1024));
        let output = super::disk::Output::default();
        let progress = progress_of(&context);
        follow(
            &context.engine,
            &container,
            &mut spool,
            filter,
            OutputFrom::File,
            &output,
            &progress,
        )
        .await
        .unwrap();
        assert_eq!(fs::read_to_string(spool.path()).unwrap(), expected);
    }
}

#[tokio::test]
async fn an_output_that_is_held_open_ends_soon_after_the_container() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Router::new().fallback(async move |request: Request| {
        let uri = request.uri();
        let asked = format!("GET {}?{}", uri.path(), uri.query().unwrap_or_default());
        match (uri.path().ends_with("/logs"), asked.contains("follow=true")) {
            (true, true) => {
                let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(framed("one\n"))]);
                let held = futures_util::stream::pending();
                axum::body::Body::from_stream(begun.chain(held)).into_response()
            }
            (true, false) => framed("one\ntwo\nend of output of c1\n").into_response(),
            _ => self::engine(&asked),
        }
    });
    let context = context(folder.path(), Router::new(), engine).await;
    let container = Container { id: "c1".into(), ..Container::default() };
    let mut spool = Spool::open(&folder.path().join("log")).unwrap();
    let filter = || Filter::new(EndMark::new("c1"), Redactor::new([]), Limiter::new(1024));
    let output = super::disk::Output::default();
    let progress = progress_of(&context);
    let following = follow(
        &context.engine,
        &container,
        &mut spool,
        filter,
        OutputFrom::File,
        &output,
        &progress,
    );
    tokio::time::timeout(Duration::from_secs(20), following).await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(spool.path()).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn a_run_is_interrupted_at_its_time_limit_which_a_restart_does_not_move() {
    for (started_ago, replay, waits) in [
        (Some(0), true, true),
        (Some(30), true, false),
        (Some(30), false, true),
        // Noted by an older agent.
        (None, true, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let context = context(folder.path(), Router::new(), fake(&asked, engine)).await;
        let mut claimed = claimed();
        claimed.task.timeout_seconds = Some(20);
        let job = job(&context, context.journal.begin(claimed, 0).unwrap());
        let started_at = started_ago.map(|ago| super::time_limit::since_1970() - ago);
        let container = Container { id: "c1".into(), started_at, ..Container::default() };
        let waiting = job.out_of_time(&container, replay);
        let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err();
        assert_eq!(waited, waits, "{started_ago:?} {replay}");
        let has_notice = asked.lock().unwrap().iter().any(|asked| asked.starts_with("PUT "));
        assert_eq!(has_notice, !waits, "the run's log says why");
    }
}

/// What a container wrote, in the form in which the engine gives it out.
pub(super) fn framed(text: &str) -> Vec<u8> {
    let frame = |line: &str| {
        let length = u32::try_from(line.len()).unwrap().to_be_bytes();
        [&[1, 0, 0, 0], &length[..], line.as_bytes()].concat()
    };
    text.split_inclusive('\n').flat_map(frame).collect()
}

/// Where a state is kept that the server does not take.
pub(super) const KEPT: &str = "lost/task-1-1/terraform.tfstate";

/// An apply whose container has ended.
pub(super) fn applied(context: &Context) -> Entry {
    let mut claimed = claimed();
    claimed.task.kind = Kind::Apply;
    let mut entry = context.journal.begin(claimed, 0).unwrap();
    entry.note_container(Container { id: "c1".into(), ..Container::default() }).unwrap();
    entry
}

fn progress_of(context: &Arc<Context>) -> progress::Progress {
    let claimed = claimed();
    context.progress.begin(&claimed.task, context.client.of_task(&claimed), None)
}

pub(super) fn job(context: &Arc<Context>, entry: Entry) -> Job {
    let task = entry.record().claimed.task.clone();
    let client = context.client.of_task(&entry.record().claimed);
    Job {
        progress: context.progress.begin(&task, client.clone(), None),
        slot: context.slots.take_again(0),
        channels: channels(),
        context: Arc::clone(context),
        entry,
        client,
        left: Mutex::default(),
        model: None,
        is_over_disk: AtomicBool::default(),
    }
}

pub(super) async fn run_task_alone(context: &Arc<Context>, entry: Entry) {
    run_task(Arc::clone(context), entry, context.slots.take_again(0), channels()).await;
}

/// Nobody listens, and nobody has any orders.
pub(super) fn channels() -> TaskChannels {
    let (state, _) = watch::channel(TaskState::Claimed);
    let (_, orders) = watch::channel(None);
    TaskChannels { state, orders, offered: None }
}

/// An engine with one container, which has ended and left a state.
pub(super) fn engine(asked: &str) -> Response {
    let path = asked.split_once('?').map_or(asked, |(path, _)| path);
    if path.ends_with("/archive") {
        return if asked.contains("terraform.tfstate") {
            packed(STATE).into_response()
        } else {
            (StatusCode::NOT_FOUND, json(r#"{"message": "no such file"}"#)).into_response()
        };
    }
    json(match path {
        path if path.ends_with("/containers/json") => {
            r#"[{"Id": "c1", "Labels": {"scalr.task": "task-1", "scalr.attempt": "1"}}]"#
        }
        path if path.ends_with("/containers/c1/json") => {
            r#"{"State": {"Status": "exited", "Running": false, "ExitCode": 1},
                "Image": "sha256:1"}"#
        }
        path if path.ends_with("/logs") => "",
        path if path.ends_with("/version") => r#"{"ApiVersion": "1.41"}"#,
        _ => "{}",
    })
}

/// A file as the engine gives it out.
pub(super) fn packed(content: &str) -> Vec<u8> {
    tar_of("file", content)
}

pub(super) fn tar_of(name: &str, content: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// An agent of this server and this engine.
pub(super) async fn context(folder: &Path, server: Router, engine: Router) -> Arc<Context> {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", tcp.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(tcp, server).await });
    let socket = folder.join("docker.sock");
    let unix = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { axum::serve(unix, engine).await });

    let settings = format!(
        "url = \"{url}\"\ntoken = \"t\"\ndata_dir = \"{}\"\nengine = \"unix://{}\"\n\
         firewall = \"none\"\nimage = \"run:1\"\ngrace_shutdown_timeout = 1\ndisk = 64\n",
        folder.display(),
        socket.display()
    );
    std::fs::write(folder.join("agent.toml"), settings).unwrap();
    let config = Settings::load(&folder.join("agent.toml"), []).unwrap().resolve().unwrap();
    let https = Https::new(None, &[]).unwrap();
    Arc::new(Context {
        client: Client::new(&config, &https).unwrap(),
        engine: Engine::connect(&format!("unix://{}", socket.display())).await.unwrap(),
        images: Images::open(folder).unwrap(),
        seen_images: SeenImages::default(),
        firewall: Firewall::new(&config, &[]),
        slots: Slots::new(1, 1),
        ahead: Ahead::default(),
        journal: Journal::open(folder, here()).unwrap(),
        providers: Providers::open(&config, &https).unwrap(),
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
pub(super) fn fake(asked: &Asked, answer: fn(&str) -> Response) -> Router {
    let asked = Arc::clone(asked);
    Router::new().fallback(async move |request: Request| {
        let mut what = format!("{} {}", request.method(), request.uri().path());
        if let Some(query) = request.uri().query().filter(|_| what.ends_with("/archive")) {
            what.push_str(&format!("?{query}"));
        }
        let answer = answer(&what);
        asked.lock().unwrap().push(what);
        answer
    })
}

/// The outcomes that a server received.
pub(super) type Finishes = Arc<Mutex<Vec<Finish>>>;

/// A server that may refuse a task's file for its content, and takes everything else.
pub(super) fn choosy(
    finishes: &Finishes,
    refuse: impl Fn(&[u8]) -> Option<(StatusCode, &'static str)> + Clone + Send + Sync + 'static,
) -> Router {
    let finishes = Arc::clone(finishes);
    Router::new().fallback(async move |uri: Uri, body: Bytes| {
        if uri.path().ends_with("/finish") {
            finishes.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        } else if uri.path().ends_with("/log") {
            let offset = uri.query().and_then(|query| query.split_once("offset=")).unwrap().1;
            let mut piece = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut piece).unwrap();
            let end = offset.parse::<usize>().unwrap() + piece.len();
            return json(&format!(r#"{{"offset": {end}}}"#));
        } else if let Some((status, problem)) = refuse(&body) {
            return (status, json(problem)).into_response();
        }
        StatusCode::NO_CONTENT.into_response()
    })
}

pub(super) fn refusal(status: StatusCode) -> Response {
    (status, json(r#"{"error": "it is over"}"#)).into_response()
}

pub(super) fn json(text: &str) -> Response {
    ([("content-type", "application/json")], text.to_owned()).into_response()
}

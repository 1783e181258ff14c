//! Tests of what a run leaves in place of the files that the agent takes from it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tar::EntryType;

use super::ends::{
    Asked, Finishes, STATE, applied, choosy, context, engine, fake, packed, run_task_alone,
};
use super::tests::claimed;
use crate::context::Context;
use crate::journal::{Container, Entry};
use protocol::{Finish, Kind, Outcome};

/// 10 TiB, as `truncate` makes them without a block on the disk.
const SPARSE: u64 = 10 << 40;

/// What a run can make, and how it is named.
const LEFT: [(EntryType, u64, &str); 6] = [
    (EntryType::Regular, SPARSE, "has 10995116277760 bytes; the limit is"),
    (EntryType::Fifo, 0, "is a FIFO"),
    (EntryType::Char, 0, "is a device"),
    (EntryType::Block, 0, "is a device"),
    (EntryType::Symlink, 0, "is a symbolic link"),
    (EntryType::Directory, 0, "is a directory"),
];

#[tokio::test]
async fn a_plan_ends_whatever_its_files_are() {
    for (kind, size, what) in LEFT {
        for (path, message) in [
            ("run%2Fplan", "Error: cannot save the plan: /scalr/run/plan"),
            ("lock.hcl", "Error: cannot save the lock file: /scalr/work/.terraform.lock.hcl"),
            ("run%2Fstatus", "Error: cannot tell how the run ended: /scalr/run/status"),
        ] {
            let (finish, asked) = end_of(Kind::Plan, path, kind, size).await;
            assert_eq!(finish.outcome, Outcome::Errored, "{path} {what}");
            let expected = format!("{message} in the run's container {what}");
            let message = finish.message.unwrap();
            assert!(message.starts_with(&expected), "{message}");
            assert_eq!(finish.unsaved_state, None);
            assert!(asked.iter().any(|asked| asked.starts_with("DELETE ")), "{asked:?}");
        }
        let (finish, _) = end_of(Kind::Plan, "run%2Fmemory", kind, size).await;
        assert_eq!(finish.outcome, Outcome::Finished, "a memory notice that {what}: {finish:?}");
    }
}

#[tokio::test]
async fn an_apply_ends_whatever_its_state_is_and_its_container_is_kept() {
    for (kind, size, what) in LEFT {
        for path in ["run/terraform.tfstate", "work/errored.tfstate"] {
            let in_query = path.replace('/', "%2F");
            let (finish, asked) = end_of(Kind::Apply, &in_query, kind, size).await;
            assert_eq!(finish.outcome, Outcome::Errored, "{path} {what}");
            let expected =
                format!("cannot save the state: /scalr/{path} in the run's container {what}");
            let unsaved = finish.unsaved_state.unwrap();
            assert!(unsaved.starts_with(&expected), "{unsaved}");
            assert!(unsaved.contains("docker rm -v task-1-1"), "{unsaved}");
            assert!(!asked.iter().any(|asked| asked.starts_with("DELETE ")), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn an_error_that_does_not_pass_ends_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let finishes = Finishes::default();
    let of_engine = Asked::default();
    // As of a path that leads through a file.
    let engine = fake(&of_engine, |asked| match asked.contains("run%2Fstatus") {
        true => super::ends::refusal(StatusCode::INTERNAL_SERVER_ERROR),
        false => engine(asked),
    });
    let context = context(folder.path(), choosy(&finishes, |_| None), engine).await;
    run_until_ended(&context, applied(&context)).await;
    let finish = finishes.lock().unwrap().remove(0);
    assert_eq!(finish.outcome, Outcome::Errored);
    let message = finish.message.unwrap();
    assert!(message.contains("cannot get /scalr/run/status out of the container"), "{message}");
    let kept = std::fs::read_to_string(folder.path().join(super::ends::KEPT)).unwrap();
    assert_eq!(kept, STATE);
    assert!(finish.unsaved_state.unwrap().contains("lost/task-1-1"));
    let of_engine = of_engine.lock().unwrap();
    assert!(of_engine.iter().any(|asked| asked.starts_with("DELETE ")), "{of_engine:?}");
}

#[tokio::test]
async fn a_server_that_refuses_a_file_for_good_ends_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let finishes = Finishes::default();
    let server =
        choosy(&finishes, |_| None).layer(from_fn(async |asked: Request, next: Next| match asked
            .uri()
            .path()
            .ends_with("/configuration")
        {
            true => super::ends::refusal(StatusCode::GONE),
            false => next.run(asked).await,
        }));
    let engine = fake(&Asked::default(), |asked| match asked {
        asked if asked.ends_with("run%2Fstatus") => packed("init 0\nplan 2\n").into_response(),
        asked if asked.ends_with("run%2Fplan") => packed("PLAN").into_response(),
        asked => engine(asked),
    });
    let context = context(folder.path(), server, engine).await;
    let mut entry = context.journal.begin(claimed(), 0).unwrap();
    let container = Container { id: "c1".into(), ..Container::default() };
    entry.note_container(container).unwrap();
    run_until_ended(&context, entry).await;
    let finish = finishes.lock().unwrap().remove(0);
    assert_eq!(finish.outcome, Outcome::Errored);
    assert!(finish.message.unwrap().contains("cannot get the configuration"));
}

/// The end of a run that finished but for what is at `path`, and what its engine was asked.
async fn end_of(kind: Kind, path: &str, left: EntryType, size: u64) -> (Finish, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let finishes = Finishes::default();
    let asked = Asked::default();
    let (seen, path) = (Arc::clone(&asked), path.to_owned());
    let engine = Router::new().fallback(async move |request: Request| {
        let query = request.uri().query().unwrap_or_default();
        let asked = format!("{} {}?{query}", request.method(), request.uri().path());
        seen.lock().unwrap().push(asked.clone());
        match asked {
            asked if asked.ends_with(&path) => unending(left, size),
            asked if asked.ends_with("run%2Fstatus") => packed("init 0\nplan 2\n").into_response(),
            asked if asked.ends_with("run%2Fplan") => packed("PLAN").into_response(),
            asked => engine(&asked),
        }
    });
    let context = context(folder.path(), choosy(&finishes, |_| None), engine).await;
    let entry = match kind {
        Kind::Apply => applied(&context),
        Kind::Plan => {
            let mut entry = context.journal.begin(claimed(), 0).unwrap();
            let container = Container { id: "c1".into(), ..Container::default() };
            entry.note_container(container).unwrap();
            entry
        }
    };
    run_until_ended(&context, entry).await;
    let finish = finishes.lock().unwrap().remove(0);
    let asked = asked.lock().unwrap().clone();
    (finish, asked)
}

async fn run_until_ended(context: &Arc<Context>, entry: Entry) {
    let ended = tokio::time::timeout(Duration::from_secs(20), run_task_alone(context, entry));
    ended.await.expect("the task ends");
    assert!(context.journal.entries().unwrap().is_empty(), "and is forgotten");
}

/// An archive whose one entry never ends; as the engine writes it, a large size stands in
/// an extension of its header.
fn unending(kind: EntryType, size: u64) -> Response {
    let mut begin = tar::Builder::new(Vec::new());
    begin.append_pax_extensions([("size", size.to_string().as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_path("file").unwrap();
    header.set_cksum();
    begin.get_mut().extend_from_slice(header.as_bytes());
    let begin = Bytes::from(begin.get_ref().clone());
    let begin = stream::iter([Ok::<_, std::io::Error>(begin)]);
    Body::from_stream(begin.chain(stream::pending())).into_response()
}

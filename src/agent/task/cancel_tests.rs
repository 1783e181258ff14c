//! Tests of a cancel while a task waits for an answer that does not come.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::ends::{
    Finishes, KEPT, STATE, applied, channels, choosy, context, engine, gzip, json, tar_of,
};
use super::interrupt::Interrupt;
use super::tests::claimed;
use super::{TaskChannels, run_task};
use crate::context::Context;
use crate::journal::Entry;
use protocol::{Finish, Intervals, Outcome, Registered, Secret};

/// Longer than a cancel may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is not answered until it is released.
#[derive(Default)]
struct Hanging {
    reached: Notify,
    released: watch::Sender<bool>,
}

impl Hanging {
    /// Lets `answers` hang where it is asked for `what`.
    fn on(self: &Arc<Self>, what: &'static str, answers: Router) -> Router {
        let hanging = Arc::clone(self);
        answers.layer(from_fn(move |request: Request, next: Next| {
            let hanging = Arc::clone(&hanging);
            async move {
                let query = request.uri().query().unwrap_or_default();
                let asked = format!("{} {}?{query}", request.method(), request.uri().path());
                if asked.contains(what) {
                    hanging.reached.notify_one();
                    hanging.released.subscribe().wait_for(|released| *released).await.unwrap();
                }
                next.run(request).await
            }
        }))
    }
}

#[tokio::test]
async fn a_cancel_ends_a_task_whose_container_is_being_prepared() {
    for (of_server, what) in [
        (true, "/configuration?"),
        (true, "/state?"),
        (true, "/start"),
        (false, "/images/"),
        (false, "/networks/"),
        (false, "/containers/create"),
        (false, "PUT "),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (hanging, finishes) = (Arc::<Hanging>::default(), Finishes::default());
        let (mut server, mut engine) = (with_configuration(&finishes), preparing());
        match of_server {
            true => server = hanging.on(what, server),
            false => engine = hanging.on(what, engine),
        }
        let context = context(folder.path(), server, engine).await;
        let registered = Registered {
            agent_id: "agent-1".to_owned(),
            pool_id: "apool-1".to_owned(),
            session_token: Secret::new("s"),
            intervals: Intervals::default(),
        };
        context.registered.set(registered).unwrap();
        let entry = context.journal.begin(claimed(), 0).unwrap();
        let finish = canceled(&context, entry, &hanging, &finishes).await;
        assert_eq!(finish.outcome, Outcome::Canceled, "{what}");
        assert_eq!(finish.unsaved_state, None, "{what}");
    }
}

#[tokio::test]
async fn a_cancel_ends_an_apply_that_waits_and_its_state_is_kept_here() {
    for (of_server, what) in [
        (true, "PUT /api/agent/v1/tasks/task-1/state"),
        (false, "/containers/c1/json"),
        (false, "/containers/c1/logs"),
        (false, "run%2Fstatus"),
        (false, "terraform.tfstate"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (hanging, finishes) = (Arc::<Hanging>::default(), Finishes::default());
        let (mut server, mut engine) = (choosy(&finishes, |_| None), Router::new().fallback(ended));
        match of_server {
            true => server = hanging.on(what, server),
            false => engine = hanging.on(what, engine),
        }
        let context = context(folder.path(), server, engine).await;
        let finish = canceled(&context, applied(&context), &hanging, &finishes).await;
        assert_eq!(finish.outcome, Outcome::Canceled, "{what}");
        let unsaved = finish.unsaved_state.unwrap();
        assert!(unsaved.contains("lost/task-1-1"), "{unsaved}");
        let kept = folder.path().join(KEPT);
        assert_eq!(fs::read_to_string(kept).unwrap(), STATE, "{what}");
    }
}

/// The end of a task that is canceled when it hangs; what hangs is released then, so that
/// the task can clean up.
async fn canceled(
    context: &Arc<Context>,
    entry: Entry,
    hanging: &Hanging,
    finishes: &Finishes,
) -> Finish {
    let (orders, ordered) = watch::channel(None);
    let channels = TaskChannels { orders: ordered, ..channels() };
    let slot = context.slots.take_again(0);
    let task = tokio::spawn(run_task(Arc::clone(context), entry, slot, channels));
    let reached = tokio::time::timeout(PATIENCE, hanging.reached.notified());
    let Ok(()) = reached.await else {
        panic!("it does not hang: {:?} {task:?}", finishes.lock().unwrap());
    };
    orders.send_replace(Some(Interrupt::Canceled));
    let ended = async {
        loop {
            if let Some(finish) = finishes.lock().unwrap().pop() {
                break finish;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let finish = tokio::time::timeout(PATIENCE, ended).await.expect("the cancel ends it");
    hanging.released.send_replace(true);
    tokio::time::timeout(PATIENCE, task).await.expect("it cleans up").unwrap();
    assert!(context.journal.entries().unwrap().is_empty(), "and forgets the task");
    finish
}

/// A server that has a configuration.
fn with_configuration(finishes: &Finishes) -> Router {
    choosy(finishes, |_| None).layer(from_fn(async |request: Request, next: Next| {
        match request.method() == Method::GET && request.uri().path().ends_with("/configuration") {
            true => gzip(&tar_of("main.tf", "")).into_response(),
            false => next.run(request).await,
        }
    }))
}

/// An engine that makes the container c1.
fn preparing() -> Router {
    Router::new().fallback(async |method: Method, uri: Uri, _uploaded: Bytes| match uri.path() {
        path if path.ends_with("/containers/create") => json(r#"{"Id": "c1", "Warnings": []}"#),
        path if path.ends_with("/containers/json") => json("[]"),
        path if path.ends_with("/archive") && method == Method::PUT => json("{}"),
        path if path.contains("/images/") => json(r#"{"Id": "sha256:1"}"#),
        path if path.contains("/networks/") => {
            json(r#"{"Options": {"com.docker.network.bridge.name": "scalr-slot-0"}}"#)
        }
        path => engine(path),
    })
}

/// An engine whose container has ended.
async fn ended(uri: Uri) -> Response {
    engine(&format!("GET {}?{}", uri.path(), uri.query().unwrap_or_default()))
}

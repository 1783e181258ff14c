//! A task of another boot, or of another machine: a clone has a copy of its original's
//! journal. It is continued only if the server confirms that it is this agent's.

use reqwest::StatusCode;
use tokio::sync::watch;
use tracing::{info, warn};

use super::BEFORE_RETRY;
use super::interrupt::{self, Interrupt};
use crate::client::CallError;
use crate::context::Context;
use crate::engine::{self, Condition};
use crate::journal::Entry;
use protocol::{Code, Resume};

/// Whether a task is continued.
pub(super) enum Resumption {
    /// It is this agent's.
    Continued,
    /// It is not, for this reason.
    Refused(String),
    /// The agent stops. The next one asks.
    Stopped,
}

/// Waits for the server's confirmation if the task needs one, as long as the server is away
/// or another machine has the agent's name.
pub(super) async fn resume(
    context: &Context,
    entry: &mut Entry,
    mut orders: watch::Receiver<Option<Interrupt>>,
) -> Resumption {
    if entry.is_of_this_boot() {
        return Resumption::Continued;
    }
    info!("the task was begun on another boot or machine: waiting for the server to confirm it");
    tokio::select! {
        resumption = confirmed(context, entry) => resumption,
        () = interrupt::told(&mut orders, |order| order != Interrupt::Canceled) => {
            Resumption::Stopped
        }
    }
}

async fn confirmed(context: &Context, entry: &mut Entry) -> Resumption {
    context.registered.wait().await;
    loop {
        match confirm(context, entry).await {
            Ok(()) => return Resumption::Continued,
            Err(CallError::Refused { code: Some(Code::AttemptOver), why, .. }) => {
                return Resumption::Refused(why);
            }
            // The server is older than the call; it has registered the agent at least.
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                return Resumption::Continued;
            }
            Err(error) => {
                warn!("cannot have the task confirmed, trying again: {error:#}");
                tokio::time::sleep(BEFORE_RETRY).await;
            }
        }
    }
}

async fn confirm(context: &Context, entry: &mut Entry) -> Result<(), CallError> {
    let record = entry.record();
    let started = match &record.container {
        None => false,
        Some(container) => match context.engine.condition(&container.id).await {
            Err(error) if engine::is_gone(&error) => true,
            condition => condition? != Condition::Created,
        },
    };
    let task = &record.claimed.task;
    let resume = Resume { attempt: task.attempt, started };
    let task_token = context.client.resume(&task.id, &resume).await?;
    Ok(entry.note_resumed(task_token)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::response::{IntoResponse as _, Response};

    use super::super::ahead::Model;
    use super::super::ends::{Asked, KEPT, STATE, applied, channels, context, engine, fake, json};
    use super::super::{TaskChannels, run_task};
    use super::*;
    use crate::journal::Journal;
    use protocol::{Identity, Intervals, Registered, Secret};

    const RESUME: &str = "POST /api/agent/v1/tasks/task-1/resume";

    /// What becomes of an apply whose agent starts on another boot, with a server that
    /// gives this answer to `resume`.
    struct Booted {
        folder: tempfile::TempDir,
        context: Arc<Context>,
        of_server: Asked,
        of_engine: Asked,
    }

    impl Booted {
        async fn with(server: fn(&str) -> Response, engine: fn(&str) -> Response) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (of_server, of_engine) = (Asked::default(), Asked::default());
            let fakes = (fake(&of_server, server), fake(&of_engine, engine));
            let mut context = context(folder.path(), fakes.0, fakes.1).await;
            drop(applied(&context));
            let now = Identity { machine_id: "machine-1".to_owned(), boot_id: "boot-2".to_owned() };
            let all = Arc::get_mut(&mut context).unwrap();
            all.journal = Journal::open(folder.path(), now).unwrap();
            Self { folder, context, of_server, of_engine }
        }

        fn register(&self) {
            let ids = Registered {
                agent_id: "agent-1".to_owned(),
                pool_id: "apool-1".to_owned(),
                session_token: Secret::new("s"),
                intervals: Intervals::default(),
            };
            self.context.registered.set(ids).unwrap();
        }

        fn start(&self, channels: TaskChannels) -> tokio::task::JoinHandle<Option<Model>> {
            let context = Arc::clone(&self.context);
            let entry = context.journal.entries().unwrap().remove(0);
            let slot = context.slots.take_again(0);
            tokio::spawn(run_task(context, entry, slot, channels))
        }

        fn server_was_asked(&self) -> Vec<String> {
            self.of_server.lock().unwrap().clone()
        }
    }

    fn over(asked: &str) -> Response {
        match asked.ends_with("/resume") {
            true => {
                let why = json(r#"{"error": "it is another agent's", "code": "attempt_over"}"#);
                (StatusCode::CONFLICT, why).into_response()
            }
            false => StatusCode::NO_CONTENT.into_response(),
        }
    }

    fn confirming(asked: &str) -> Response {
        match asked.rsplit('/').next() {
            Some("resume") => json(r#"{"task_token": "another"}"#),
            Some("log") => json(r#"{"offset": 0}"#),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    }

    #[tokio::test]
    async fn a_task_of_another_boot_waits_for_the_registration_and_its_confirmation() {
        let booted = Booted::with(confirming, engine).await;
        let running = booted.start(channels());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(booted.server_was_asked(), [""; 0], "the agent has not registered yet");
        assert!(booted.of_engine.lock().unwrap().iter().all(|asked| asked.ends_with("/version")));
        booted.register();
        tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        let asked = booted.server_was_asked();
        assert_eq!(asked[0], RESUME);
        assert!(asked.iter().any(|asked| asked.ends_with("/finish")), "{asked:?}");
    }

    #[tokio::test]
    async fn a_task_that_the_server_gives_to_no_clone_is_lost_and_its_state_is_kept() {
        let booted = Booted::with(over, engine).await;
        booted.register();
        let running = booted.start(channels());
        tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        assert_eq!(booted.server_was_asked(), [RESUME], "nothing is reported");
        let removed = |asked: &String| asked.starts_with("DELETE ");
        assert!(booted.of_engine.lock().unwrap().iter().any(removed));
        assert!(booted.context.journal.entries().unwrap().is_empty());
        assert_eq!(std::fs::read_to_string(booted.folder.path().join(KEPT)).unwrap(), STATE);
    }

    #[tokio::test]
    async fn a_stop_before_the_confirmation_leaves_the_task_to_the_next_agent() {
        let booted = Booted::with(confirming, engine).await;
        let (order, orders) = watch::channel(None);
        let running = booted.start(TaskChannels { orders, ..channels() });
        order.send_replace(Some(Interrupt::Stopped));
        tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
        assert_eq!(booted.context.journal.entries().unwrap().len(), 1);
        assert_eq!(booted.server_was_asked(), [""; 0]);
        let removed = |asked: &String| asked.starts_with("DELETE ");
        assert!(!booted.of_engine.lock().unwrap().iter().any(removed));
    }

    #[tokio::test]
    async fn a_confirmed_task_has_the_new_token_and_is_of_this_boot() {
        let booted = Booted::with(confirming, engine).await;
        booted.register();
        let mut entry = booted.context.journal.entries().unwrap().remove(0);
        assert!(!entry.is_of_this_boot());
        confirm(&booted.context, &mut entry).await.unwrap();
        drop(entry);
        let entry = booted.context.journal.entries().unwrap().remove(0);
        assert!(entry.is_of_this_boot());
        assert_eq!(entry.record().claimed.task_token.expose(), "another");
        assert_eq!(entry.record().container.as_ref().unwrap().id, "c1");
    }

    #[tokio::test]
    async fn a_server_that_is_older_than_the_question_changes_nothing() {
        let old = |asked: &str| match asked.ends_with("/resume") {
            true => (StatusCode::NOT_FOUND, json(r#"{"error": "no call"}"#)).into_response(),
            false => confirming(asked),
        };
        let booted = Booted::with(old, engine).await;
        booted.register();
        let running = booted.start(channels());
        tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        assert!(booted.server_was_asked().iter().any(|asked| asked.ends_with("/finish")));
    }
}

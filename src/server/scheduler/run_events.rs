//! What is remembered of each change of a run, and comments.

use super::{Change, Error, Scheduler};
use crate::store::run::Run;
use crate::store::run_event::{self, Actor, COMMENTED, RunEvent};
use crate::token::new_id;
use protocol::limits::MAX_TEXT;

/// How many comments a run has at most.
const MAX_COMMENTS: i64 = 1_000;

/// Who decides something about a run, and what they say about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decision {
    /// Who.
    pub actor: Actor,
    /// What they say.
    pub comment: Option<String>,
}

impl Scheduler {
    /// Comments on a run.
    ///
    /// # Errors
    /// [`Error::InvalidAttribute`] when the comment is empty or too long,
    /// [`Error::Conflict`] when the run has too many.
    pub(crate) async fn comment(&self, run_id: &str, said: Decision) -> Result<RunEvent, Error> {
        let comment = said.comment.as_deref().unwrap_or_default();
        check_length("body", comment)?;
        if comment.trim().is_empty() {
            let detail = "A comment is a text that is not empty.".to_owned();
            return Err(Error::InvalidAttribute { name: "body", detail });
        }
        let mut change = self.change_by(said).await?;
        let run = change.run(run_id).await?;
        if run_event::count(&mut change.tx, &run.id, COMMENTED).await? >= MAX_COMMENTS {
            let id = run.id;
            return Err(Error::Conflict(format!("Run {id} has {MAX_COMMENTS} comments already.")));
        }
        let event = change.record(&run, COMMENTED).await?;
        self.commit(change).await?;
        Ok(event)
    }
}

impl Decision {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_length("comment", self.comment.as_deref().unwrap_or_default())
    }
}

fn check_length(name: &'static str, comment: &str) -> Result<(), Error> {
    if comment.len() > MAX_TEXT {
        let detail = format!("A comment takes at most {MAX_TEXT} bytes.");
        return Err(Error::InvalidAttribute { name, detail });
    }
    Ok(())
}

impl Change {
    /// Remembers what has happened to a run, with the comment if there is one.
    pub(super) async fn record(&mut self, run: &Run, action: &str) -> sqlx::Result<RunEvent> {
        let event = RunEvent {
            id: new_id("re"),
            run_id: run.id.clone(),
            action: action.to_owned(),
            actor: self.actor.clone(),
            comment: self.comment.take(),
            created_at: self.now,
        };
        run_event::insert(&mut self.tx, &event).await?;
        Ok(event)
    }
}

//! Locks: a workspace whose last apply may have left a state that the server does not
//! have starts no runs until somebody unlocks it. They would plan with an old state, and
//! make again what is there.

use tracing::{info, warn};

use super::{Change, Error, Scheduler};
use crate::store::run::{self, Run};
use crate::store::workspace;

impl Scheduler {
    /// Unlocks a workspace; its next run starts.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not locked, or by a run that applies.
    pub(crate) async fn unlock(&self, workspace_id: &str) -> Result<(), Error> {
        let mut change = self.change().await?;
        change.check_no_apply(workspace_id).await?;
        let workspace = workspace::find(&mut change.tx, workspace_id).await?;
        if workspace.and_then(|workspace| workspace.lock_reason).is_none() {
            return Err(Error::Conflict("The workspace is not locked.".to_owned()));
        }
        workspace::set_lock(&mut change.tx, workspace_id, None).await?;
        info!(workspace = workspace_id, "workspace unlocked");
        change.start_next(workspace_id).await?;
        Ok(self.commit(change).await?)
    }
}

impl Change {
    /// Locks the workspace of a run whose apply may have left a state that the server does
    /// not have, and gives what to do about it.
    pub(super) async fn lock(&mut self, run: &Run, why: &str) -> sqlx::Result<String> {
        let workspace_id = &run.workspace_id;
        warn!(run = run.id, workspace = workspace_id, why, "workspace locked");
        let reason = format!("The state of run {} may not be saved: {why}", run.id);
        workspace::set_lock(&mut self.tx, workspace_id, Some(&reason)).await?;
        Ok(format!(
            "The workspace stays locked. Upload its state (POST /state-versions, with \
             \"force\": true if its serial or lineage is refused), or make sure that the current \
             one is right. Then unlock it: POST /workspaces/{workspace_id}/actions/unlock."
        ))
    }

    /// Checks that no run of a workspace applies.
    ///
    /// # Errors
    /// [`Error::Conflict`] when one does.
    pub(super) async fn check_no_apply(&mut self, workspace_id: &str) -> Result<(), Error> {
        match run::current(&mut self.tx, workspace_id).await? {
            Some(run) if run.locks_workspace() => {
                Err(Error::Conflict(format!("The workspace is locked by run {}.", run.id)))
            }
            _ => Ok(()),
        }
    }
}

//! Locks: a workspace whose last apply may have left a state that the server does not
//! have starts no runs until somebody unlocks it. They would plan with an old state, and
//! make again what is there. An admin can lock a workspace, too, and Terraform does so while
//! it changes the state from its own machine.

use tracing::{info, warn};

use super::{Change, Error, Scheduler};
use crate::clock::rfc3339;
use crate::store::access_token::AccessToken;
use crate::store::run::{self, Run};
use crate::store::workspace::{self, Workspace};

impl Scheduler {
    /// Locks a workspace for an admin; runs wait until it is unlocked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is locked, or a run of it is under way.
    pub(crate) async fn lock(
        &self,
        workspace_id: &str,
        by: &AccessToken,
        reason: &str,
    ) -> Result<(), Error> {
        let mut change = self.change().await?;
        if let Some(run) = run::current(&mut change.tx, workspace_id).await? {
            return Err(locked_by_run(&run));
        }
        let workspace = workspace::find(&mut change.tx, workspace_id).await?;
        if let Some(reason) = workspace.and_then(|workspace| workspace.lock_reason) {
            return Err(Error::Conflict(format!("The workspace is locked. {reason}")));
        }
        let name = by.name.as_deref().unwrap_or("an admin");
        let reason = format!("Locked by {name} ({}) at {}: {reason}", by.id, rfc3339(change.now));
        workspace::set_lock(&mut change.tx, workspace_id, Some(&reason), Some(&by.id)).await?;
        info!(workspace = workspace_id, by = by.id, "workspace locked");
        Ok(self.commit(change).await?)
    }

    /// Unlocks a workspace, whoever locked it; its next run starts.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not locked, or by a run that applies.
    pub(crate) async fn unlock(&self, workspace_id: &str) -> Result<(), Error> {
        self.unlock_if(workspace_id, |_| Ok(())).await
    }

    /// Unlocks a workspace that `by` locked; its next run starts.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is not locked, or by somebody else.
    pub(crate) async fn release_lock(
        &self,
        workspace_id: &str,
        by: &AccessToken,
    ) -> Result<(), Error> {
        self.unlock_if(workspace_id, |workspace| {
            check_lock(workspace, by)?;
            match &workspace.lock_reason {
                Some(reason) if workspace.locked_by.is_none() => {
                    Err(Error::Conflict(format!("The workspace is locked by the server. {reason}")))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn unlock_if(
        &self,
        workspace_id: &str,
        check: impl FnOnce(&Workspace) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut change = self.change().await?;
        change.check_no_apply(workspace_id).await?;
        let workspace = workspace::find(&mut change.tx, workspace_id).await?;
        let workspace = workspace.filter(|workspace| workspace.lock_reason.is_some());
        let workspace =
            workspace.ok_or_else(|| Error::Conflict("The workspace is not locked.".to_owned()))?;
        check(&workspace)?;
        workspace::set_lock(&mut change.tx, workspace_id, None, None).await?;
        info!(workspace = workspace_id, "workspace unlocked");
        change.start_next(workspace_id).await?;
        Ok(self.commit(change).await?)
    }
}

/// Checks that a workspace is not locked by another admin than `by`.
///
/// # Errors
/// [`Error::Conflict`] when it is.
pub(crate) fn check_lock(workspace: &Workspace, by: &AccessToken) -> Result<(), Error> {
    match (&workspace.locked_by, &workspace.lock_reason) {
        (Some(holder), Some(reason)) if *holder != by.id => Err(Error::Conflict(format!(
            // Terraform knows the case by these words.
            "The workspace is locked by User {holder}. {reason}"
        ))),
        _ => Ok(()),
    }
}

fn locked_by_run(run: &Run) -> Error {
    // Terraform knows the case by these words.
    Error::Conflict(format!("The workspace is locked by Run {}.", run.id))
}

impl Change {
    /// Locks the workspace of a run whose apply may have left a state that the server does
    /// not have, and gives what to do about it.
    pub(super) async fn lock(&mut self, run: &Run, why: &str) -> sqlx::Result<String> {
        let workspace_id = &run.workspace_id;
        warn!(run = run.id, workspace = workspace_id, why, "workspace locked");
        let reason = format!("The state of run {} may not be saved: {why}", run.id);
        workspace::set_lock(&mut self.tx, workspace_id, Some(&reason), None).await?;
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
            Some(run) if run.locks_workspace() => Err(locked_by_run(&run)),
            _ => Ok(()),
        }
    }
}

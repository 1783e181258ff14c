//! What a run may read with its token: its environment's workspaces, and the current states of
//! those that are shared with its own.
//!
//! States of other workspaces are what `terraform_remote_state` and its like are
//! for, and an environment is the border that is drawn for such things anyway.

use anyhow::Context as _;

use crate::store::run::{self, Run};
use crate::store::task::Task;
use crate::store::workspace::{self, Workspace};
use crate::store::{Connection, remote_state, state_version};

/// Where a run belongs.
pub(super) struct RunScope {
    pub run: Run,
    workspace: Workspace,
}

impl RunScope {
    /// That of a task's run.
    pub(super) async fn of_task(db: &mut Connection, task: &Task) -> anyhow::Result<Self> {
        let run = run::find(db, &task.run_id).await?.context("a task without its run")?;
        let workspace =
            workspace::find(db, &run.workspace_id).await?.context("a run without its workspace")?;
        Ok(Self { run, workspace })
    }

    pub(super) fn environment_id(&self) -> &str {
        &self.workspace.environment_id
    }

    pub(super) async fn has_workspace(&self, db: &mut Connection, id: &str) -> sqlx::Result<bool> {
        let found = workspace::find(db, id).await?;
        Ok(found.is_some_and(|found| found.environment_id == self.workspace.environment_id))
    }

    /// Whether a workspace's state is shared with the run's workspace.
    pub(super) async fn may_read_state_of(
        &self,
        db: &mut Connection,
        workspace_id: &str,
    ) -> sqlx::Result<bool> {
        remote_state::may_read(db, &self.workspace.id, workspace_id).await
    }

    /// Only current ones: an earlier state may hold secrets that were changed
    /// since.
    pub(super) async fn has_state(&self, db: &mut Connection, id: &str) -> sqlx::Result<bool> {
        let Some(version) = state_version::find(db, id).await? else { return Ok(false) };
        let current = state_version::current(db, &version.workspace_id).await?;
        Ok(current.is_some_and(|current| current.id == id)
            && self.may_read_state_of(db, &version.workspace_id).await?)
    }
}

//! Runs.

use serde::Serialize;
use sqlx::FromRow;

use super::task::Phase;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A run.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Run {
    /// `run-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// What it runs.
    pub configuration_version_id: String,
    /// How far it is.
    pub status: Status,
    /// Where it came from: `api`.
    pub source: String,
    /// Why it was made, for people.
    pub message: Option<String>,
    /// Whether it destroys.
    pub is_destroy: bool,
    /// Whether its plan is applied without asking.
    pub auto_apply: bool,
    /// Whether its plan changes anything: known from its end on.
    pub has_changes: Option<bool>,
    /// What went wrong.
    pub error_message: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When it got its status.
    pub updated_at: Millis,
    /// When retention removed its logs and what its plan left.
    pub files_removed_at: Option<Millis>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Another run of its workspace goes first.
    Pending,
    /// Its plan waits for an agent.
    PlanQueued,
    /// Its plan runs.
    Planning,
    /// Its plan waits for a yes.
    Planned,
    /// Its plan got a yes.
    Confirmed,
    /// Its apply waits for an agent.
    ApplyQueued,
    /// Its apply runs, or may run.
    Applying,
    /// Its plan or its apply is being interrupted.
    Canceling,
    /// Its apply is done.
    Applied,
    /// Its plan changes nothing.
    PlannedAndFinished,
    /// Its plan or apply failed.
    Errored,
    /// Its plan got a no.
    Discarded,
    /// It was canceled.
    Canceled,
}

impl Run {
    /// What the run does or waits to do; none while it waits for a yes, and at
    /// its end.
    pub(crate) fn phase(&self) -> Option<Phase> {
        match self.status {
            Status::Pending | Status::PlanQueued | Status::Planning => Some(Phase::Plan),
            Status::Confirmed | Status::ApplyQueued | Status::Applying => Some(Phase::Apply),
            // Only what was planned is applied.
            Status::Canceling => match self.has_changes {
                None => Some(Phase::Plan),
                Some(_) => Some(Phase::Apply),
            },
            Status::Planned
            | Status::Applied
            | Status::PlannedAndFinished
            | Status::Errored
            | Status::Discarded
            | Status::Canceled => None,
        }
    }

    /// Whether the workspace's state is the run's alone.
    pub(crate) fn locks_workspace(&self) -> bool {
        self.phase() == Some(Phase::Apply)
    }
}

/// Which runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this workspace.
    pub workspace: Option<&'a str>,
    /// With this status.
    pub status: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts =
    &[("created-at", "t.created_at"), ("status", "t.status"), ("updated-at", "t.updated_at")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.message"];

/// Writes a new run.
pub(crate) async fn insert(db: &mut Connection, run: &Run) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO runs
            (id, workspace_id, configuration_version_id, status, source, message, is_destroy,
             auto_apply, has_changes, error_message, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&run.id)
    .bind(&run.workspace_id)
    .bind(&run.configuration_version_id)
    .bind(run.status)
    .bind(&run.source)
    .bind(&run.message)
    .bind(run.is_destroy)
    .bind(run.auto_apply)
    .bind(run.has_changes)
    .bind(&run.error_message)
    .bind(run.created_at)
    .bind(run.updated_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, run: &Run) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE runs SET status = $2, has_changes = $3, error_message = $4, updated_at = $5
         WHERE id = $1",
    )
    .bind(&run.id)
    .bind(run.status)
    .bind(run.has_changes)
    .bind(&run.error_message)
    .bind(run.updated_at)
    .execute(db)
    .await
    .map(drop)
}

/// Up to `limit` runs with files that ended before `before`.
pub(crate) async fn removable(
    db: &mut Connection,
    before: Millis,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT id FROM runs
         WHERE files_removed_at IS NULL AND updated_at < $1
           AND status IN ('applied', 'planned_and_finished', 'errored', 'discarded', 'canceled')
         LIMIT $2",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Remembers that the files are no longer kept.
pub(crate) async fn set_files_removed(
    db: &mut Connection,
    id: &str,
    now: Millis,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE runs SET files_removed_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// The run with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as("SELECT * FROM runs WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The run of a workspace that has begun and is not through.
pub(crate) async fn current(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Option<Run>> {
    Ok(current_of(db, &[workspace_id]).await?.into_iter().next())
}

/// The runs of these workspaces that have begun and are not through, oldest
/// first.
pub(crate) async fn current_of(db: &mut Connection, workspaces: &[&str]) -> sqlx::Result<Vec<Run>> {
    super::of_any(
        db,
        "SELECT * FROM runs WHERE status IN
            ('plan_queued', 'planning', 'planned', 'confirmed', 'apply_queued', 'applying',
             'canceling')
           AND workspace_id",
        workspaces,
        "ORDER BY created_at",
    )
    .await
}

/// These workspaces and the ids of their latest runs.
pub(crate) async fn latest_of(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT workspace_id, id FROM runs r WHERE id =
            (SELECT id FROM runs WHERE workspace_id = r.workspace_id
             ORDER BY created_at DESC, id LIMIT 1)
           AND workspace_id",
        workspaces,
        "",
    )
    .await
}

/// The run of a workspace that has waited longest.
pub(crate) async fn next(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(
        "SELECT * FROM runs WHERE workspace_id = $1 AND status = 'pending'
         ORDER BY created_at, id LIMIT 1",
    )
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// The runs with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Run>> {
    super::of_any(db, "SELECT * FROM runs WHERE id", ids, "").await
}

/// A page of them, latest first.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Run>> {
    super::list(
        db,
        "FROM runs t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.workspace_id = $2)
           AND ($3 IS NULL OR t.status = $3)",
        "t.created_at DESC, t.id",
        &[filter.id, filter.workspace, filter.status],
        view.into(),
    )
    .await
}

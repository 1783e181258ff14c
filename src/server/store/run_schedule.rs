//! Schedules by which the server starts runs of workspaces.

use serde::Deserialize;
use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A schedule.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RunSchedule {
    /// `rsr-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// What its runs do.
    pub mode: ScheduleMode,
    /// A cron expression in UTC.
    pub cron: String,
    /// When it is due.
    pub next_at: Millis,
}

/// Which schedules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this workspace.
    pub workspace: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("schedule", "t.cron"), ("schedule-mode", "t.mode")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.cron"];

/// What the runs of a schedule do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum ScheduleMode {
    /// Bring the resources to what the configuration says.
    Apply,
    /// Destroy them.
    Destroy,
}

impl ScheduleMode {
    pub(crate) const ALL: [Self; 2] = [Self::Apply, Self::Destroy];

    /// As clients know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Destroy => "destroy",
        }
    }

    /// The attribute of a workspace that has its schedule.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Apply => "apply-schedule",
            Self::Destroy => "destroy-schedule",
        }
    }
}

/// Writes a schedule, in the place of the workspace's earlier one of this mode, whose id stays.
pub(crate) async fn upsert(db: &mut Connection, schedule: &RunSchedule) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO run_schedules (workspace_id, mode, cron, next_at, id)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (workspace_id, mode) DO UPDATE SET
            cron = excluded.cron, next_at = excluded.next_at",
    )
    .bind(&schedule.workspace_id)
    .bind(schedule.mode)
    .bind(&schedule.cron)
    .bind(schedule.next_at)
    .bind(&schedule.id)
    .execute(db)
    .await
    .map(drop)
}

/// Writes a new schedule. Its workspace must not have one of its mode.
pub(crate) async fn insert(db: &mut Connection, schedule: &RunSchedule) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO run_schedules (id, workspace_id, mode, cron, next_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&schedule.id)
    .bind(&schedule.workspace_id)
    .bind(schedule.mode)
    .bind(&schedule.cron)
    .bind(schedule.next_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change of a schedule.
pub(crate) async fn update(db: &mut Connection, schedule: &RunSchedule) -> sqlx::Result<()> {
    sqlx::query("UPDATE run_schedules SET mode = $2, cron = $3, next_at = $4 WHERE id = $1")
        .bind(&schedule.id)
        .bind(schedule.mode)
        .bind(&schedule.cron)
        .bind(schedule.next_at)
        .execute(db)
        .await
        .map(drop)
}

/// The schedule with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<RunSchedule>> {
    sqlx::query_as("SELECT * FROM run_schedules WHERE id = $1").bind(id).fetch_optional(db).await
}

/// A page of them, by workspace.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<RunSchedule>> {
    super::list(
        db,
        "FROM run_schedules t WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.workspace_id = $2)",
        "t.workspace_id, t.mode",
        &[filter.id, filter.workspace],
        view.into(),
    )
    .await
}

/// Writes when a schedule is due next, unless it was changed or deleted meanwhile: whether it
/// was not.
pub(crate) async fn advance(db: &mut Connection, schedule: &RunSchedule) -> sqlx::Result<bool> {
    let advanced = sqlx::query(
        "UPDATE run_schedules SET next_at = $4 WHERE workspace_id = $1 AND mode = $2 AND cron = $3",
    )
    .bind(&schedule.workspace_id)
    .bind(schedule.mode)
    .bind(&schedule.cron)
    .bind(schedule.next_at)
    .execute(db)
    .await?;
    Ok(advanced.rows_affected() > 0)
}

/// Deletes a schedule.
pub(crate) async fn delete(
    db: &mut Connection,
    workspace_id: &str,
    mode: ScheduleMode,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM run_schedules WHERE workspace_id = $1 AND mode = $2")
        .bind(workspace_id)
        .bind(mode)
        .execute(db)
        .await
        .map(drop)
}

/// The schedules of these workspaces.
pub(crate) async fn of_workspaces(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<RunSchedule>> {
    super::of_any(db, "SELECT * FROM run_schedules WHERE workspace_id", workspaces, "").await
}

/// Those that are due.
pub(crate) async fn due(db: &mut Connection, now: Millis) -> sqlx::Result<Vec<RunSchedule>> {
    sqlx::query_as("SELECT * FROM run_schedules WHERE next_at <= $1 ORDER BY next_at")
        .bind(now)
        .fetch_all(db)
        .await
}

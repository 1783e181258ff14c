//! Schedules by which the server starts runs of workspaces.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// A schedule.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RunSchedule {
    /// Its workspace.
    pub workspace_id: String,
    /// What its runs do.
    pub mode: ScheduleMode,
    /// A cron expression in UTC.
    pub cron: String,
    /// When it is due.
    pub next_at: Millis,
}

/// What the runs of a schedule do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum ScheduleMode {
    /// Bring the resources to what the configuration says.
    Apply,
    /// Destroy them.
    Destroy,
}

impl ScheduleMode {
    pub(crate) const ALL: [Self; 2] = [Self::Apply, Self::Destroy];

    /// The attribute of a workspace that has its schedule.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Apply => "apply-schedule",
            Self::Destroy => "destroy-schedule",
        }
    }
}

/// Writes a schedule, in the place of the workspace's earlier one of this mode.
pub(crate) async fn upsert(db: &mut Connection, schedule: &RunSchedule) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO run_schedules (workspace_id, mode, cron, next_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (workspace_id, mode) DO UPDATE SET
            cron = excluded.cron, next_at = excluded.next_at",
    )
    .bind(&schedule.workspace_id)
    .bind(schedule.mode)
    .bind(&schedule.cron)
    .bind(schedule.next_at)
    .execute(db)
    .await
    .map(drop)
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

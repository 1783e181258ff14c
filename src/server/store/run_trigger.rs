//! Which workspaces get a run when one of another workspace is applied.

use sqlx::FromRow;

use super::Connection;
use super::run::Run;
use crate::clock::Millis;

/// A trigger.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RunTrigger {
    /// `rt-…`.
    pub id: String,
    /// The workspace whose applied runs count.
    pub upstream_id: String,
    /// The one that then gets a run.
    pub downstream_id: String,
    /// When it was made.
    pub created_at: Millis,
}

/// A run that a trigger has yet to start.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct TriggeredRun {
    /// The run that was applied.
    pub upstream_run_id: String,
    /// The name of its workspace.
    pub upstream_name: String,
    /// The workspace that gets a run.
    pub downstream_id: String,
}

/// Writes a new trigger.
pub(crate) async fn insert(db: &mut Connection, trigger: &RunTrigger) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO run_triggers (id, upstream_id, downstream_id, created_at)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(&trigger.id)
    .bind(&trigger.upstream_id)
    .bind(&trigger.downstream_id)
    .bind(trigger.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a trigger.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM run_triggers WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The trigger with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<RunTrigger>> {
    sqlx::query_as("SELECT * FROM run_triggers WHERE id = $1").bind(id).fetch_optional(db).await
}

/// Whether a run of one workspace leads to one of another, over any number of triggers.
pub(crate) async fn leads_to(
    db: &mut Connection,
    upstream_id: &str,
    downstream_id: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "WITH RECURSIVE reached (id) AS (
            SELECT $1 UNION
            SELECT t.downstream_id FROM run_triggers t JOIN reached r ON r.id = t.upstream_id)
         SELECT EXISTS (SELECT 1 FROM reached WHERE id = $2)",
    )
    .bind(upstream_id)
    .bind(downstream_id)
    .fetch_one(db)
    .await
}

/// Remembers what an applied run triggers.
pub(crate) async fn fire(db: &mut Connection, applied: &Run) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO triggered_runs (upstream_run_id, downstream_id)
         SELECT $1, downstream_id FROM run_triggers WHERE upstream_id = $2",
    )
    .bind(&applied.id)
    .bind(&applied.workspace_id)
    .execute(db)
    .await
    .map(drop)
}

/// The runs that triggers have yet to start.
pub(crate) async fn due(db: &mut Connection) -> sqlx::Result<Vec<TriggeredRun>> {
    sqlx::query_as(
        "SELECT t.upstream_run_id, t.downstream_id, w.name AS upstream_name
         FROM triggered_runs t
         JOIN runs r ON r.id = t.upstream_run_id
         JOIN workspaces w ON w.id = r.workspace_id
         ORDER BY r.updated_at, t.downstream_id",
    )
    .fetch_all(db)
    .await
}

/// Forgets a run that was started, or cannot be.
pub(crate) async fn done(db: &mut Connection, triggered: &TriggeredRun) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM triggered_runs WHERE upstream_run_id = $1 AND downstream_id = $2")
        .bind(&triggered.upstream_run_id)
        .bind(&triggered.downstream_id)
        .execute(db)
        .await
        .map(drop)
}

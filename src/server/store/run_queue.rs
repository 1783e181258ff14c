//! The queue of an environment: its runs that have not ended.

use super::run::Run;
use super::status_sets::statement;
use super::{Connection, Listed, Page};

/// A page of the runs of an environment that have not ended, oldest first.
pub(crate) async fn list(
    db: &mut Connection,
    environment_id: &str,
    page: Page,
) -> sqlx::Result<Listed<Run>> {
    super::list(
        db,
        "FROM runs t WHERE t.workspace_id IN
            (SELECT id FROM workspaces WHERE environment_id = $1)
           AND t.status IN {unended_runs}",
        "t.created_at, t.id",
        &[Some(environment_id)],
        page.into(),
    )
    .await
}

/// How many runs of an environment wait, and how many an agent works on.
pub(crate) async fn counts(db: &mut Connection, environment_id: &str) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(statement(
        "SELECT COUNT(*) FILTER (WHERE r.status IN {waiting_runs}),
                COUNT(*) FILTER (WHERE r.status IN {working_runs})
         FROM runs r JOIN workspaces w ON w.id = r.workspace_id
         WHERE w.environment_id = $1",
    ))
    .bind(environment_id)
    .fetch_one(db)
    .await
}

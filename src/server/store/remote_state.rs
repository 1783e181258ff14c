//! Which workspaces may read each other's state.

use super::Connection;

/// Whether the runs of a workspace may read the state of another one: their own, and in their
/// environment that of one that shares it with all or with them.
pub(crate) async fn may_read(
    db: &mut Connection,
    reader_id: &str,
    owner_id: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (
            SELECT 1 FROM workspaces o
            JOIN workspaces r ON r.environment_id = o.environment_id AND r.id = $1
            WHERE o.id = $2 AND (o.id = r.id OR o.remote_state_sharing OR EXISTS (
                SELECT 1 FROM remote_state_consumers c
                WHERE c.workspace_id = o.id AND c.consumer_id = r.id)))",
    )
    .bind(reader_id)
    .bind(owner_id)
    .fetch_one(db)
    .await
}

/// Lets a workspace read the state of another one.
pub(crate) async fn add_consumer(
    db: &mut Connection,
    workspace_id: &str,
    consumer_id: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO remote_state_consumers (workspace_id, consumer_id) VALUES ($1, $2)
         ON CONFLICT (workspace_id, consumer_id) DO NOTHING",
    )
    .bind(workspace_id)
    .bind(consumer_id)
    .execute(db)
    .await
    .map(drop)
}

/// Takes that back; from all workspaces without a `consumer_id`.
pub(crate) async fn remove_consumer(
    db: &mut Connection,
    workspace_id: &str,
    consumer_id: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM remote_state_consumers
         WHERE workspace_id = $1 AND ($2 IS NULL OR consumer_id = $2)",
    )
    .bind(workspace_id)
    .bind(consumer_id)
    .execute(db)
    .await
    .map(drop)
}

//! The announcements of queued tasks to the webhooks of their pools.

use sqlx::FromRow;

use super::Connection;
use super::status_sets::statement;
use super::task::Phase;
use super::webhook::Webhook;
use crate::clock::Millis;

/// A queued task, and the webhook that has yet to say that it knows.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct WebhookCall {
    /// Its task.
    pub task_id: String,
    /// The attempt that is queued, from 1.
    pub attempt: i64,
    /// Plan or apply.
    pub phase: Phase,
    /// When the task was queued.
    pub queued_at: Option<Millis>,
    /// Its run.
    pub run_id: String,
    /// The run's workspace.
    pub workspace_id: String,
    /// The workspace's environment.
    pub environment_id: String,
    /// Its pool.
    pub pool_id: String,
    /// The pool's webhook.
    #[sqlx(try_from = "String")]
    pub webhook: Webhook,
    /// How often it failed.
    pub failures: i64,
}

/// The calls that are due, at most `most` of each pool, but for the pools in `busy`, a list of
/// ids in JSON; those of a pool together, oldest first.
pub(crate) async fn due(
    db: &mut Connection,
    now: Millis,
    most: i64,
    busy: &str,
) -> sqlx::Result<Vec<WebhookCall>> {
    sqlx::query_as(statement(
        "SELECT * FROM (
            SELECT t.id AS task_id, t.attempt, t.phase, t.queued_at, t.run_id, r.workspace_id,
               w.environment_id, p.id AS pool_id, p.webhook, COALESCE(c.failures, 0) AS failures,
               ROW_NUMBER() OVER (PARTITION BY p.id ORDER BY t.queued_at, t.id) AS place
            FROM agent_pools p
            JOIN tasks t ON t.pool_id = p.id AND t.state IN {queued_tasks}
            JOIN runs r ON r.id = t.run_id
            JOIN workspaces w ON w.id = r.workspace_id
            LEFT JOIN webhook_calls c ON c.task_id = t.id AND c.attempt = t.attempt
            WHERE p.webhook_enabled
              AND p.id NOT IN (SELECT value FROM json_each($3))
              AND (c.task_id IS NULL OR (NOT c.delivered AND c.next_at <= $1))) AS calls
         WHERE place <= $2 ORDER BY pool_id, place",
    ))
    .bind(now)
    .bind(most)
    .bind(busy)
    .fetch_all(db)
    .await
}

/// Remembers how a call ended: when it is tried again, or that it was delivered.
pub(crate) async fn record(
    db: &mut Connection,
    call: &WebhookCall,
    next_at: Option<Millis>,
) -> sqlx::Result<()> {
    // The task may be gone by now, with its workspace.
    sqlx::query(
        "INSERT INTO webhook_calls (task_id, attempt, delivered, failures, next_at)
         SELECT id, $2, $3, $4, $5 FROM tasks WHERE id = $1
         ON CONFLICT (task_id) DO UPDATE SET
            attempt = excluded.attempt, delivered = excluded.delivered,
            failures = excluded.failures, next_at = excluded.next_at",
    )
    .bind(&call.task_id)
    .bind(call.attempt)
    .bind(next_at.is_none())
    .bind(call.failures + i64::from(next_at.is_some()))
    .bind(next_at.unwrap_or_default())
    .execute(db)
    .await
    .map(drop)
}

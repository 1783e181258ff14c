//! Agents' sessions: what a registration makes.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// A session, with what is needed of its agent and of the token that it was
/// made with.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Session {
    /// The SHA-256 of its secret.
    pub secret_hash: String,
    /// How it ended, if it has.
    pub end_reason: Option<End>,
    /// Its agent.
    pub agent_id: String,
    /// The agent's name.
    pub agent_name: String,
    /// What the agent can do.
    pub level: i64,
    /// Whether somebody drains the agent: it is offered no tasks.
    pub is_draining: bool,
    /// The agent's pool.
    pub pool_id: String,
    /// The pool's token that it was made with; none: that was revoked.
    pub access_token_id: Option<String>,
    /// When that token stops working, if ever.
    pub token_expires_at: Option<Millis>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum End {
    /// The agent registered again, or one that does not say on which machine it is.
    Replaced,
    /// Another machine's agent got the name when this one had missed its heartbeats.
    Superseded,
    /// The agent took its leave.
    Left,
}

/// Writes a new session.
pub(crate) async fn insert(
    db: &mut Connection,
    id: &str,
    secret_hash: &str,
    agent_id: &str,
    access_token_id: &str,
    now: Millis,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO sessions (id, agent_id, access_token_id, secret_hash, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(agent_id)
    .bind(access_token_id)
    .bind(secret_hash)
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}

/// The session with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Session>> {
    sqlx::query_as(
        "SELECT s.secret_hash, s.end_reason, s.agent_id, a.name AS agent_name, a.level,
                a.draining_since IS NOT NULL AS is_draining, a.pool_id, s.access_token_id, t.expires_at AS token_expires_at
         FROM sessions s
         JOIN agents a ON a.id = s.agent_id
         LEFT JOIN access_tokens t ON t.id = s.access_token_id
         WHERE s.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await
}

/// Ends the open sessions of an agent; how many they were.
pub(crate) async fn end_all(
    db: &mut Connection,
    agent_id: &str,
    reason: End,
    now: Millis,
) -> sqlx::Result<u64> {
    sqlx::query(
        "UPDATE sessions SET ended_at = $3, end_reason = $2
         WHERE agent_id = $1 AND ended_at IS NULL",
    )
    .bind(agent_id)
    .bind(reason)
    .bind(now)
    .execute(db)
    .await
    .map(|done| done.rows_affected())
}

/// Since when an agent has its open session.
pub(crate) async fn open_since(
    db: &mut Connection,
    agent_id: &str,
) -> sqlx::Result<Option<Millis>> {
    sqlx::query_scalar(
        "SELECT created_at FROM sessions WHERE agent_id = $1 AND ended_at IS NULL
         ORDER BY created_at DESC",
    )
    .bind(agent_id)
    .fetch_optional(db)
    .await
}

/// Forgets the sessions that ended before `before`.
pub(crate) async fn delete_ended(db: &mut Connection, before: Millis) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM sessions WHERE ended_at < $1").bind(before).execute(db).await.map(drop)
}

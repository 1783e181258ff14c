//! Sessions of browsers that are signed in to the pages.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// A browser's session.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct PageSession {
    /// `web-…`.
    pub id: String,
    /// The admin's token that it was made with; none: it was made with a sign-in code.
    pub access_token_id: Option<String>,
    /// The SHA-256 of its secret.
    pub secret_hash: String,
    /// Who it is, for people.
    pub name: String,
    /// The browser, as it describes itself.
    pub user_agent: String,
    /// When it began.
    pub created_at: Millis,
    /// When it was last used, to the minute.
    pub last_used_at: Millis,
}

/// Writes a new session.
pub(crate) async fn insert(db: &mut Connection, session: &PageSession) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO page_sessions
            (id, access_token_id, secret_hash, name, user_agent, created_at, last_used_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&session.id)
    .bind(&session.access_token_id)
    .bind(&session.secret_hash)
    .bind(&session.name)
    .bind(&session.user_agent)
    .bind(session.created_at)
    .bind(session.last_used_at)
    .execute(db)
    .await
    .map(drop)
}

/// The session with this id, unless the token that it was made with has expired.
pub(crate) async fn find(
    db: &mut Connection,
    id: &str,
    now: Millis,
) -> sqlx::Result<Option<PageSession>> {
    sqlx::query_as(
        "SELECT s.* FROM page_sessions s LEFT JOIN access_tokens t ON t.id = s.access_token_id
         WHERE s.id = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)",
    )
    .bind(id)
    .bind(now)
    .fetch_optional(db)
    .await
}

/// All sessions, the one used last first.
pub(crate) async fn list(db: &mut Connection) -> sqlx::Result<Vec<PageSession>> {
    sqlx::query_as("SELECT * FROM page_sessions ORDER BY last_used_at DESC, id").fetch_all(db).await
}

/// Remembers a use, unless the last one was within a minute.
pub(crate) async fn touch(
    db: &mut Connection,
    session: &PageSession,
    now: Millis,
) -> sqlx::Result<()> {
    if now - session.last_used_at < 60_000 {
        return Ok(());
    }
    sqlx::query("UPDATE page_sessions SET last_used_at = $2 WHERE id = $1")
        .bind(&session.id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// Ends a session; whether there was one.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<bool> {
    sqlx::query("DELETE FROM page_sessions WHERE id = $1")
        .bind(id)
        .execute(db)
        .await
        .map(|done| done.rows_affected() > 0)
}

/// Deletes the sessions that began before `begun_before`.
pub(crate) async fn delete_over(db: &mut Connection, begun_before: Millis) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM page_sessions WHERE created_at < $1")
        .bind(begun_before)
        .execute(db)
        .await
        .map(drop)
}

//! Access tokens: admins' and pools'.

use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// An access token, without its secret.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AccessToken {
    /// `at-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// The pool whose agents register with it; none: it is an admin's.
    pub pool_id: Option<String>,
    /// A name, for people.
    pub name: Option<String>,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The SHA-256 of its secret.
    pub secret_hash: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it stops working, if ever.
    pub expires_at: Option<Millis>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Millis>,
    /// Whether only one agent may register with it. Its expiry is that of the registration.
    pub for_one_agent: bool,
    /// The agent that has, if so.
    pub agent_id: Option<String>,
}

impl AccessToken {
    /// Whether it has stopped working.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[
    ("created-at", "t.created_at"),
    ("expires-at", "t.expires_at"),
    ("last-used-at", "t.last_used_at"),
    ("name", "t.name"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name", "t.description"];

/// Writes a new token.
pub(crate) async fn insert(db: &mut Connection, token: &AccessToken) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO access_tokens
            (id, account_id, pool_id, name, description, secret_hash, created_at, expires_at,
             for_one_agent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&token.id)
    .bind(&token.account_id)
    .bind(&token.pool_id)
    .bind(&token.name)
    .bind(&token.description)
    .bind(&token.secret_hash)
    .bind(token.created_at)
    .bind(token.expires_at)
    .bind(token.for_one_agent)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, token: &AccessToken) -> sqlx::Result<()> {
    sqlx::query("UPDATE access_tokens SET name = $2, description = $3 WHERE id = $1")
        .bind(&token.id)
        .bind(&token.name)
        .bind(&token.description)
        .execute(db)
        .await
        .map(drop)
}

/// Remembers a use, unless the last one was within a minute.
pub(crate) async fn touch(
    db: &mut Connection,
    token: &AccessToken,
    now: Millis,
) -> sqlx::Result<()> {
    if token.last_used_at.is_some_and(|last| now - last < 60_000) {
        return Ok(());
    }
    sqlx::query("UPDATE access_tokens SET last_used_at = $2 WHERE id = $1")
        .bind(&token.id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// Makes a token for one agent the token of `agent_id`; false: it is another agent's.
pub(crate) async fn bind(db: &mut Connection, id: &str, agent_id: &str) -> sqlx::Result<bool> {
    sqlx::query(
        "UPDATE access_tokens SET agent_id = $2, expires_at = NULL
         WHERE id = $1 AND (agent_id IS NULL OR agent_id = $2)",
    )
    .bind(id)
    .bind(agent_id)
    .execute(db)
    .await
    .map(|done| done.rows_affected() > 0)
}

/// Deletes a token; the sessions that were made with it are revoked.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM access_tokens WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The token with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<AccessToken>> {
    sqlx::query_as("SELECT * FROM access_tokens WHERE id = $1").bind(id).fetch_optional(db).await
}

/// A page of the admins' tokens, oldest first.
pub(crate) async fn list_admins(
    db: &mut Connection,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<AccessToken>> {
    super::list(
        db,
        "FROM access_tokens t WHERE t.pool_id IS NULL",
        "t.created_at, t.id",
        &[],
        view.into(),
    )
    .await
}

/// Whether a token is an admin's that works, and no other one does.
pub(crate) async fn is_last_admin(
    db: &mut Connection,
    token: &AccessToken,
    now: Millis,
) -> sqlx::Result<bool> {
    if token.pool_id.is_some() || token.is_expired(now) {
        return Ok(false);
    }
    sqlx::query_scalar(
        "SELECT COUNT(*) = 0 FROM access_tokens
         WHERE pool_id IS NULL AND id <> $1 AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(&token.id)
    .bind(now)
    .fetch_one(db)
    .await
}

/// A page of a pool's tokens, oldest first.
pub(crate) async fn list(
    db: &mut Connection,
    pool_id: &str,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<AccessToken>> {
    super::list(
        db,
        "FROM access_tokens t WHERE t.pool_id = $1",
        "t.created_at, t.id",
        &[Some(pool_id)],
        view.into(),
    )
    .await
}

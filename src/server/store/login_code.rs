//! Codes that `terraform login` exchanges for a token, once.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// A code, without its secret.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct LoginCode {
    /// `code-…`.
    pub id: String,
    /// The session of the browser that allowed it.
    pub page_session_id: String,
    /// The SHA-256 of its secret.
    pub secret_hash: String,
    /// What the program's `code_verifier` has to hash to (RFC 7636).
    pub code_challenge: String,
    /// Where the browser took the code.
    pub redirect_uri: String,
    /// The name of the token to make.
    pub token_name: String,
    /// When it stops working.
    pub expires_at: Millis,
}

/// Writes a new code, and deletes those that have expired.
pub(crate) async fn insert(db: &mut Connection, code: &LoginCode, now: Millis) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM login_codes WHERE expires_at <= $1")
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO login_codes
            (id, page_session_id, secret_hash, code_challenge, redirect_uri, token_name,
             expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&code.id)
    .bind(&code.page_session_id)
    .bind(&code.secret_hash)
    .bind(&code.code_challenge)
    .bind(&code.redirect_uri)
    .bind(&code.token_name)
    .bind(code.expires_at)
    .execute(db)
    .await
    .map(drop)
}

/// The code with this id, while it works.
pub(crate) async fn find(
    db: &mut Connection,
    id: &str,
    now: Millis,
) -> sqlx::Result<Option<LoginCode>> {
    sqlx::query_as("SELECT * FROM login_codes WHERE id = $1 AND expires_at > $2")
        .bind(id)
        .bind(now)
        .fetch_optional(db)
        .await
}

/// Deletes a code; whether there was one.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<bool> {
    sqlx::query("DELETE FROM login_codes WHERE id = $1")
        .bind(id)
        .execute(db)
        .await
        .map(|done| done.rows_affected() > 0)
}

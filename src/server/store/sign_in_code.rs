//! Codes that sign one browser in, once.

use super::Connection;
use crate::clock::Millis;

/// Writes a new code.
pub(crate) async fn insert(
    db: &mut Connection,
    id: &str,
    secret_hash: &str,
    expires_at: Millis,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO sign_in_codes (id, secret_hash, expires_at) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(secret_hash)
        .bind(expires_at)
        .execute(db)
        .await
        .map(drop)
}

/// The hash of a code's secret, while the code works.
pub(crate) async fn find(
    db: &mut Connection,
    id: &str,
    now: Millis,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT secret_hash FROM sign_in_codes WHERE id = $1 AND expires_at > $2")
        .bind(id)
        .bind(now)
        .fetch_optional(db)
        .await
}

/// Deletes a code, and those that have expired.
pub(crate) async fn delete(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM sign_in_codes WHERE id = $1 OR expires_at <= $2")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

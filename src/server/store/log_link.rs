//! Links to the logs of plans and applies, for readers who send no token: one for each token
//! that they were shown to, which ends with it.

use super::Connection;
use crate::clock::Millis;

/// The secret of a token's link to a plan's or apply's log: `new`, if it has none yet.
pub(crate) async fn secret(
    db: &mut Connection,
    phase_id: &str,
    access_token_id: &str,
    new: &str,
) -> sqlx::Result<String> {
    sqlx::query(
        "INSERT OR IGNORE INTO log_links (phase_id, access_token_id, secret) VALUES ($1, $2, $3)",
    )
    .bind(phase_id)
    .bind(access_token_id)
    .bind(new)
    .execute(&mut *db)
    .await?;
    sqlx::query_scalar("SELECT secret FROM log_links WHERE phase_id = $1 AND access_token_id = $2")
        .bind(phase_id)
        .bind(access_token_id)
        .fetch_one(db)
        .await
}

/// The same, if there is one.
pub(crate) async fn find(
    db: &mut Connection,
    phase_id: &str,
    access_token_id: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT secret FROM log_links WHERE phase_id = $1 AND access_token_id = $2")
        .bind(phase_id)
        .bind(access_token_id)
        .fetch_optional(db)
        .await
}

/// The secrets of all links to a log whose tokens have not expired.
pub(crate) async fn list(
    db: &mut Connection,
    phase_id: &str,
    now: Millis,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT l.secret FROM log_links l JOIN access_tokens t ON t.id = l.access_token_id
         WHERE l.phase_id = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)",
    )
    .bind(phase_id)
    .bind(now)
    .fetch_all(db)
    .await
}

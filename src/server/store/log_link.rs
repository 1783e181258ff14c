//! Links to the logs of plans and applies, for readers who send no token.

use super::Connection;

/// The secret of the link to a plan's or apply's log: `new`, if it has none yet.
pub(crate) async fn secret(db: &mut Connection, phase_id: &str, new: &str) -> sqlx::Result<String> {
    sqlx::query("INSERT OR IGNORE INTO log_links (phase_id, secret) VALUES ($1, $2)")
        .bind(phase_id)
        .bind(new)
        .execute(&mut *db)
        .await?;
    sqlx::query_scalar("SELECT secret FROM log_links WHERE phase_id = $1")
        .bind(phase_id)
        .fetch_one(db)
        .await
}

/// The same, if it has one.
pub(crate) async fn find(db: &mut Connection, phase_id: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT secret FROM log_links WHERE phase_id = $1")
        .bind(phase_id)
        .fetch_optional(db)
        .await
}

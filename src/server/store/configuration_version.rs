//! Configuration versions: uploaded archives of a workspace's configuration.

use sqlx::FromRow;

use super::{Connection, Listed, Page};
use crate::clock::Millis;

/// A configuration version.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ConfigurationVersion {
    /// `cv-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// Whether its archive is there.
    pub uploaded: bool,
    /// The SHA-256 of the secret in its upload link.
    pub upload_hash: String,
    /// The SHA-256 of its archive, in lower-case hex; none before the upload, and for
    /// one that was uploaded before this was kept.
    pub archive_sha256: Option<String>,
    /// When it was made.
    pub created_at: Millis,
}

/// Writes a new configuration version.
pub(crate) async fn insert(
    db: &mut Connection,
    version: &ConfigurationVersion,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO configuration_versions (id, workspace_id, uploaded, upload_hash, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&version.id)
    .bind(&version.workspace_id)
    .bind(version.uploaded)
    .bind(&version.upload_hash)
    .bind(version.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Remembers that the archive is there; false if there was one already.
pub(crate) async fn set_uploaded(
    db: &mut Connection,
    id: &str,
    archive_sha256: &str,
) -> sqlx::Result<bool> {
    sqlx::query(
        "UPDATE configuration_versions SET uploaded = $2, archive_sha256 = $3
         WHERE id = $1 AND NOT uploaded",
    )
    .bind(id)
    .bind(true)
    .bind(archive_sha256)
    .execute(db)
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The configuration version with this id.
pub(crate) async fn find(
    db: &mut Connection,
    id: &str,
) -> sqlx::Result<Option<ConfigurationVersion>> {
    sqlx::query_as("SELECT * FROM configuration_versions WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// The latest one of a workspace whose archive is there.
pub(crate) async fn latest_uploaded(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Option<ConfigurationVersion>> {
    sqlx::query_as(
        "SELECT * FROM configuration_versions WHERE workspace_id = $1 AND uploaded
         ORDER BY created_at DESC, id LIMIT 1",
    )
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// A page of them, latest first.
pub(crate) async fn list(
    db: &mut Connection,
    workspace: Option<&str>,
    page: Page,
) -> sqlx::Result<Listed<ConfigurationVersion>> {
    super::list(
        db,
        "FROM configuration_versions t WHERE ($1 IS NULL OR t.workspace_id = $1)",
        "t.created_at DESC, t.id",
        &[workspace],
        page,
    )
    .await
}

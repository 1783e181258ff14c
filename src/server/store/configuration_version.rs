//! Configuration versions: uploaded archives of a workspace's configuration.

use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
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
    /// Whether its runs are never applied.
    pub is_speculative: bool,
    /// The SHA-256 of the secret in its upload link.
    pub upload_hash: String,
    /// The SHA-256 of its archive, in lower-case hex; none before the upload, and for
    /// one that was uploaded before this was kept.
    pub archive_sha256: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When retention removed its archive, or closed its upload.
    pub removed_at: Option<Millis>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id"];

/// Writes a new configuration version.
pub(crate) async fn insert(
    db: &mut Connection,
    version: &ConfigurationVersion,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO configuration_versions 
            (id, workspace_id, uploaded, upload_hash, created_at, is_speculative)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&version.id)
    .bind(&version.workspace_id)
    .bind(version.uploaded)
    .bind(&version.upload_hash)
    .bind(version.created_at)
    .bind(version.is_speculative)
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
         WHERE id = $1 AND NOT uploaded AND removed_at IS NULL",
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

/// Up to `limit` archives from before `before` that no run with files needs, and that are
/// not the latest of their workspace for runs that are applied; and uploads from before `unfinished_before` that were
/// never finished.
pub(crate) async fn removable(
    db: &mut Connection,
    before: Millis,
    unfinished_before: Millis,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT id FROM configuration_versions v
         WHERE removed_at IS NULL
           AND ((NOT uploaded AND created_at < $2)
                OR (uploaded AND created_at < $1
                    AND (v.is_speculative OR EXISTS (
                        SELECT 1 FROM configuration_versions w
                        WHERE w.workspace_id = v.workspace_id AND w.uploaded
                          AND w.removed_at IS NULL AND NOT w.is_speculative
                          AND (w.created_at > v.created_at
                               OR (w.created_at = v.created_at AND w.id < v.id))))
                    AND NOT EXISTS (
                        SELECT 1 FROM runs r
                        WHERE r.configuration_version_id = v.id
                          AND r.files_removed_at IS NULL)))
         LIMIT $3",
    )
    .bind(before)
    .bind(unfinished_before)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Remembers that the archive is no longer kept, unless a run needs it by now.
pub(crate) async fn set_removed(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE configuration_versions SET removed_at = $2
         WHERE id = $1 AND NOT EXISTS (
             SELECT 1 FROM runs
             WHERE configuration_version_id = $1 AND files_removed_at IS NULL)",
    )
    .bind(id)
    .bind(now)
    .execute(db)
    .await
    .map(drop)
}

/// The configuration versions of a workspace whose archive is kept.
pub(crate) async fn kept(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Vec<ConfigurationVersion>> {
    sqlx::query_as(
        "SELECT * FROM configuration_versions
         WHERE workspace_id = $1 AND uploaded AND removed_at IS NULL",
    )
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// The latest one of a workspace whose archive is there and whose runs may be applied.
pub(crate) async fn latest_uploaded(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Option<ConfigurationVersion>> {
    sqlx::query_as(
        "SELECT * FROM configuration_versions 
         WHERE workspace_id = $1 AND uploaded AND removed_at IS NULL AND NOT is_speculative
         ORDER BY created_at DESC, id LIMIT 1",
    )
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// The configuration versions with these ids.
pub(crate) async fn with_ids(
    db: &mut Connection,
    ids: &[&str],
) -> sqlx::Result<Vec<ConfigurationVersion>> {
    super::of_any(db, "SELECT * FROM configuration_versions WHERE id", ids, "").await
}

/// A page of them, latest first.
pub(crate) async fn list(
    db: &mut Connection,
    workspace: Option<&str>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<ConfigurationVersion>> {
    super::list(
        db,
        "FROM configuration_versions t WHERE ($1 IS NULL OR t.workspace_id = $1)",
        "t.created_at DESC, t.id",
        &[workspace],
        view.into(),
    )
    .await
}

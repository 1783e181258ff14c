//! State uploads: state versions that clients have announced, and upload later.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// A state upload.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct StateUpload {
    /// `sv-…`: clients know the state version by it.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// The SHA-256 of the secret in its link.
    pub upload_hash: String,
    /// The serial that the client says.
    pub serial: i64,
    /// The lineage that it says, if it does.
    pub lineage: Option<String>,
    /// The MD5 that it says, in lower-case hex.
    pub md5: String,
    /// Whether serial and lineage need not follow the workspace's.
    pub force: bool,
    /// When it was announced.
    pub created_at: Millis,
    /// What came of it; none before the upload.
    pub state_version_id: Option<String>,
}

/// Writes a new upload; those of the workspace from before `old` are forgotten.
pub(crate) async fn insert(
    db: &mut Connection,
    upload: &StateUpload,
    old: Millis,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM state_uploads WHERE workspace_id = $1 AND created_at < $2")
        .bind(&upload.workspace_id)
        .bind(old)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "INSERT INTO state_uploads
            (id, workspace_id, upload_hash, serial, lineage, md5, force, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&upload.id)
    .bind(&upload.workspace_id)
    .bind(&upload.upload_hash)
    .bind(upload.serial)
    .bind(&upload.lineage)
    .bind(&upload.md5)
    .bind(upload.force)
    .bind(upload.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Remembers what came of an upload.
pub(crate) async fn set_state_version(
    db: &mut Connection,
    id: &str,
    state_version_id: &str,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE state_uploads SET state_version_id = $2 WHERE id = $1")
        .bind(id)
        .bind(state_version_id)
        .execute(db)
        .await
        .map(drop)
}

/// The upload with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<StateUpload>> {
    sqlx::query_as("SELECT * FROM state_uploads WHERE id = $1").bind(id).fetch_optional(db).await
}

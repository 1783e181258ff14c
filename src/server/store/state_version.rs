//! State versions: every state that a workspace has had.

use sqlx::FromRow;

use super::status_sets::statement;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A state version; its content is an object.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct StateVersion {
    /// `sv-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// The run that made it, if one did.
    pub run_id: Option<String>,
    /// Its number in the workspace, from 1.
    pub number: i64,
    /// Terraform's own counter.
    pub serial: i64,
    /// What Terraform tells states of different origin apart by.
    pub lineage: String,
    /// The SHA-256 of its content, in hex.
    pub sha256: String,
    /// The length of its content in bytes.
    pub size: i64,
    /// How many resources it holds.
    pub resources: i64,
    /// When it was made.
    pub created_at: Millis,
    /// When retention removed its content.
    pub removed_at: Option<Millis>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at"), ("serial", "t.serial")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id"];

/// Writes a new state version.
pub(crate) async fn insert(db: &mut Connection, version: &StateVersion) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO state_versions
            (id, workspace_id, run_id, number, serial, lineage, sha256, size, resources, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&version.id)
    .bind(&version.workspace_id)
    .bind(&version.run_id)
    .bind(version.number)
    .bind(version.serial)
    .bind(&version.lineage)
    .bind(&version.sha256)
    .bind(version.size)
    .bind(version.resources)
    .bind(version.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Up to `limit` versions with content beyond the newest `keep` of their workspace, of
/// workspaces without a run under way.
pub(crate) async fn removable(
    db: &mut Connection,
    keep: u32,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(statement(
        "SELECT id FROM state_versions v
         WHERE removed_at IS NULL
           AND number <= (SELECT MAX(number) FROM state_versions
                          WHERE workspace_id = v.workspace_id) - $1
           AND NOT EXISTS (
               SELECT 1 FROM runs r
               WHERE r.workspace_id = v.workspace_id AND r.status IN {runs_with_state})
         LIMIT $2",
    ))
    .bind(i64::from(keep))
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Remembers that the content is no longer kept.
pub(crate) async fn set_removed(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE state_versions SET removed_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// The versions of a workspace whose content is kept.
pub(crate) async fn kept(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT id FROM state_versions WHERE workspace_id = $1 AND removed_at IS NULL",
    )
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// The state version with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<StateVersion>> {
    sqlx::query_as("SELECT * FROM state_versions WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The state that a workspace has now, if it ever had one.
pub(crate) async fn current(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Option<StateVersion>> {
    sqlx::query_as(
        "SELECT * FROM state_versions WHERE workspace_id = $1 ORDER BY number DESC LIMIT 1",
    )
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// The states that these workspaces have now.
pub(crate) async fn current_of(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<StateVersion>> {
    super::of_any(
        db,
        "SELECT * FROM state_versions v WHERE number =
            (SELECT MAX(number) FROM state_versions WHERE workspace_id = v.workspace_id)
           AND workspace_id",
        workspaces,
        "",
    )
    .await
}

/// The state versions with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<StateVersion>> {
    super::of_any(db, "SELECT * FROM state_versions WHERE id", ids, "").await
}

/// A page of them, latest first.
pub(crate) async fn list(
    db: &mut Connection,
    workspace: Option<&str>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<StateVersion>> {
    super::list(
        db,
        "FROM state_versions t WHERE ($1 IS NULL OR t.workspace_id = $1)",
        "t.created_at DESC, t.number DESC",
        &[workspace],
        view.into(),
    )
    .await
}

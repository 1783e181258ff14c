//! Tags of workspaces.

use sqlx::FromRow;

use super::workspace::Workspace;
use super::{Connection, Listed, Page};
use crate::token::new_id;

/// A tag of a workspace.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct WorkspaceTag {
    /// The workspace.
    pub workspace_id: String,
    /// Its name, unique in the workspace.
    pub key: String,
    /// Its value; empty if it has none.
    pub value: String,
}

/// Which workspaces of an environment.
#[derive(Clone, Debug)]
pub(crate) struct Search<'a> {
    /// The environment.
    pub environment: &'a str,
    /// With this text in their name.
    pub name: Option<&'a str>,
    /// With all of these tags: a JSON list of objects with `key`, and `value` unless any is
    /// right.
    pub tags: Option<&'a str>,
    /// With none of these tags: the same.
    pub excluded_tags: Option<&'a str>,
}

/// Writes a tag without a value, unless the workspace has it.
pub(crate) async fn insert(db: &mut Connection, workspace_id: &str, key: &str) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO workspace_tags (workspace_id, key, value) VALUES ($1, $2, '')
         ON CONFLICT (workspace_id, key) DO NOTHING",
    )
    .bind(workspace_id)
    .bind(key)
    .execute(db)
    .await
    .map(drop)
}

/// Writes a tag, in the place of the workspace's earlier one with this key.
pub(crate) async fn upsert(db: &mut Connection, tag: &WorkspaceTag) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO tags (id, account_id, name)
         SELECT $1, e.account_id, $2 FROM workspaces w
         JOIN environments e ON e.id = w.environment_id
         WHERE w.id = $3
         ON CONFLICT (account_id, name) DO NOTHING",
    )
    .bind(new_id("tag"))
    .bind(&tag.key)
    .bind(&tag.workspace_id)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO workspace_tags (workspace_id, key, value) VALUES ($1, $2, $3)
         ON CONFLICT (workspace_id, key) DO UPDATE SET value = excluded.value",
    )
    .bind(&tag.workspace_id)
    .bind(&tag.key)
    .bind(&tag.value)
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a tag.
pub(crate) async fn delete(db: &mut Connection, workspace_id: &str, key: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM workspace_tags WHERE workspace_id = $1 AND key = $2")
        .bind(workspace_id)
        .bind(key)
        .execute(db)
        .await
        .map(drop)
}

/// The tags of these workspaces, by key.
pub(crate) async fn of_workspaces(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<WorkspaceTag>> {
    super::of_any(db, "SELECT * FROM workspace_tags WHERE workspace_id", workspaces, "ORDER BY key")
        .await
}

/// A page of an environment's workspaces, by name.
pub(crate) async fn search(
    db: &mut Connection,
    search: &Search<'_>,
    page: Page,
) -> sqlx::Result<Listed<Workspace>> {
    super::list(
        db,
        "FROM workspaces t WHERE t.environment_id = $1
           AND ($2 IS NULL OR INSTR(LOWER(t.name), LOWER($2)) > 0)
           AND NOT EXISTS (
               SELECT 1 FROM json_each(COALESCE($3, '[]')) wanted WHERE NOT EXISTS (
                   SELECT 1 FROM workspace_tags g WHERE g.workspace_id = t.id
                     AND g.key = wanted.value ->> 'key'
                     AND g.value = COALESCE(wanted.value ->> 'value', g.value)))
           AND NOT EXISTS (
               SELECT 1 FROM json_each(COALESCE($4, '[]')) excluded
               JOIN workspace_tags g ON g.workspace_id = t.id
                AND g.key = excluded.value ->> 'key'
                AND g.value = COALESCE(excluded.value ->> 'value', g.value))",
        "t.name, t.id",
        &[Some(search.environment), search.name, search.tags, search.excluded_tags],
        page.into(),
    )
    .await
}

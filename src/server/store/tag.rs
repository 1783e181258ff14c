//! Tags that workspaces and environments can have.

use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};

/// A tag.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Tag {
    /// `tag-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its name, unique in the account.
    pub name: String,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("name", "t.name")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name"];

/// Which tags.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
}

/// Writes a new tag.
pub(crate) async fn insert(db: &mut Connection, tag: &Tag) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO tags (id, account_id, name) VALUES ($1, $2, $3)")
        .bind(&tag.id)
        .bind(&tag.account_id)
        .bind(&tag.name)
        .execute(db)
        .await
        .map(drop)
}

/// Renames a tag, and with it those of workspaces.
pub(crate) async fn rename(db: &mut Connection, tag: &Tag, name: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE tags SET name = $2 WHERE id = $1")
        .bind(&tag.id)
        .bind(name)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE workspace_tags SET key = $2 WHERE key = $1")
        .bind(&tag.name)
        .bind(name)
        .execute(db)
        .await
        .map(drop)
}

/// Deletes a tag, also from those that have it.
pub(crate) async fn delete(db: &mut Connection, tag: &Tag) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM workspace_tags WHERE key = $1")
        .bind(&tag.name)
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM tags WHERE id = $1").bind(&tag.id).execute(db).await.map(drop)
}

/// The tag with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Tag>> {
    sqlx::query_as("SELECT * FROM tags WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The ids and names of all.
pub(crate) async fn names(db: &mut Connection) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, name FROM tags ORDER BY name").fetch_all(db).await
}

/// The tags with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Tag>> {
    super::of_any(db, "SELECT * FROM tags WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Tag>> {
    super::list(
        db,
        "FROM tags t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.account_id = $2)
           AND ($3 IS NULL OR t.name = $3)",
        "t.name",
        &[filter.id, filter.account, filter.name],
        view.into(),
    )
    .await
}

/// These workspaces and the ids of their tags.
pub(crate) async fn of_workspaces(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT w.workspace_id, t.id FROM workspace_tags w JOIN tags t ON t.name = w.key
         WHERE w.workspace_id",
        workspaces,
        "ORDER BY t.name",
    )
    .await
}

/// These environments and the ids of their tags.
pub(crate) async fn of_environments(
    db: &mut Connection,
    environments: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT e.environment_id, t.id FROM environment_tags e JOIN tags t ON t.id = e.tag_id
         WHERE e.environment_id",
        environments,
        "ORDER BY t.name",
    )
    .await
}

/// Tags an environment.
pub(crate) async fn add_to_environment(
    db: &mut Connection,
    environment_id: &str,
    tag: &Tag,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO environment_tags (environment_id, tag_id) VALUES ($1, $2)
         ON CONFLICT (environment_id, tag_id) DO NOTHING",
    )
    .bind(environment_id)
    .bind(&tag.id)
    .execute(db)
    .await
    .map(drop)
}

/// Takes a tag from an environment.
pub(crate) async fn remove_from_environment(
    db: &mut Connection,
    environment_id: &str,
    tag: &Tag,
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM environment_tags WHERE environment_id = $1 AND tag_id = $2")
        .bind(environment_id)
        .bind(&tag.id)
        .execute(db)
        .await
        .map(drop)
}

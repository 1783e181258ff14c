//! Environments: groups of workspaces.

use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// An environment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Environment {
    /// `env-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// The pool of those of its workspaces that have none themselves.
    pub default_pool_id: Option<String>,
    /// When it was made.
    pub created_at: Millis,
}

/// Which environments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at"), ("name", "t.name")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name"];

/// Writes a new environment.
pub(crate) async fn insert(db: &mut Connection, environment: &Environment) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO environments (id, account_id, name, default_pool_id, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&environment.id)
    .bind(&environment.account_id)
    .bind(&environment.name)
    .bind(&environment.default_pool_id)
    .bind(environment.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, environment: &Environment) -> sqlx::Result<()> {
    sqlx::query("UPDATE environments SET name = $2, default_pool_id = $3 WHERE id = $1")
        .bind(&environment.id)
        .bind(&environment.name)
        .bind(&environment.default_pool_id)
        .execute(db)
        .await
        .map(drop)
}

/// Deletes an environment that has no workspaces.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM environments WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The environment with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Environment>> {
    sqlx::query_as("SELECT * FROM environments WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The ids and names of all.
pub(crate) async fn names(db: &mut Connection) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, name FROM environments ORDER BY name, id").fetch_all(db).await
}

/// The environments with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Environment>> {
    super::of_any(db, "SELECT * FROM environments WHERE id", ids, "").await
}

/// An environment with what people ask first about it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Summary {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of its default pool.
    pub default_pool: Option<String>,
    /// How many workspaces it has.
    pub workspaces: i64,
    /// How many variables of its own it has.
    pub variables: i64,
}

/// All of them, by name.
pub(crate) async fn summaries(db: &mut Connection) -> sqlx::Result<Vec<Summary>> {
    sqlx::query_as(
        "SELECT e.id, e.name, p.name AS default_pool,
            (SELECT COUNT(*) FROM workspaces w WHERE w.environment_id = e.id) AS workspaces,
            (SELECT COUNT(*) FROM variables v
             WHERE v.environment_id = e.id AND v.workspace_id IS NULL) AS variables
         FROM environments e LEFT JOIN agent_pools p ON p.id = e.default_pool_id
         ORDER BY e.name, e.id",
    )
    .fetch_all(db)
    .await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Environment>> {
    super::list(
        db,
        "FROM environments t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.name = $2)
           AND ($3 IS NULL OR t.account_id = $3)",
        "t.name",
        &[filter.id, filter.name, filter.account],
        view.into(),
    )
    .await
}

/// The environments whose default a pool is.
pub(crate) async fn with_default_pool(
    db: &mut Connection,
    pool_id: &str,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT id FROM environments WHERE default_pool_id = $1 ORDER BY id")
        .bind(pool_id)
        .fetch_all(db)
        .await
}

/// These pools and the environments whose default they are.
pub(crate) async fn with_default_pools(
    db: &mut Connection,
    pools: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT default_pool_id, id FROM environments WHERE default_pool_id",
        pools,
        "ORDER BY id",
    )
    .await
}

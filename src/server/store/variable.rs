//! Workspaces' variables.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;
use protocol::Secret;

/// A variable.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Variable {
    /// `var-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// Its name, unique in the workspace and category.
    pub key: String,
    /// Its value.
    #[sqlx(try_from = "String")]
    pub value: Value,
    /// What kind of variable it is.
    pub category: Category,
    /// Whether the value is an expression.
    pub hcl: bool,
    /// Whether the value is never shown again.
    pub sensitive: bool,
    /// What it is for, for people.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Millis,
}

/// A value, masked where it could get into a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value(pub Secret);

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

/// What kind of variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum Category {
    /// A variable of the configuration.
    Terraform,
    /// A variable of the run's environment.
    #[serde(alias = "env")]
    Shell,
}

impl From<Category> for protocol::Category {
    fn from(category: Category) -> Self {
        match category {
            Category::Terraform => Self::Terraform,
            Category::Shell => Self::Shell,
        }
    }
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts =
    &[("category", "t.category"), ("created-at", "t.created_at"), ("key", "t.key")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.key", "t.description"];

/// Which variables.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this workspace.
    pub workspace: Option<&'a str>,
    /// With this name.
    pub key: Option<&'a str>,
    /// Of this category.
    pub category: Option<&'a str>,
}

/// Writes a new variable.
pub(crate) async fn insert(db: &mut Connection, variable: &Variable) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO variables
            (id, workspace_id, key, value, category, hcl, sensitive, description, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&variable.id)
    .bind(&variable.workspace_id)
    .bind(&variable.key)
    .bind(variable.value.0.expose())
    .bind(variable.category)
    .bind(variable.hcl)
    .bind(variable.sensitive)
    .bind(&variable.description)
    .bind(variable.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, variable: &Variable) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE variables SET key = $2, value = $3, category = $4, hcl = $5, sensitive = $6,
            description = $7
         WHERE id = $1",
    )
    .bind(&variable.id)
    .bind(&variable.key)
    .bind(variable.value.0.expose())
    .bind(variable.category)
    .bind(variable.hcl)
    .bind(variable.sensitive)
    .bind(&variable.description)
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a variable.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM variables WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The variable with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Variable>> {
    sqlx::query_as("SELECT * FROM variables WHERE id = $1").bind(id).fetch_optional(db).await
}

/// All variables of a workspace, by name.
pub(crate) async fn of_workspace(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Vec<Variable>> {
    sqlx::query_as("SELECT * FROM variables WHERE workspace_id = $1 ORDER BY key, category")
        .bind(workspace_id)
        .fetch_all(db)
        .await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Variable>> {
    super::list(
        db,
        "FROM variables t WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.workspace_id = $2) AND ($3 IS NULL OR t.key = $3)
           AND ($4 IS NULL OR t.category = $4)",
        "t.key, t.id",
        &[filter.id, filter.workspace, filter.key, filter.category],
        view.into(),
    )
    .await
}

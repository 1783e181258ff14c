//! Variables of the account, of environments and of workspaces.

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
    /// Its account.
    pub account_id: String,
    /// Its environment; none: it belongs to the account.
    pub environment_id: Option<String>,
    /// Its workspace, which is in its environment; none: it belongs to a wider scope.
    pub workspace_id: Option<String>,
    /// The tag that workspaces need to get it; none: all of its scope get it.
    pub tag_id: Option<String>,
    /// That tag's name, where [`reaching`] read it.
    #[sqlx(default)]
    pub tag: Option<String>,
    /// Its name, unique in its scope and category and with its tag.
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
    /// Whether narrower scopes may not have another one with its key and category.
    pub is_final: bool,
    /// What it is for, for people.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// Who gets a variable, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// All workspaces of the account.
    Account,
    /// All workspaces of an environment.
    Environment,
    /// One workspace.
    Workspace,
}

impl Variable {
    /// How narrow it is, to be compared: one with a tag is narrower than others of its scope.
    pub(crate) fn rank(&self) -> (Scope, bool) {
        (self.scope(), self.tag_id.is_some())
    }

    /// Who gets it.
    pub(crate) fn scope(&self) -> Scope {
        match (&self.environment_id, &self.workspace_id) {
            (_, Some(_)) => Scope::Workspace,
            (Some(_), None) => Scope::Environment,
            (None, None) => Scope::Account,
        }
    }
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
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
pub(crate) const SORTS: Sorts = &[
    ("category", "t.category"),
    ("created-at", "t.created_at"),
    ("key", "t.key"),
    ("updated-at", "t.updated_at"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.key", "t.description"];

/// Which variables. The ids and keys are JSON lists of those that match.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// Of one of these environments and their workspaces; null: of the account.
    pub environments: Option<&'a str>,
    /// Of one of these workspaces; null: of a wider scope.
    pub workspaces: Option<&'a str>,
    /// With one of these names.
    pub keys: Option<&'a str>,
    /// Of this category.
    pub category: Option<&'a str>,
    /// With one of these tags; null: with none.
    pub tags: Option<&'a str>,
}

/// Writes a new variable.
pub(crate) async fn insert(db: &mut Connection, variable: &Variable) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO variables
            (id, account_id, environment_id, workspace_id, key, value, category, hcl, sensitive,
             is_final, description, created_at, updated_at, tag_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&variable.id)
    .bind(&variable.account_id)
    .bind(&variable.environment_id)
    .bind(&variable.workspace_id)
    .bind(&variable.key)
    .bind(variable.value.0.expose())
    .bind(variable.category)
    .bind(variable.hcl)
    .bind(variable.sensitive)
    .bind(variable.is_final)
    .bind(&variable.description)
    .bind(variable.created_at)
    .bind(variable.updated_at)
    .bind(&variable.tag_id)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, variable: &Variable) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE variables SET key = $2, value = $3, category = $4, hcl = $5, sensitive = $6,
            is_final = $7, description = $8, updated_at = $9
         WHERE id = $1",
    )
    .bind(&variable.id)
    .bind(&variable.key)
    .bind(variable.value.0.expose())
    .bind(variable.category)
    .bind(variable.hcl)
    .bind(variable.sensitive)
    .bind(variable.is_final)
    .bind(&variable.description)
    .bind(variable.updated_at)
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

/// All variables that a workspace has or inherits, by name. A workspace has the tags of its
/// environment, too.
pub(crate) async fn reaching(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Vec<Variable>> {
    sqlx::query_as(
        "SELECT v.*, t.name AS tag FROM workspaces w
         JOIN environments e ON e.id = w.environment_id
         JOIN variables v ON v.account_id = e.account_id
          AND (v.environment_id IS NULL OR v.environment_id = e.id)
          AND (v.workspace_id IS NULL OR v.workspace_id = w.id)
         LEFT JOIN tags t ON t.id = v.tag_id
         WHERE w.id = $1
           AND (v.tag_id IS NULL
                OR EXISTS (SELECT 1 FROM workspace_tags g
                           WHERE g.workspace_id = w.id AND g.key = t.name)
                OR EXISTS (SELECT 1 FROM environment_tags g
                           WHERE g.environment_id = e.id AND g.tag_id = v.tag_id))
         ORDER BY v.key, v.category",
    )
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// The variables with the key and category of this one whose scope is within its scope or
/// around it.
pub(crate) async fn related(
    db: &mut Connection,
    variable: &Variable,
) -> sqlx::Result<Vec<Variable>> {
    sqlx::query_as(
        "SELECT * FROM variables WHERE id <> $1 AND account_id = $2
           AND ($3 IS NULL OR environment_id IS NULL OR environment_id = $3)
           AND ($4 IS NULL OR workspace_id IS NULL OR workspace_id = $4)
           AND category = $5 AND key = $6
         ORDER BY id",
    )
    .bind(&variable.id)
    .bind(&variable.account_id)
    .bind(&variable.environment_id)
    .bind(&variable.workspace_id)
    .bind(variable.category)
    .bind(&variable.key)
    .fetch_all(db)
    .await
}

/// How many variables, and how many bytes of values, one workspace in the scope of this
/// variable gets at most, with those that it inherits. Those with a tag count for all: a
/// workspace can get any tag later.
pub(crate) async fn most_in_scope(
    db: &mut Connection,
    variable: &Variable,
) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(
        "WITH scopes AS (
            SELECT id AS account_id, '' AS environment_id, '' AS workspace_id FROM accounts
            UNION ALL SELECT account_id, id, '' FROM environments
            UNION ALL SELECT e.account_id, e.id, w.id
             FROM workspaces w JOIN environments e ON e.id = w.environment_id)
         SELECT COALESCE(MAX(variables), 0), COALESCE(MAX(bytes), 0) FROM (
            SELECT COUNT(*) AS variables, SUM(LENGTH(CAST(v.value AS BLOB))) AS bytes
            FROM scopes s JOIN variables v ON v.account_id = s.account_id
             AND (v.environment_id IS NULL OR v.environment_id = s.environment_id)
             AND (v.workspace_id IS NULL OR v.workspace_id = s.workspace_id)
            WHERE s.account_id = $1 AND ($2 IS NULL OR s.environment_id = $2)
              AND ($3 IS NULL OR s.workspace_id = $3)
            GROUP BY s.account_id, s.environment_id, s.workspace_id)",
    )
    .bind(&variable.account_id)
    .bind(&variable.environment_id)
    .bind(&variable.workspace_id)
    .fetch_one(db)
    .await
}

/// The variables with a tag, by name.
pub(crate) async fn of_tag(db: &mut Connection, tag_id: &str) -> sqlx::Result<Vec<Variable>> {
    sqlx::query_as("SELECT * FROM variables WHERE tag_id = $1 ORDER BY key, id")
        .bind(tag_id)
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
        "FROM variables t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.account_id = $2)
           AND ($3 IS NULL OR EXISTS (SELECT 1 FROM json_each($3) j WHERE j.value IS t.environment_id))
           AND ($4 IS NULL OR EXISTS (SELECT 1 FROM json_each($4) j WHERE j.value IS t.workspace_id))
           AND ($5 IS NULL OR EXISTS (SELECT 1 FROM json_each($5) j WHERE j.value = t.key))
           AND ($6 IS NULL OR t.category = $6)
           AND ($7 IS NULL OR EXISTS (SELECT 1 FROM json_each($7) j WHERE j.value IS t.tag_id))",
        "t.key, t.id",
        &[
            filter.id,
            filter.account,
            filter.environments,
            filter.workspaces,
            filter.keys,
            filter.category,
            filter.tags,
        ],
        view.into(),
    )
    .await
}

//! Workspaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;
use protocol::Hook;

/// A workspace.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Workspace {
    /// `ws-…`.
    pub id: String,
    /// Its environment.
    pub environment_id: String,
    /// Its pool, if it is linked to one itself.
    pub pool_id: Option<String>,
    /// Its name, unique in the environment.
    pub name: String,
    /// What runs its configurations; none: what the image has, Terraform if it has both.
    pub iac_platform: Option<IacPlatform>,
    /// The Terraform version it asks for; none: the image's.
    pub terraform_version: Option<String>,
    /// Whether its runs may use another one.
    pub allow_other_terraform_version: bool,
    /// Where in the configuration Terraform is started; none: at its top.
    pub working_directory: Option<String>,
    /// The image of its runs, if it has its own.
    pub image: Option<String>,
    /// What its runs do before and after their steps.
    #[sqlx(try_from = "String")]
    pub hooks: Hooks,
    /// Whether its plans are applied without asking.
    pub auto_apply: bool,
    /// Whether it can't be deleted while it has resources.
    pub deletion_protection: bool,
    /// How long its plans may run, in seconds; none: as long as the server says.
    pub plan_timeout: Option<u32>,
    /// The same of its applies.
    pub apply_timeout: Option<u32>,
    /// Why no run of it starts until it is unlocked, if that is so.
    pub lock_reason: Option<String>,
    /// The admin's token that locked it; none: the server did, or nobody.
    pub locked_by: Option<String>,
    /// Where its plans and applies run.
    pub execution_mode: ExecutionMode,
    /// Whether all workspaces of its environment may read its state.
    pub remote_state_sharing: bool,
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// Where plans and applies run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum ExecutionMode {
    /// On the agents of a pool.
    #[default]
    Remote,
    /// On the client's machine; only the state is here.
    Local,
}

/// What runs configurations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum IacPlatform {
    /// Terraform.
    #[default]
    Terraform,
    /// OpenTofu.
    OpenTofu,
}

impl From<IacPlatform> for protocol::Platform {
    fn from(platform: IacPlatform) -> Self {
        match platform {
            IacPlatform::Terraform => Self::Terraform,
            IacPlatform::OpenTofu => Self::OpenTofu,
        }
    }
}

/// Commands by their place; kept as a JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hooks(pub BTreeMap<Hook, String>);

impl Hooks {
    fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("names and texts have a form in JSON")
    }
}

impl TryFrom<String> for Hooks {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, Self::Error> {
        serde_json::from_str(&json).map(Self)
    }
}

/// Which workspaces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
    /// In this environment.
    pub environment: Option<&'a str>,
    /// Linked to this pool.
    pub pool: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// That may read the state of this one though it does not share it with all.
    pub consumer_of: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[
    ("created-at", "t.created_at"),
    ("name", "t.name"),
    ("terraform-version", "t.terraform_version"),
    ("updated-at", "t.updated_at"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name"];

/// Writes a new workspace.
pub(crate) async fn insert(db: &mut Connection, workspace: &Workspace) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO workspaces
            (id, environment_id, pool_id, name, terraform_version, working_directory, image,
             auto_apply, deletion_protection, created_at, updated_at, hooks,
             allow_other_terraform_version, plan_timeout, apply_timeout, execution_mode,
             iac_platform, remote_state_sharing)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
             $18)",
    )
    .bind(&workspace.id)
    .bind(&workspace.environment_id)
    .bind(&workspace.pool_id)
    .bind(&workspace.name)
    .bind(&workspace.terraform_version)
    .bind(&workspace.working_directory)
    .bind(&workspace.image)
    .bind(workspace.auto_apply)
    .bind(workspace.deletion_protection)
    .bind(workspace.created_at)
    .bind(workspace.updated_at)
    .bind(workspace.hooks.to_json())
    .bind(workspace.allow_other_terraform_version)
    .bind(workspace.plan_timeout)
    .bind(workspace.apply_timeout)
    .bind(workspace.execution_mode)
    .bind(workspace.iac_platform)
    .bind(workspace.remote_state_sharing)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, workspace: &Workspace) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE workspaces SET
            pool_id = $2, name = $3, terraform_version = $4, working_directory = $5, image = $6,
            auto_apply = $7, deletion_protection = $8, updated_at = $9, hooks = $10,
            allow_other_terraform_version = $11, plan_timeout = $12, apply_timeout = $13,
            execution_mode = $14, iac_platform = $15, remote_state_sharing = $16
         WHERE id = $1",
    )
    .bind(&workspace.id)
    .bind(&workspace.pool_id)
    .bind(&workspace.name)
    .bind(&workspace.terraform_version)
    .bind(&workspace.working_directory)
    .bind(&workspace.image)
    .bind(workspace.auto_apply)
    .bind(workspace.deletion_protection)
    .bind(workspace.updated_at)
    .bind(workspace.hooks.to_json())
    .bind(workspace.allow_other_terraform_version)
    .bind(workspace.plan_timeout)
    .bind(workspace.apply_timeout)
    .bind(workspace.execution_mode)
    .bind(workspace.iac_platform)
    .bind(workspace.remote_state_sharing)
    .execute(db)
    .await
    .map(drop)
}

/// Locks a workspace for a reason, or unlocks it; `locked_by` is the admin's token that
/// locks it, if one does.
pub(crate) async fn set_lock(
    db: &mut Connection,
    id: &str,
    reason: Option<&str>,
    locked_by: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE workspaces SET lock_reason = $2, locked_by = $3 WHERE id = $1")
        .bind(id)
        .bind(reason)
        .bind(locked_by)
        .execute(db)
        .await
        .map(drop)
}

/// Which of these workspaces are locked, and why.
pub(crate) async fn locks_of(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT id, lock_reason FROM workspaces WHERE lock_reason IS NOT NULL AND id",
        workspaces,
        "",
    )
    .await
}

/// How much goes with a workspace that is deleted.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Contents {
    /// State versions.
    pub states: i64,
    /// Runs, with their logs.
    pub runs: i64,
    /// Its own variables.
    pub variables: i64,
}

/// What goes with a workspace that is deleted.
pub(crate) async fn contents(db: &mut Connection, id: &str) -> sqlx::Result<Contents> {
    sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM state_versions WHERE workspace_id = $1) AS states,
            (SELECT COUNT(*) FROM runs WHERE workspace_id = $1) AS runs,
            (SELECT COUNT(*) FROM variables WHERE workspace_id = $1) AS variables",
    )
    .bind(id)
    .fetch_one(db)
    .await
}

/// Deletes a workspace with everything of it.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    // Runs refer to configuration versions, which the cascade deletes too, in
    // an order of its own.
    sqlx::query("DELETE FROM runs WHERE workspace_id = $1").bind(id).execute(&mut *db).await?;
    sqlx::query("DELETE FROM workspaces WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The workspace with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Workspace>> {
    sqlx::query_as("SELECT * FROM workspaces WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The ids and names of all.
pub(crate) async fn names(db: &mut Connection) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, name FROM workspaces ORDER BY name, id").fetch_all(db).await
}

/// The workspaces that are linked to a pool.
pub(crate) async fn of_pool(db: &mut Connection, pool_id: &str) -> sqlx::Result<Vec<Workspace>> {
    sqlx::query_as("SELECT * FROM workspaces WHERE pool_id = $1 ORDER BY id")
        .bind(pool_id)
        .fetch_all(db)
        .await
}

/// The pools and ids of the workspaces that are linked to these pools.
pub(crate) async fn ids_of_pools(
    db: &mut Connection,
    pools: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(db, "SELECT pool_id, id FROM workspaces WHERE pool_id", pools, "ORDER BY id")
        .await
}

/// A page of those of an environment with `name` in their names, by environment and name.
pub(crate) async fn search(
    db: &mut Connection,
    environment_id: Option<&str>,
    name: Option<&str>,
    page: super::Page,
) -> sqlx::Result<Listed<Workspace>> {
    super::list(
        db,
        "FROM workspaces t JOIN environments e ON e.id = t.environment_id
         WHERE ($1 IS NULL OR t.environment_id = $1)
           AND ($2 IS NULL OR instr(lower(t.name), lower($2)) > 0)",
        "e.name, t.name, t.id",
        &[environment_id, name],
        page.into(),
    )
    .await
}

/// The names of these workspaces by their ids.
pub(crate) async fn names_of(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(db, "SELECT id, name FROM workspaces WHERE id", workspaces, "").await
}

/// The workspaces with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Workspace>> {
    super::of_any(db, "SELECT * FROM workspaces WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Workspace>> {
    super::list(
        db,
        "FROM workspaces t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.name = $2)
           AND ($3 IS NULL OR t.environment_id = $3) AND ($4 IS NULL OR t.pool_id = $4)
           AND ($5 IS NULL OR t.environment_id IN
                (SELECT id FROM environments WHERE account_id = $5))
           AND ($6 IS NULL OR EXISTS (
                SELECT 1 FROM remote_state_consumers c
                WHERE c.workspace_id = $6 AND c.consumer_id = t.id))",
        "t.name, t.id",
        &[
            filter.id,
            filter.name,
            filter.environment,
            filter.pool,
            filter.account,
            filter.consumer_of,
        ],
        view.into(),
    )
    .await
}

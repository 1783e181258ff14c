//! Agent pools, and which environments may use them.

use sqlx::FromRow;

use super::webhook::Webhook;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A pool.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AgentPool {
    /// `apool-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// Whether it is the account's default.
    pub is_default: bool,
    /// Whether every environment may use it.
    pub is_shared: bool,
    /// The image of its runs, unless a workspace has its own.
    pub image: Option<String>,
    /// How many runs it executes at once; none: as many as its agents have slots.
    pub max_concurrency: Option<i64>,
    /// Whether its queued tasks are announced.
    pub webhook_enabled: bool,
    /// Where they are announced.
    #[sqlx(try_from = "String")]
    pub webhook: Webhook,
    /// When it was made.
    pub created_at: Millis,
}

/// Which pools.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
    /// That this environment may use.
    pub environment: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// `true`: shared with all environments; `false`: not.
    pub is_shared: Option<&'a str>,
    /// `true`: a workspace or an environment is linked to it; `false`: none is.
    pub in_use: Option<&'a str>,
    /// `true`: for version control, which no pool is; `false`: not.
    pub vcs_enabled: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[
    ("created-at", "t.created_at"),
    ("default", "t.is_default"),
    (
        "in-use",
        "(EXISTS (SELECT 1 FROM workspaces w WHERE w.pool_id = t.id) OR EXISTS (SELECT 1 FROM environments e WHERE e.default_pool_id = t.id))",
    ),
    ("is-shared", "t.is_shared"),
    ("name", "t.name"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name"];

/// Writes a new pool.
pub(crate) async fn insert(db: &mut Connection, pool: &AgentPool) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO agent_pools
            (id, account_id, name, is_default, is_shared, image, created_at, webhook_enabled,
             webhook, max_concurrency)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&pool.id)
    .bind(&pool.account_id)
    .bind(&pool.name)
    .bind(pool.is_default)
    .bind(pool.is_shared)
    .bind(&pool.image)
    .bind(pool.created_at)
    .bind(pool.webhook_enabled)
    .bind(pool.webhook.to_json())
    .bind(pool.max_concurrency)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, pool: &AgentPool) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE agent_pools SET name = $2, is_default = $3, is_shared = $4, image = $5,
            webhook_enabled = $6, webhook = $7, max_concurrency = $8
         WHERE id = $1",
    )
    .bind(&pool.id)
    .bind(&pool.name)
    .bind(pool.is_default)
    .bind(pool.is_shared)
    .bind(&pool.image)
    .bind(pool.webhook_enabled)
    .bind(pool.webhook.to_json())
    .bind(pool.max_concurrency)
    .execute(db)
    .await
    .map(drop)
}

/// Takes the account's default away from the pool that has it.
pub(crate) async fn clear_default(db: &mut Connection, account_id: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE agent_pools SET is_default = $2 WHERE account_id = $1 AND is_default")
        .bind(account_id)
        .bind(false)
        .execute(db)
        .await
        .map(drop)
}

/// Deletes a pool that nothing uses, with its tokens and agents.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM agent_pools WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The pool with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<AgentPool>> {
    sqlx::query_as("SELECT * FROM agent_pools WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The account's default pool.
pub(crate) async fn find_default(
    db: &mut Connection,
    account_id: &str,
) -> sqlx::Result<Option<AgentPool>> {
    sqlx::query_as("SELECT * FROM agent_pools WHERE account_id = $1 AND is_default")
        .bind(account_id)
        .fetch_optional(db)
        .await
}

/// The ids and names of all.
pub(crate) async fn names(db: &mut Connection) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, name FROM agent_pools ORDER BY name, id").fetch_all(db).await
}

/// The pools with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<AgentPool>> {
    super::of_any(db, "SELECT * FROM agent_pools WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<AgentPool>> {
    super::list(
        db,
        "FROM agent_pools t
         WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.name = $2)
           AND ($3 IS NULL OR t.is_shared OR t.id IN
                (SELECT pool_id FROM pool_environments WHERE environment_id = $3))
           AND ($4 IS NULL OR t.account_id = $4)
           AND ($5 IS NULL OR t.is_shared = ($5 = 'true'))
           AND ($6 IS NULL OR ($6 = 'true') =
                (EXISTS (SELECT 1 FROM workspaces w WHERE w.pool_id = t.id)
                 OR EXISTS (SELECT 1 FROM environments e WHERE e.default_pool_id = t.id)))
           AND ($7 IS NULL OR $7 = 'false')",
        "t.name",
        &[
            filter.id,
            filter.name,
            filter.environment,
            filter.account,
            filter.is_shared,
            filter.in_use,
            filter.vcs_enabled,
        ],
        view.into(),
    )
    .await
}

/// The environments that may use a pool that is not shared with all.
pub(crate) async fn environments(db: &mut Connection, pool_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT environment_id FROM pool_environments WHERE pool_id = $1 ORDER BY environment_id",
    )
    .bind(pool_id)
    .fetch_all(db)
    .await
}

/// These pools and the environments that may use them.
pub(crate) async fn environments_of(
    db: &mut Connection,
    pools: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT pool_id, environment_id FROM pool_environments WHERE pool_id",
        pools,
        "ORDER BY environment_id",
    )
    .await
}

/// Replaces the environments that may use a pool.
pub(crate) async fn set_environments(
    db: &mut Connection,
    pool_id: &str,
    environments: &[String],
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM pool_environments WHERE pool_id = $1")
        .bind(pool_id)
        .execute(&mut *db)
        .await?;
    for environment in environments {
        sqlx::query("INSERT INTO pool_environments (pool_id, environment_id) VALUES ($1, $2)")
            .bind(pool_id)
            .bind(environment)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Whether the environment may use the pool.
pub(crate) async fn is_usable_by(
    db: &mut Connection,
    pool: &AgentPool,
    environment_id: &str,
) -> sqlx::Result<bool> {
    Ok(pool.is_shared
        || environments(db, &pool.id).await?.iter().any(|allowed| allowed == environment_id))
}

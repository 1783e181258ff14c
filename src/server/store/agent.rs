//! Agents.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::session::End;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// An agent, as it described itself when it registered last.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Agent {
    /// `agent-…`.
    pub id: String,
    /// Its pool.
    pub pool_id: String,
    /// Its name, unique in the pool.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its system, for example `centos_8`.
    pub os: String,
    /// How it runs tasks.
    pub driver: String,
    /// What it runs in itself: `vm` or `docker`.
    pub runtime: String,
    /// Its system and processor, for example `linux_amd64`.
    pub platform: String,
    /// How many tasks it runs at once.
    pub concurrency: i64,
    /// What its host has, in MB; none: it did not say.
    pub host_memory: Option<i64>,
    /// What each of its runs may use, in MB.
    pub run_memory: Option<i64>,
    /// What it can do ([`protocol::LEVEL`]).
    pub level: i64,
    /// Whether it is registered: it has not taken its leave.
    pub connected: bool,
    /// Whether it says that it can run nothing.
    pub errored: bool,
    /// What it says is wrong.
    pub error_message: Option<String>,
    /// Its machine's id; none: the agent is too old to say.
    pub machine_id: Option<String>,
    /// The machine's boot.
    pub boot_id: Option<String>,
    /// Since when it is offered nothing, because somebody drains it. A registration changes
    /// nothing in that.
    pub draining_since: Option<Millis>,
    /// When it registered first.
    pub created_at: Millis,
    /// When it was last seen, as of the last save; the scheduler knows better.
    pub last_seen_at: Millis,
}

/// Whether an agent can have tasks, as webhooks say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum Health {
    /// It is there.
    Online,
    /// It has left, or was not seen for too long.
    Offline,
    /// It is there, and says that it can run nothing.
    Errored,
}

impl Health {
    /// As clients know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Errored => "errored",
        }
    }
}

/// An agent, and what webhooks were last called for about it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Announced {
    /// The agent.
    #[sqlx(flatten)]
    pub agent: Agent,
    /// What was announced last; of a new agent, that it is online.
    pub announced: Health,
    /// When that was; none: nothing was.
    pub announced_at: Option<Millis>,
}

/// Which agents.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this pool.
    pub pool: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[
    ("created-at", "t.created_at"),
    ("last-seen-at", "t.last_seen_at"),
    ("name", "t.name"),
    ("os", "t.os"),
    ("version", "t.version"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name", "t.os"];

/// Writes an agent, in the place of the one of its pool that has its id.
pub(crate) async fn upsert(db: &mut Connection, agent: &Agent) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO agents
            (id, pool_id, name, version, os, driver, platform, concurrency, connected, errored,
             error_message, created_at, last_seen_at, machine_id, boot_id, level, host_memory,
             run_memory, runtime)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
         ON CONFLICT (id) DO UPDATE SET
            version = excluded.version, os = excluded.os, driver = excluded.driver,
            platform = excluded.platform, concurrency = excluded.concurrency,
            connected = excluded.connected,
            errored = excluded.errored, error_message = excluded.error_message,
            last_seen_at = excluded.last_seen_at, machine_id = excluded.machine_id,
            boot_id = excluded.boot_id, level = excluded.level,
            host_memory = excluded.host_memory, run_memory = excluded.run_memory,
            runtime = excluded.runtime",
    )
    .bind(&agent.id)
    .bind(&agent.pool_id)
    .bind(&agent.name)
    .bind(&agent.version)
    .bind(&agent.os)
    .bind(&agent.driver)
    .bind(&agent.platform)
    .bind(agent.concurrency)
    .bind(agent.connected)
    .bind(agent.errored)
    .bind(&agent.error_message)
    .bind(agent.created_at)
    .bind(agent.last_seen_at)
    .bind(&agent.machine_id)
    .bind(&agent.boot_id)
    .bind(agent.level)
    .bind(agent.host_memory)
    .bind(agent.run_memory)
    .bind(&agent.runtime)
    .execute(db)
    .await
    .map(drop)
}

/// Remembers when an agent was last seen.
pub(crate) async fn touch(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE agents SET last_seen_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// Remembers how an agent says that it is.
pub(crate) async fn set_health(
    db: &mut Connection,
    id: &str,
    errored: bool,
    error_message: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE agents SET errored = $2, error_message = $3 WHERE id = $1")
        .bind(id)
        .bind(errored)
        .bind(error_message)
        .execute(db)
        .await
        .map(drop)
}

/// Drains an agent since a time, or lets it have tasks again.
pub(crate) async fn set_draining(
    db: &mut Connection,
    id: &str,
    since: Option<Millis>,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE agents SET draining_since = $2 WHERE id = $1")
        .bind(id)
        .bind(since)
        .execute(db)
        .await
        .map(drop)
}

/// Remembers that an agent has taken its leave.
pub(crate) async fn disconnect(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE agents SET connected = $2, last_seen_at = $3 WHERE id = $1")
        .bind(id)
        .bind(false)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// Brings what was seen later than `now`, by a clock that was set back since, to
/// `now`.
pub(crate) async fn forget_future(db: &mut Connection, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE agents SET last_seen_at = $1 WHERE last_seen_at > $1")
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// Deletes an agent with its sessions.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM agents WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// Deletes the agents that were last seen before `before` and have no task; how
/// many they were.
pub(crate) async fn delete_silent(db: &mut Connection, before: Millis) -> sqlx::Result<u64> {
    sqlx::query(
        "DELETE FROM agents WHERE last_seen_at < $1 AND id NOT IN
            (SELECT agent_id FROM tasks WHERE agent_id IS NOT NULL AND ended_at IS NULL)",
    )
    .bind(before)
    .execute(db)
    .await
    .map(|done| done.rows_affected())
}

/// The agent with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Agent>> {
    sqlx::query_as("SELECT * FROM agents WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The agent of a pool with this name.
pub(crate) async fn find_named(
    db: &mut Connection,
    pool_id: &str,
    name: &str,
) -> sqlx::Result<Option<Agent>> {
    sqlx::query_as("SELECT * FROM agents WHERE pool_id = $1 AND name = $2")
        .bind(pool_id)
        .bind(name)
        .fetch_optional(db)
        .await
}

/// All agents.
pub(crate) async fn all(db: &mut Connection) -> sqlx::Result<Vec<Agent>> {
    sqlx::query_as("SELECT * FROM agents").fetch_all(db).await
}

/// All agents, with what was announced of them.
pub(crate) async fn announced(db: &mut Connection) -> sqlx::Result<Vec<Announced>> {
    sqlx::query_as("SELECT * FROM agents ORDER BY id").fetch_all(db).await
}

/// Remembers what is announced of an agent; whether the agent is still known.
pub(crate) async fn announce(
    db: &mut Connection,
    id: &str,
    health: Health,
    now: Millis,
) -> sqlx::Result<bool> {
    sqlx::query("UPDATE agents SET announced = $2, announced_at = $3 WHERE id = $1")
        .bind(id)
        .bind(health)
        .bind(now)
        .execute(db)
        .await
        .map(|done| done.rows_affected() > 0)
}

/// The agents of these pools.
pub(crate) async fn of_pools(db: &mut Connection, pools: &[&str]) -> sqlx::Result<Vec<Agent>> {
    super::of_any(db, "SELECT * FROM agents WHERE pool_id", pools, "ORDER BY id").await
}

/// The agents that registered with a token and have not registered with another one since, by
/// name.
pub(crate) async fn of_token(db: &mut Connection, token_id: &str) -> sqlx::Result<Vec<Agent>> {
    sqlx::query_as(
        "SELECT * FROM agents WHERE id IN
            (SELECT agent_id FROM sessions WHERE access_token_id = $1
               AND (end_reason IS NULL OR end_reason = $2))
         ORDER BY name, id",
    )
    .bind(token_id)
    .bind(End::Left)
    .fetch_all(db)
    .await
}

/// The agents with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Agent>> {
    super::of_any(db, "SELECT * FROM agents WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Agent>> {
    super::list(
        db,
        "FROM agents t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.pool_id = $2)
           AND ($3 IS NULL OR t.name = $3)",
        "t.name, t.id",
        &[filter.id, filter.pool, filter.name],
        view.into(),
    )
    .await
}

/// What the registered agents of these pools can do: (pool, [`Agent::level`]).
pub(crate) async fn levels_of(
    db: &mut Connection,
    pools: &[&str],
) -> sqlx::Result<Vec<(String, i64)>> {
    super::of_any(
        db,
        "SELECT pool_id, MAX(level) FROM agents WHERE connected AND pool_id",
        pools,
        "GROUP BY pool_id",
    )
    .await
}

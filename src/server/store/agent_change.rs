//! How the health of agents changed.

use serde::Serialize;
use sqlx::FromRow;

use super::Connection;
use super::agent::Health;
use crate::clock::Millis;
use crate::token::new_id;

/// How many changes of an agent are kept.
const KEPT: i64 = 100;

/// A change of an agent's health.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub(crate) struct AgentChange {
    /// What it is from then on.
    pub health: Health,
    /// Whether an agent that is offline has taken its leave.
    pub left_itself: bool,
    /// Why one that is errored can run nothing.
    pub error: Option<String>,
    /// When it was first seen to be so.
    pub happened_at: Millis,
}

/// Writes a change of an agent, and forgets the oldest ones.
pub(crate) async fn insert(
    db: &mut Connection,
    agent_id: &str,
    change: &AgentChange,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO agent_changes (id, agent_id, health, left_itself, error, happened_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(new_id("change"))
    .bind(agent_id)
    .bind(change.health)
    .bind(change.left_itself)
    .bind(&change.error)
    .bind(change.happened_at)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM agent_changes WHERE agent_id = $1 AND id NOT IN
            (SELECT id FROM agent_changes WHERE agent_id = $1
             ORDER BY happened_at DESC, id LIMIT $2)",
    )
    .bind(agent_id)
    .bind(KEPT)
    .execute(db)
    .await
    .map(drop)
}

/// The changes of an agent, newest first.
pub(crate) async fn of_agent(
    db: &mut Connection,
    agent_id: &str,
) -> sqlx::Result<Vec<AgentChange>> {
    sqlx::query_as(
        "SELECT health, left_itself, error, happened_at FROM agent_changes WHERE agent_id = $1
         ORDER BY happened_at DESC, id",
    )
    .bind(agent_id)
    .fetch_all(db)
    .await
}

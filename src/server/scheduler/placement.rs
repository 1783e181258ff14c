//! Which pool a run gets.

use crate::store::agent_pool::{self, AgentPool};
use crate::store::workspace::Workspace;
use crate::store::{Connection, environment};

/// The pool of a workspace's runs: its own, else its environment's default,
/// else the account's default if the environment may use that one; none: it
/// has no pool.
pub(crate) async fn pool_of(
    db: &mut Connection,
    workspace: &Workspace,
) -> sqlx::Result<Option<AgentPool>> {
    if let Some(id) = &workspace.pool_id {
        return agent_pool::find(db, id).await;
    }
    let Some(environment) = environment::find(db, &workspace.environment_id).await? else {
        return Ok(None);
    };
    if let Some(id) = &environment.default_pool_id {
        return agent_pool::find(db, id).await;
    }
    match agent_pool::find_default(db, &environment.account_id).await? {
        Some(pool) if agent_pool::is_usable_by(db, &pool, &environment.id).await? => Ok(Some(pool)),
        _ => Ok(None),
    }
}

//! Agents that are drained: they end what they have and are offered nothing more.

use tracing::info;

use super::{Error, Scheduler};
use crate::store::agent::{self, Agent};

impl Scheduler {
    /// Drains an agent, or lets it have tasks again.
    ///
    /// # Errors
    /// [`Error::Conflict`] when that is so already.
    pub(crate) async fn set_draining(&self, agent: &Agent, drain: bool) -> Result<(), Error> {
        let mut change = self.change().await?;
        let current = agent::find(&mut change.tx, &agent.id).await?;
        let is_draining = current.is_some_and(|agent| agent.draining_since.is_some());
        match (is_draining, drain) {
            (true, true) => return Err(Error::Conflict("The agent is draining already.".into())),
            (false, false) => return Err(Error::Conflict("The agent is not draining.".into())),
            _ => {}
        }
        agent::set_draining(&mut change.tx, &agent.id, drain.then_some(change.now)).await?;
        // Its poll ends, and the next one gets tasks, or none.
        change.woken_agents.push(agent.id.clone());
        self.commit(change).await?;
        info!(agent = agent.id, name = agent.name, drain, "agent draining changed");
        Ok(())
    }
}

//! Which agents are there, in memory: when each was last seen, what it can take, and which
//! leases it renewed. The database learns what has to survive a restart, later.
//!
//! A server that starts knows nothing of this: it gives every lease and every agent that was
//! there a full term.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Millis;
use crate::store::agent::Agent;
use crate::store::task::{State, Task};
use protocol::{Heartbeat, Identity, Intervals, Status, TaskStatus};

/// The agents of all pools.
#[derive(Debug, Default)]
pub(crate) struct Presence(Mutex<Agents>);

#[derive(Debug, Default)]
struct Agents {
    present: HashMap<String, Present>,
    /// Counts the offers that were made.
    offers: u64,
    /// The machines that were refused the name of an agent, by its id.
    refused: HashMap<String, Vec<Refused>>,
}

/// How many machines are remembered for a name, those that asked last: a pool's token must not
/// fill the memory.
const MAX_REFUSED: usize = 64;

/// A machine that asked for a name while another one's agent had it.
#[derive(Debug)]
struct Refused {
    /// None: of an older version.
    machine: Option<Identity>,
    at: Millis,
}

#[derive(Debug, Default)]
struct Present {
    last_seen_at: Millis,
    /// What the database has of that.
    saved_at: Millis,
    free_slots: i64,
    /// What it says is wrong, as it is in the database.
    error: Option<String>,
    is_errored: bool,
    /// What it was offered and may claim, also after another one was offered the same.
    offers: Vec<(String, i64)>,
    /// How many offers there were before its last one.
    idle_since: u64,
    /// The attempts that it reports, and until when each is its own.
    leases: HashMap<(String, i64), Millis>,
    /// The intervals that it got last; none: those of an earlier server, of a fleet that may
    /// have had another size.
    intervals: Option<Intervals>,
}

impl Presence {
    /// An agent of the database, when the server starts or has just registered it.
    pub(super) fn insert(&self, agent: &Agent, last_seen_at: Millis) {
        let present = Present {
            last_seen_at,
            saved_at: agent.last_seen_at,
            error: agent.error_message.clone(),
            is_errored: agent.errored,
            ..Present::default()
        };
        self.agents().present.insert(agent.id.clone(), present);
    }

    /// An agent took its leave.
    pub(super) fn remove(&self, agent_id: &str) {
        self.agents().present.remove(agent_id);
    }

    /// How many agents there are, also those that were not seen for a while.
    pub(super) fn count(&self) -> usize {
        self.agents().present.len()
    }

    /// Forgets the agents that were not seen since, and who was refused a name before.
    pub(super) fn forget(&self, since: Millis) {
        let mut agents = self.agents();
        agents.present.retain(|_, present| present.last_seen_at >= since);
        agents.refused.retain(|_, refused| refused.iter().any(|one| one.at >= since));
    }

    /// A machine is refused the name of an agent. Those that have not asked since
    /// `remembered_since` are forgotten.
    pub(super) fn refused(
        &self,
        agent_id: &str,
        machine: Option<&Identity>,
        now: Millis,
        remembered_since: Millis,
    ) {
        let mut agents = self.agents();
        let refused = agents.refused.entry(agent_id.to_owned()).or_default();
        refused.retain(|one| one.at >= remembered_since && one.machine.as_ref() != machine);
        refused.truncate(MAX_REFUSED - 1);
        refused.insert(0, Refused { machine: machine.cloned(), at: now });
    }

    /// Whether a machine was refused the name of an agent since.
    pub(super) fn was_refused(
        &self,
        agent_id: &str,
        machine: Option<&Identity>,
        since: Millis,
    ) -> bool {
        self.agents().refused.get(agent_id).is_some_and(|refused| {
            refused.iter().any(|one| one.at >= since && one.machine.as_ref() == machine)
        })
    }

    /// An agent gets these intervals; whether they are new to it.
    pub(super) fn set_intervals(&self, agent_id: &str, intervals: Intervals) -> bool {
        let mut agents = self.agents();
        let Some(present) = agents.present.get_mut(agent_id) else { return false };
        present.intervals.replace(intervals) != Some(intervals)
    }

    /// An agent has called, and has these tasks: their leases are renewed until `lease_ends`.
    pub(super) fn seen(
        &self,
        agent_id: &str,
        now: Millis,
        tasks: &[TaskStatus],
        lease_ends: Millis,
    ) {
        let mut agents = self.agents();
        let present = agents.present.entry(agent_id.to_owned()).or_default();
        present.last_seen_at = now;
        present.leases.retain(|_, ends| *ends > now);
        for task in tasks {
            present.leases.insert((task.task_id.clone(), task.attempt.into()), lease_ends);
        }
    }

    /// Remembers how many more tasks an agent can take.
    pub(super) fn set_free_slots(&self, agent_id: &str, free_slots: i64) {
        if let Some(present) = self.agents().present.get_mut(agent_id) {
            present.free_slots = free_slots;
        }
    }

    /// Whether the database does not have what an agent says of its health; it is to be
    /// written then.
    pub(super) fn is_health_new(&self, agent_id: &str, beat: &Heartbeat) -> bool {
        let agents = self.agents();
        agents.present.get(agent_id).is_none_or(|present| {
            let is_errored = beat.status == Status::Errored;
            present.is_errored != is_errored || is_errored && present.error != beat.error_message
        })
    }

    /// The database has what an agent says of its health.
    pub(super) fn health_saved(&self, agent_id: &str, beat: &Heartbeat) {
        if let Some(present) = self.agents().present.get_mut(agent_id) {
            present.is_errored = beat.status == Status::Errored;
            present.error = beat.error_message.clone().filter(|_| present.is_errored);
        }
    }

    /// An agent was offered an attempt at a task; `is_again` if it had been before.
    pub(super) fn offered(&self, agent_id: &str, task_id: &str, attempt: i64, is_again: bool) {
        let mut agents = self.agents();
        agents.offers += 1;
        let offers = agents.offers;
        let Some(present) = agents.present.get_mut(agent_id) else { return };
        present.idle_since = offers;
        let offer = (task_id.to_owned(), attempt);
        if !present.offers.contains(&offer) {
            present.offers.push(offer);
        }
        if !is_again {
            present.free_slots = (present.free_slots - 1).max(0);
        }
    }

    /// Whether an agent was offered an attempt at a task.
    pub(super) fn was_offered(&self, agent_id: &str, task_id: &str, attempt: i64) -> bool {
        let agents = self.agents();
        agents.present.get(agent_id).is_some_and(|present| {
            present.offers.iter().any(|(task, of)| task == task_id && *of == attempt)
        })
    }

    /// Whether an agent was offered anything since it had no offers.
    pub(super) fn has_offers(&self, agent_id: &str) -> bool {
        self.agents().present.get(agent_id).is_none_or(|present| !present.offers.is_empty())
    }

    /// An agent has no offers any more.
    pub(super) fn forget_offers(&self, agent_id: &str) {
        if let Some(present) = self.agents().present.get_mut(agent_id) {
            present.offers.clear();
        }
    }

    /// Since when an agent has had no offer: how many there were before its last one.
    pub(super) fn idle_since(&self, agent_id: &str) -> u64 {
        self.agents().present.get(agent_id).map_or(0, |present| present.idle_since)
    }

    /// Until when the agent of a task has renewed the lease of its current attempt, if it has.
    /// What is only offered has no agent that could report it.
    pub(super) fn renewed_until(&self, task: &Task) -> Option<Millis> {
        if task.state == State::Offered {
            return None;
        }
        let agents = self.agents();
        let present = agents.present.get(task.agent_id.as_ref()?)?;
        present.leases.get(&(task.id.clone(), task.attempt)).copied()
    }

    /// When an agent was last seen.
    pub(super) fn last_seen_at(&self, agent: &Agent) -> Millis {
        let agents = self.agents();
        agents.present.get(&agent.id).map_or(agent.last_seen_at, |present| present.last_seen_at)
    }

    /// How many more tasks an agent said that it can take.
    pub(super) fn free_slots(&self, agent: &Agent) -> i64 {
        self.agents().present.get(&agent.id).map_or(0, |present| present.free_slots)
    }

    /// The agents that were seen since the database got to know when, and when that was.
    pub(super) fn unsaved(&self) -> Vec<(String, Millis)> {
        let agents = self.agents();
        let unsaved = agents.present.iter().filter(|(_, one)| one.last_seen_at != one.saved_at);
        unsaved.map(|(id, one)| (id.clone(), one.last_seen_at)).collect()
    }

    /// The database has these.
    pub(super) fn saved(&self, agents: &[(String, Millis)]) {
        let mut present = self.agents();
        for (id, last_seen_at) in agents {
            if let Some(one) = present.present.get_mut(id) {
                one.saved_at = *last_seen_at;
            }
        }
    }

    /// The clock was set, or the machine slept: every lease has a new term, and a time in
    /// the future is now.
    pub(super) fn restart(&self, now: Millis) {
        for present in self.agents().present.values_mut() {
            present.leases.clear();
            present.last_seen_at = present.last_seen_at.min(now);
        }
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_machines_that_were_refused_a_name_the_last_ones_are_remembered() {
        let presence = Presence::default();
        let machine = |number: usize| Identity {
            machine_id: format!("machine-{number}"),
            boot_id: "boot".to_owned(),
        };
        for number in 0..=MAX_REFUSED {
            presence.refused("agent-1", Some(&machine(number)), 1, 0);
        }
        let is_known = |number| presence.was_refused("agent-1", Some(&machine(number)), 0);
        assert!(!is_known(0));
        assert!((1..=MAX_REFUSED).all(is_known));
    }
}

//! What moves runs, tasks and agents on: who may do what next.
//!
//! ```text
//! run    pending → plan_queued → planning → planned → confirmed → apply_queued → applying → applied
//!        planning → planned_and_saved → confirmed; planning → planned_and_finished
//!        planning, applying → canceling → canceled, applied
//! task   pending → queued → offered → claimed → running → finished | errored | canceled
//!                    ↑_________|_________|_________|         ↖ unreachable (an apply)
//! ```
//!
//! The runs of a workspace go one after the other, but for those that are never applied and
//! those whose plan is kept for later: these start at once and nobody waits for them, until
//! the kept plan is confirmed.
//!
//! A task is lent to an agent: its lease is renewed, in memory, whenever the agent reports
//! it. When it expires, the task goes back into the queue with the next
//! attempt number, and whatever is still written for the old attempt is
//! refused. A run whose task three agents have lost fails. Only an apply that was started is
//! never lent again: it becomes unreachable until its agent comes back or somebody cancels
//! the run.
//!
//! Every change is one transaction; the agents that it concerns are woken after
//! it is committed: for a queued task one that has a free slot.

mod agent_health;
mod agents;
mod descriptions;
mod drain;
mod leases;
mod locks;
mod offers;
mod placement;
mod presence;
mod run_events;
mod run_inputs;
mod runs;
mod states;
mod tasks;
mod wake;
mod webhooks;

use std::io;
use std::time::Duration;

pub(crate) use agents::Denied;
pub(crate) use locks::check_lock;
pub(crate) use placement::pool_of;
pub(crate) use presence::Presence;
pub(crate) use run_events::Decision;
pub(crate) use run_inputs::NewRun;
pub(crate) use runs::force_cancel_available_at;
pub(crate) use states::{NewState, Saved};
pub(crate) use wake::Wake;

use super::clock::{Clock, Millis};
use super::objects::Objects;
use super::store::run_event::Actor;
use super::store::task::{Phase, State};
use super::store::workspace::Workspace;
use super::store::{Store, WriteTransaction};
use protocol::Intervals;

/// The scheduler.
#[derive(Debug)]
pub(crate) struct Scheduler {
    /// Where everything is kept.
    pub store: Store,
    /// Where the states are kept.
    pub objects: Objects,
    /// What time it is.
    pub clock: Clock,
    /// Wakes held polls.
    pub wake: Wake,
    /// Which agents are there.
    pub presence: Presence,
    /// How long leases last, in a small fleet.
    pub terms: Terms,
}

/// From how many agents on a fleet is large.
const LARGE_FLEET: usize = 2000;

/// How many agents the database gets to know of at once, so that other writers do not wait for
/// long.
const SAVE_AT_ONCE: usize = 200;

/// How long things last. All but the time limits follow from the lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long a task stays with an agent without a heartbeat.
    pub lease: Duration,
    /// How long a plan may run whose workspace does not say it.
    pub plan_timeout: Duration,
    /// The same of an apply.
    pub apply_timeout: Duration,
}

impl Terms {
    /// The terms of a fleet of so many agents: those of a large one call half as often.
    ///
    /// More than twice would be too much for them: their watchdog needs a heartbeat, and the
    /// time that a failed one takes, within a minute.
    fn for_fleet(self, agents: usize) -> Self {
        let times = if agents < LARGE_FLEET { 1 } else { 2 };
        Self { lease: self.lease * times, ..self }
    }

    /// How long a poll is held: two heartbeats, so that it stands for those of an idle agent,
    /// which is offline after three.
    pub(crate) fn poll(self) -> Duration {
        (self.lease / 2).min(Duration::from_secs(40))
    }

    /// An agent whose last heartbeat is older than this is offline at `now`.
    pub(crate) fn online_since(self, now: Millis) -> Millis {
        now - millis(self.lease * 3 / 4)
    }

    /// How long a task of a workspace may run.
    fn timeout(self, workspace: &Workspace, phase: Phase) -> Duration {
        let (of_workspace, of_server) = match phase {
            Phase::Plan => (workspace.plan_timeout, self.plan_timeout),
            Phase::Apply => (workspace.apply_timeout, self.apply_timeout),
        };
        of_workspace.map_or(of_server, |seconds| Duration::from_secs(seconds.into()))
    }

    /// After how long an offer or a cancel is said again: the answer that
    /// carried it may have been lost.
    fn repeat(self) -> Duration {
        self.lease / 8
    }

    /// What agents are told.
    pub(crate) fn intervals(self) -> Intervals {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        Intervals {
            heartbeat_seconds: seconds(self.lease / 4),
            poll_seconds: seconds(self.poll()),
            ..Intervals::default()
        }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The attempt at a task that it belongs to has ended or does not count any more.
    #[error("{0}")]
    AttemptOver(String),
    /// It does not fit what is there now: a wrong status for example.
    #[error("{0}")]
    Conflict(String),
    /// Another machine's agent has the name and is alive.
    #[error("{0}")]
    NameTaken(String),
    /// It is larger than the server takes.
    #[error("{0}")]
    TooLarge(String),
    /// It can't be right at any time.
    #[error("{0}")]
    Invalid(String),
    /// An attribute, by its name in the APIs, that can't be right at any time.
    #[error("{detail}")]
    InvalidAttribute {
        /// For example `target-addrs`.
        name: &'static str,
        /// Why, in a sentence.
        detail: String,
    },
    /// The server failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Self::TooLarge(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}

/// A change under way: who makes it, what it writes, and whom it wakes when it is through.
struct Change {
    tx: WriteTransaction,
    now: Millis,
    actor: Actor,
    /// What the actor says about the first thing that happens to a run.
    comment: Option<String>,
    /// The tasks that were queued, by pool and level: each wakes one poll.
    queued: Vec<(String, i64)>,
    woken_agents: Vec<String>,
    /// The tasks that ended after they had been queued.
    ended: Vec<(Phase, State)>,
}

impl Scheduler {
    /// How long things last now.
    pub(crate) fn terms(&self) -> Terms {
        self.terms.for_fleet(self.presence.count())
    }

    /// A change that the server makes itself.
    async fn change(&self) -> sqlx::Result<Change> {
        let tx = self.store.write().await?;
        Ok(Change {
            tx,
            now: self.clock.now(),
            actor: Actor::SERVER,
            comment: None,
            queued: Vec::new(),
            woken_agents: Vec::new(),
            ended: Vec::new(),
        })
    }

    async fn change_by(&self, decision: Decision) -> Result<Change, Error> {
        decision.check()?;
        let Decision { actor, comment } = decision;
        Ok(Change { actor, comment, ..self.change().await? })
    }

    async fn commit(&self, change: Change) -> sqlx::Result<()> {
        change.tx.commit().await?;
        for (pool, level) in &change.queued {
            self.wake.queued(pool, *level);
        }
        for agent in &change.woken_agents {
            self.wake.agent(agent);
        }
        for (phase, state) in &change.ended {
            self.store.metrics.ended(*phase, *state);
        }
        Ok(())
    }
}

pub(crate) fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests;

//! Leases: how long a task stays with an agent without a heartbeat.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::agent_health::HealthWatch;
use super::{Change, Error, SAVE_AT_ONCE, Scheduler, Terms, millis};
use crate::clock::{Millis, rfc3339};
use crate::store::agent::Agent;
use crate::store::run::{self, Status};
use crate::store::session::Session;
use crate::store::task::{self, Claim, Phase, State, Task};
use crate::store::{Connection, agent, session};
use protocol::{Poll, TaskStatus};

/// How often the leases are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// After how long a poll is woken for a task that nobody has claimed.
pub(super) const UNCLAIMED: Duration = Duration::from_secs(1);

/// How often the database gets to know when agents were last seen.
const SAVE: Duration = Duration::from_secs(60);

/// After how long an agent that is offline is forgotten.
const FORGET_AGENT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long it is known why a session ended.
const FORGET_SESSION: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than its time limit a task may run before it is taken from its agent:
/// that interrupts it first, and a Terraform that is interrupted waits for what it is
/// creating.
pub(super) const OVERDUE_GRACE: Duration = Duration::from_secs(60 * 60);

/// How many agents may lose a task before its run fails: the task may be what ends them.
const MAX_ATTEMPTS: usize = 3;

impl Scheduler {
    /// Renews the leases of the tasks that a polling agent says it has, and
    /// remembers its free slots.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn renew(&self, session: &Session, poll: &Poll) -> Result<(), Error> {
        self.seen(session, &poll.tasks).await?;
        let agent_id = &session.agent_id;
        let mut free = i64::from(poll.free_slots);
        if self.presence.has_offers(agent_id) {
            // The agent does not know these, or does not count them yet.
            let offered = task::count_offered(&mut *self.store.read().await?, agent_id, 0).await?;
            free = (free - offered).max(0);
            if offered == 0 {
                self.presence.forget_offers(agent_id);
            }
        }
        self.presence.set_free_slots(agent_id, free);
        Ok(())
    }

    /// Renews the leases of the tasks that an agent says it has. An apply that was given up
    /// as unreachable is back with it.
    ///
    /// # Errors
    /// The server failed.
    pub(super) async fn seen(&self, session: &Session, tasks: &[TaskStatus]) -> Result<(), Error> {
        let now = self.clock.now();
        let lease = millis(self.terms().lease);
        self.presence.seen(&session.agent_id, now, tasks, now + lease);
        if tasks.is_empty() {
            return Ok(());
        }
        let mut db = self.store.read().await?;
        let mut is_back = false;
        for status in tasks {
            is_back |= unreachable(&mut db, session, status).await?.is_some();
        }
        drop(db);
        if is_back {
            let mut change = self.change().await?;
            change.reach_again(session, tasks, lease).await?;
            self.commit(change).await?;
        }
        Ok(())
    }

    /// Takes the tasks whose lease has expired from their agents, and those that they
    /// should have ended long ago.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn expire(&self) -> Result<(), Error> {
        // Most looks find nothing, and one that only reads disturbs nobody.
        let mut db = self.store.read().await?;
        let now = self.clock.now();
        if task::expired(&mut db, now).await?.is_empty()
            && task::overdue(&mut db, now).await?.is_empty()
        {
            return Ok(());
        }
        drop(db);

        let mut change = self.change().await?;
        for mut task in task::expired(&mut change.tx, change.now).await? {
            let renewed_until = self.presence.renewed_until(&task).max(task.lease_expires_at);
            if renewed_until > Some(change.now) {
                // The database gets to know of a renewal only now, once in a term.
                task.lease_expires_at = renewed_until;
                task::update(&mut change.tx, &task).await?;
                continue;
            }
            let renewed_at = renewed_until.map(|at| at - millis(self.terms().lease));
            let since = rfc3339(renewed_at.unwrap_or(change.now));
            change.lost(task, &format!("has not reported it since {since}")).await?;
        }
        for task in task::overdue(&mut change.tx, change.now).await? {
            change.overdue(task, self.terms).await?;
        }
        Ok(self.commit(change).await?)
    }

    /// Wakes a poll for each task that nobody has claimed although it was queued, or offered,
    /// a while ago: the agent that it was for may be gone.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn wake_for_unclaimed(&self) -> Result<(), Error> {
        let before = self.clock.now() - millis(UNCLAIMED);
        let unclaimed = task::unclaimed(&mut *self.store.read().await?, before).await?;
        for (pool, level, tasks) in unclaimed {
            for _ in 0..tasks {
                if !self.wake.queued(&pool, level) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Saves when agents were last seen, and forgets agents and sessions that ended long ago.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn save_presence(&self) -> Result<(), Error> {
        for unsaved in self.presence.unsaved().chunks(SAVE_AT_ONCE) {
            let mut change = self.change().await?;
            for (agent_id, last_seen_at) in unsaved {
                agent::touch(&mut change.tx, agent_id, *last_seen_at).await?;
            }
            self.commit(change).await?;
            self.presence.saved(unsaved);
        }
        let mut change = self.change().await?;
        agent::delete_silent(&mut change.tx, change.now - millis(FORGET_AGENT)).await?;
        session::delete_ended(&mut change.tx, change.now - millis(FORGET_SESSION)).await?;
        self.presence.forget(change.now - millis(FORGET_AGENT));
        Ok(self.commit(change).await?)
    }

    /// When an agent was last seen.
    pub(crate) fn last_seen_at(&self, agent: &Agent) -> Millis {
        self.presence.last_seen_at(agent)
    }

    /// Whether an agent is registered and was seen lately.
    pub(crate) fn is_online(&self, agent: &Agent) -> bool {
        agent.connected && self.last_seen_at(agent) >= self.terms().online_since(self.clock.now())
    }

    /// How many more tasks an agent can take now, by its last poll and what it was offered
    /// since.
    pub(crate) fn usable_slots(&self, agent: &Agent) -> i64 {
        if self.is_online(agent) && !agent.errored { self.presence.free_slots(agent) } else { 0 }
    }

    /// Gives every lease and every overdue task a full term: while the server itself was away, nobody
    /// could renew one. A time in the future, since the clock was set
    /// back, is now.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn restart_leases(&self) -> Result<(), Error> {
        let mut change = self.change().await?;
        let leases =
            task::extend_all(&mut change.tx, change.now + millis(self.terms().lease)).await?;
        task::delay_overdue(&mut change.tx, change.now + millis(OVERDUE_GRACE)).await?;
        task::forget_future(&mut change.tx, change.now).await?;
        agent::forget_future(&mut change.tx, change.now).await?;
        self.presence.restart(change.now);
        if leases > 0 {
            info!(leases, "leases were given a full term");
        }
        Ok(self.commit(change).await?)
    }

    /// Takes the agents over from an earlier server. Those that were there when that ended
    /// count as seen now: while no server was there, they could not be.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn restart_presence(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let agents = agent::all(&mut *self.store.read().await?).await?;
        let ended_at = agents.iter().map(|agent| agent.last_seen_at).max().unwrap_or(now);
        let since = self.terms.for_fleet(agents.len()).online_since(ended_at) - millis(SAVE);
        for agent in agents.into_iter().filter(|agent| agent.connected) {
            let was_there = agent.last_seen_at >= since;
            self.presence.insert(&agent, if was_there { now } else { agent.last_seen_at });
        }
        Ok(())
    }

    /// Watches the leases until the server stops.
    pub(crate) async fn sweep(&self) {
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.clock.now();
        let mut saved = Instant::now();
        let mut announced = Instant::now();
        let mut health = HealthWatch::default();
        loop {
            let is_stopping = tokio::select! {
                _ = interval.tick() => false,
                () = self.wake.stopped() => true,
            };
            if is_stopping || saved.elapsed() >= SAVE {
                saved = Instant::now();
                if let Err(error) = self.save_presence().await {
                    error!("cannot save when agents were last seen: {error:#}");
                }
            }
            if is_stopping {
                return;
            }
            let now = self.clock.now();
            let has_jumped = has_jumped(now - last, self.terms().lease);
            last = now;
            let swept = match has_jumped {
                true => self.restart_leases().await,
                false => self.expire().await,
            };
            let swept = match swept {
                Ok(()) => self.wake_for_unclaimed().await,
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                error!("cannot look after the leases: {error:#}");
            }
            if has_jumped {
                // Nobody could be seen meanwhile.
                health = HealthWatch::default();
            } else if announced.elapsed() >= self.terms().lease / 8 {
                announced = Instant::now();
                if let Err(error) = self.announce_agents(&mut health).await {
                    error!("cannot announce agents: {error:#}");
                }
            }
        }
    }
}

/// Whether so much more or less time than one sweep takes has passed between two of
/// them that the machine slept, or its clock was set: agents had no chance.
fn has_jumped(passed: Millis, lease: Duration) -> bool {
    passed.abs() > millis(SWEEP + lease / 4)
}

impl Change {
    /// Gives an agent the applies back that it reports and that were unreachable, for the time
    /// `lease`.
    pub(super) async fn reach_again(
        &mut self,
        session: &Session,
        tasks: &[TaskStatus],
        lease: Millis,
    ) -> Result<(), Error> {
        for status in tasks {
            if let Some(task) = unreachable(&mut self.tx, session, status).await? {
                self.reached_again(task, self.now + lease).await?;
            }
        }
        Ok(())
    }

    /// Does what has to be done with a task whose agent is gone; `because` follows the
    /// agent's name in a sentence.
    pub(super) async fn lost(&mut self, mut task: Task, because: &str) -> Result<(), Error> {
        let mut run = self.run(&task.run_id).await?;
        if task.phase == Phase::Apply && task.state == State::Running {
            let agent = self.agent_name(&task).await?;
            warn!(task = task.id, attempt = task.attempt, agent, "apply is unreachable");
            task.state = State::Unreachable;
            task.lease_expires_at = None;
            task::update(&mut self.tx, &task).await?;
            run.error_message = Some(format!(
                "Agent {agent} stopped sending heartbeats during this apply, which may still \
                 be running there. It is not run again, and the workspace stays locked. When the \
                 agent comes back, its outcome counts; if it never will, cancel the run: the \
                 workspace stays locked until it is unlocked."
            ));
            return Ok(run::update(&mut self.tx, &run).await?);
        }
        if task.cancel_requested {
            self.take_back(&mut task, State::Canceled).await?;
            return Ok(self.end_run(&mut run, Status::Canceled, None).await?);
        }
        task::set_lost(&mut self.tx, &task, because).await?;
        let lost = task::lost_claims(&mut self.tx, &task.id).await?;
        if lost.len() >= MAX_ATTEMPTS {
            self.take_back(&mut task, State::Errored).await?;
            let message = too_many_attempts(task.phase, &lost);
            return Ok(self.end_run(&mut run, Status::Errored, Some(message)).await?);
        }
        self.take_back(&mut task, State::Queued).await?;
        let status = match task.phase {
            Phase::Plan => Status::PlanQueued,
            Phase::Apply => Status::ApplyQueued,
        };
        if run.status != status {
            self.set_status(&mut run, status).await?;
        }
        Ok(())
    }

    /// Ends a task whose agent sends heartbeats and does not end it. Nobody knows what such an
    /// apply goes on to do.
    async fn overdue(&mut self, mut task: Task, terms: Terms) -> Result<(), Error> {
        let mut run = self.run(&task.run_id).await?;
        let timeout = terms.timeout(&self.workspace_of(&run).await?, task.phase);
        let agent = self.agent_name(&task).await?;
        let phase = task.phase.name();
        let mut message = format!(
            "Agent {agent} did not end the {phase} at its time limit of {} s, nor in the hour \
             after that. Look for the container of task {} on the agent's host.",
            timeout.as_secs(),
            task.id
        );
        warn!(task = task.id, attempt = task.attempt, agent, "task is overdue");
        if task.phase == Phase::Apply {
            let advice = self.lock(&run, &message).await?;
            message = format!("{message}\n{advice}");
        }
        self.take_back(&mut task, State::Errored).await?;
        Ok(self.end_run(&mut run, Status::Errored, Some(message)).await?)
    }

    async fn reached_again(
        &mut self,
        mut task: Task,
        lease_expires_at: Millis,
    ) -> Result<(), Error> {
        info!(task = task.id, attempt = task.attempt, "apply is reached again");
        task.state = State::Running;
        task.lease_expires_at = Some(lease_expires_at);
        // What it did meanwhile, the agent says next.
        task.overdue_at = task.overdue_at.max(Some(self.now + millis(OVERDUE_GRACE)));
        task::update(&mut self.tx, &task).await?;
        let mut run = self.run(&task.run_id).await?;
        run.error_message = None;
        Ok(run::update(&mut self.tx, &run).await?)
    }

    async fn agent_name(&mut self, task: &Task) -> sqlx::Result<String> {
        let agent = match &task.agent_id {
            Some(id) => agent::find(&mut self.tx, id).await?,
            None => None,
        };
        Ok(agent.map_or_else(|| "of this apply".to_owned(), |agent| agent.name))
    }
}

/// The task that an agent reports, if its attempt is current and unreachable.
async fn unreachable(
    db: &mut Connection,
    session: &Session,
    status: &TaskStatus,
) -> sqlx::Result<Option<Task>> {
    let task = task::find(db, &status.task_id).await?;
    Ok(task.filter(|task| {
        task.state == State::Unreachable
            && task.attempt == i64::from(status.attempt)
            && task.agent_id.as_ref() == Some(&session.agent_id)
    }))
}

/// Why a task is not given to another agent, with what became of each attempt.
fn too_many_attempts(phase: Phase, lost: &[Claim]) -> String {
    let phase = phase.name();
    let attempts: Vec<String> = lost
        .iter()
        .map(|claim| {
            let agent = claim.agent_name.as_deref().unwrap_or("of an unknown name");
            let because = claim.lost_because.as_deref().unwrap_or_default();
            let claimed_at = rfc3339(claim.claimed_at);
            format!("Agent {agent} took the {phase} at {claimed_at} and {because}.")
        })
        .collect();
    format!(
        "The {phase} was given to an agent {} times and never ended, so it is not tried again.\n{}\n\
         Look at the logs of these agents and at the memory of their hosts, then start a new run.",
        lost.len(),
        attempts.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_one_of_the_clock_in_either_direction() {
        let lease = Duration::from_secs(40);
        for (passed, jumped) in
            [(1_000, false), (11_000, false), (12_000, true), (0, false), (-3_600_000, true)]
        {
            assert_eq!(has_jumped(passed, lease), jumped, "{passed} ms");
        }
    }
}

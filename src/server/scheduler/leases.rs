//! Leases: how long a task stays with an agent without a heartbeat.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::{Change, Error, Scheduler, Terms, millis};
use crate::clock::{Millis, rfc3339};
use crate::store::run::{self, Status};
use crate::store::session::Session;
use crate::store::task::{self, Claim, Phase, State, Task};
use crate::store::{agent, session};
use protocol::{Poll, TaskStatus};

/// How often the leases are looked at.
const SWEEP: Duration = Duration::from_secs(1);

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
    /// remembers its free slots. An apply that was given up as unreachable is
    /// back with it.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn renew(&self, session: &Session, poll: &Poll) -> Result<(), Error> {
        let mut change = self.change().await?;
        change.renew(session, &poll.tasks, millis(self.terms.lease)).await?;
        // The agent does not know these, or does not count them yet.
        let offered = task::count_offered(&mut change.tx, &session.agent_id, 0).await?;
        let free = (i64::from(poll.free_slots) - offered).max(0);
        agent::set_free_slots(&mut change.tx, &session.agent_id, free).await?;
        Ok(self.commit(change).await?)
    }

    /// Takes the tasks whose lease has expired from their agents, and those that they
    /// should have ended long ago, and forgets
    /// agents and sessions that ended long ago.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn expire(&self) -> Result<(), Error> {
        let mut change = self.change().await?;
        for task in task::expired(&mut change.tx, change.now).await? {
            let renewed_at = task.lease_expires_at.map(|at| at - millis(self.terms.lease));
            let since = rfc3339(renewed_at.unwrap_or(change.now));
            change.lost(task, &format!("has not reported it since {since}")).await?;
        }
        for task in task::overdue(&mut change.tx, change.now).await? {
            change.overdue(task, self.terms).await?;
        }
        agent::delete_silent(&mut change.tx, change.now - millis(FORGET_AGENT)).await?;
        session::delete_ended(&mut change.tx, change.now - millis(FORGET_SESSION)).await?;
        Ok(self.commit(change).await?)
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
            task::extend_all(&mut change.tx, change.now + millis(self.terms.lease)).await?;
        task::delay_overdue(&mut change.tx, change.now + millis(OVERDUE_GRACE)).await?;
        task::forget_future(&mut change.tx, change.now).await?;
        agent::forget_future(&mut change.tx, change.now).await?;
        if leases > 0 {
            info!(leases, "leases were given a full term");
        }
        Ok(self.commit(change).await?)
    }

    /// Watches the leases until the server stops.
    pub(crate) async fn sweep(&self) {
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.clock.now();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.wake.stopped() => return,
            }
            let now = self.clock.now();
            let has_jumped = has_jumped(now - last, self.terms.lease);
            last = now;
            let swept = match has_jumped {
                true => self.restart_leases().await,
                false => self.expire().await,
            };
            if let Err(error) = swept {
                error!("cannot look after the leases: {error:#}");
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
    /// Renews an agent's leases for the time `lease`.
    pub(super) async fn renew(
        &mut self,
        session: &Session,
        tasks: &[TaskStatus],
        lease: Millis,
    ) -> Result<(), Error> {
        let lease_expires_at = self.now + lease;
        agent::touch(&mut self.tx, &session.agent_id, self.now).await?;
        for status in tasks {
            let attempt = status.attempt.into();
            let (id, agent) = (&status.task_id, &session.agent_id);
            task::extend(&mut self.tx, id, attempt, agent, lease_expires_at).await?;
            let found = task::find(&mut self.tx, id).await?.filter(|task| {
                task.state == State::Unreachable
                    && task.attempt == attempt
                    && task.agent_id.as_ref() == Some(agent)
            });
            if let Some(task) = found {
                self.reached_again(task, lease_expires_at).await?;
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

//! What polling agents are told, and their claims.

use tracing::info;

use super::leases::UNCLAIMED;
use super::tasks::{RUN_TOKEN, check_attempt, over};
use super::wake::{Held, Rank};
use super::{Change, Error, Scheduler, millis};
use crate::clock::Millis;
use crate::store::Connection;
use crate::store::session::Session;
use crate::store::task::{self, Claim, Phase, State, Task};
use crate::token::NewToken;
use protocol::Secret;
use protocol::{Event, Intervals, Poll, Resume, TaskState, TaskStatus};

/// What an attempt at a task is given, each narrower than the session's.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// For the agent's calls about the task.
    pub of_agent: Secret,
    /// For what the run reads in the pool API.
    pub of_run: Secret,
}

impl Scheduler {
    /// Holds an agent's poll, so that it can be woken.
    pub(crate) fn hold(&self, session: &Session, poll: &Poll) -> Held<'_> {
        let rank = Rank::new(poll.free_slots, self.presence.idle_since(&session.agent_id));
        self.wake.hold(&session.pool_id, &session.agent_id, rank, session.level)
    }

    /// The intervals that a polling agent is to use from now on, if they are new to it.
    pub(crate) fn new_intervals(&self, session: &Session) -> Option<Intervals> {
        let intervals = self.terms().intervals();
        self.presence.set_intervals(&session.agent_id, intervals).then_some(intervals)
    }

    /// What an agent is to be told now; empty when there is nothing.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn events(&self, session: &Session, poll: &Poll) -> Result<Vec<Event>, Error> {
        // Most looks find nothing, and one that only reads disturbs nobody.
        let mut db = self.store.read().await?;
        let concerns_it = !poll.tasks.is_empty()
            || task::concern(&mut db, &session.pool_id, &session.agent_id).await?;
        if !concerns_it
            || self.cancels(&mut db, session, poll).await?.is_empty()
                && self.offers(&mut db, session, poll).await?.is_empty()
        {
            return Ok(Vec::new());
        }
        drop(db);

        let mut change = self.change().await?;
        let mut events = Vec::new();
        let mut offers = Vec::new();
        for claim in self.cancels(&mut change.tx, session, poll).await? {
            task::set_cancel_told(&mut change.tx, &claim, change.now).await?;
            let attempt = wire_attempt(claim.attempt);
            events.push(Event::Cancel { task_id: claim.task_id, attempt });
        }
        for task in self.offers(&mut change.tx, session, poll).await? {
            let is_again = task.agent_id.as_ref() == Some(&session.agent_id);
            offers.push((task.id.clone(), task.attempt, is_again));
            events.push(change.offer(task, session, millis(self.terms().lease)).await?);
        }
        self.commit(change).await?;
        for (task_id, attempt, is_again) in offers {
            self.presence.offered(&session.agent_id, &task_id, attempt, is_again);
        }
        Ok(events)
    }

    /// Gives a task to an agent that it was offered to, with tokens for it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody else has it.
    pub(crate) async fn claim(
        &self,
        session: &Session,
        task_id: &str,
        attempt: i64,
    ) -> Result<(protocol::Task, Tokens), Error> {
        let mut change = self.change().await?;
        let mut task = change.task(task_id).await?;
        if task.pool_id.as_ref() != Some(&session.pool_id) {
            return Err(Error::NotFound(format!("there is no task {task_id} in this pool")));
        }
        check_attempt(&task, attempt)?;
        // Claimed by the same agent: it asks again because the answer was lost.
        let is_its_own =
            task.agent_id.as_ref() == Some(&session.agent_id) && task.state.is_assigned();
        // Offered to another one since it was slow to claim; the first of them has it.
        let is_still_there = task.state == State::Offered
            && self.presence.was_offered(&session.agent_id, task_id, attempt);
        if !is_its_own && !is_still_there {
            return Err(Error::Conflict(format!("task {task_id} is not offered to this agent")));
        }
        let level = change.level_of_hooks(&task).await?;
        if level > session.level && task.state != State::Running {
            // The environment got its first hook since the task was offered.
            task.level = task.level.max(level);
            change.take_back(&mut task, State::Queued).await?;
            self.commit(change).await?;
            return Err(Error::Conflict(format!(
                "task {task_id} has hooks of its environment, which this version of the agent \
                 does not execute: upgrade the agent"
            )));
        }
        let is_new = task.state == State::Offered;
        task.state = State::Claimed;
        task.agent_id = Some(session.agent_id.clone());
        task.lease_expires_at = Some(change.now + millis(self.terms().lease));
        task::update(&mut change.tx, &task).await?;
        let of_agent = NewToken::new(&format!("{}.{attempt}", task.id));
        let of_run = NewToken::new(&format!("{RUN_TOKEN}{}.{attempt}", task.id));
        let claim = Claim {
            task_id: task.id.clone(),
            attempt,
            agent_id: Some(session.agent_id.clone()),
            agent_name: Some(session.agent_name.clone()),
            claimed_at: change.now,
            secret_hash: of_agent.secret_hash,
            run_secret_hash: Some(of_run.secret_hash),
            cancel_told_at: None,
            lost_because: None,
        };
        task::upsert_claim(&mut change.tx, &claim).await?;
        let described = change.describe(&task, self.terms).await?;
        info!(task = task.id, attempt, agent = session.agent_id, "task claimed");
        let waited = change.now - task.queued_at.unwrap_or(change.now);
        self.commit(change).await?;
        if is_new {
            self.store.metrics.picked_up(task.phase, waited);
        }
        Ok((described, Tokens { of_agent: of_agent.token, of_run: of_run.token }))
    }

    /// Lets an agent continue a task that it has from another boot or another machine, with
    /// a new token: a clone of that machine may have the earlier one, which is refused from
    /// here on.
    ///
    /// # Errors
    /// [`Error::AttemptOver`].
    pub(crate) async fn resume(
        &self,
        session: &Session,
        task_id: &str,
        resume: Resume,
    ) -> Result<Secret, Error> {
        let mut change = self.change().await?;
        // A 404 is the answer of a server that does not have this call.
        let unknown = || Error::AttemptOver(format!("there is no task {task_id}"));
        let task = task::find(&mut change.tx, task_id).await?.ok_or_else(unknown)?;
        check_attempt(&task, resume.attempt.into())?;
        if task.agent_id.as_ref() != Some(&session.agent_id) || !task.state.is_with_agent() {
            return Err(over(&task));
        }
        if task.phase == Phase::Apply && task.state != State::Claimed && !resume.started {
            return Err(Error::AttemptOver(format!(
                "the apply of task {task_id} was started before, and not where the agent is now"
            )));
        }
        let claim = task::find_claim(&mut change.tx, task_id, task.attempt).await?;
        let mut claim = claim.ok_or_else(unknown)?;
        let of_agent = NewToken::new(&format!("{}.{}", task.id, task.attempt));
        claim.secret_hash = of_agent.secret_hash;
        task::upsert_claim(&mut change.tx, &claim).await?;
        let reported = [TaskStatus {
            task_id: task.id,
            attempt: resume.attempt,
            state: if resume.started { TaskState::Running } else { TaskState::Claimed },
        }];
        change.reach_again(session, &reported, millis(self.terms().lease)).await?;
        info!(task = task_id, attempt = resume.attempt, agent = session.agent_id, "task resumed");
        self.commit(change).await?;
        self.seen(session, &reported).await?;
        Ok(of_agent.token)
    }

    /// The attempts that an agent is to interrupt and was not told of lately:
    /// canceled ones, and those that it still has and that were taken from it.
    async fn cancels(
        &self,
        db: &mut Connection,
        session: &Session,
        poll: &Poll,
    ) -> sqlx::Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for task in task::of_agent(db, &session.agent_id).await? {
            if task.cancel_requested && task.state.is_with_agent() {
                claims.extend(task::find_claim(db, &task.id, task.attempt).await?);
            }
        }
        for status in &poll.tasks {
            let task = task::find(db, &status.task_id).await?;
            let is_taken_back = |task: &Task| {
                task.attempt != i64::from(status.attempt)
                    || task.agent_id.as_ref() != Some(&session.agent_id)
            };
            if task.as_ref().is_some_and(is_taken_back) {
                let claim = task::find_claim(db, &status.task_id, status.attempt.into()).await?;
                // Else an agent could have others' cancels count as said.
                let is_its_own = |claim: &Claim| claim.agent_id.as_ref() == Some(&session.agent_id);
                claims.extend(claim.filter(is_its_own));
            }
        }
        let repeat_before = self.repeat_before();
        claims.retain(|claim| claim.cancel_told_at.is_none_or(|told_at| told_at <= repeat_before));
        Ok(claims)
    }

    async fn offers(
        &self,
        db: &mut Connection,
        session: &Session,
        poll: &Poll,
    ) -> sqlx::Result<Vec<Task>> {
        // What was offered a moment ago is about to be claimed.
        let offered = task::count_offered(db, &session.agent_id, self.repeat_before()).await?;
        let limit = (i64::from(poll.free_slots) - offered).max(0);
        let unclaimed_before = self.clock.now() - millis(UNCLAIMED);
        let (pool, agent) = (&session.pool_id, (session.agent_id.as_str(), session.level));
        let mut tasks =
            task::offerable(db, pool, agent, self.repeat_before(), unclaimed_before, limit).await?;
        if let Some(mut room) = task::room_in_pool(db, pool).await? {
            tasks.retain(|task| {
                // One that was offered has its place already.
                let is_queued = task.state == State::Queued;
                room -= i64::from(is_queued);
                !is_queued || room >= 0
            });
        }
        Ok(tasks)
    }

    fn repeat_before(&self) -> Millis {
        self.clock.now() - millis(self.terms.repeat())
    }
}

impl Change {
    async fn offer(
        &mut self,
        mut task: Task,
        session: &Session,
        lease: Millis,
    ) -> sqlx::Result<Event> {
        task.state = State::Offered;
        task.agent_id = Some(session.agent_id.clone());
        task.offered_at = Some(self.now);
        task.lease_expires_at = Some(self.now + lease);
        task::update(&mut self.tx, &task).await?;
        info!(task = task.id, attempt = task.attempt, agent = session.agent_id, "task offered");
        let attempt = wire_attempt(task.attempt);
        Ok(Event::Offer { task_id: task.id, attempt, kind: task.phase.into() })
    }
}

/// The attempt as the protocol has it.
pub(super) fn wire_attempt(attempt: i64) -> u32 {
    u32::try_from(attempt).unwrap_or(u32::MAX)
}

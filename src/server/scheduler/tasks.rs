//! What agents do with the tasks that they have: start and finish.

use tracing::{info, warn};

use super::leases::OVERDUE_GRACE;
use super::{Change, Error, Scheduler, millis};
use crate::clock::rfc3339;
use crate::store::run::{Run, Status};
use crate::store::run_event::Actor;
use crate::store::task::{self, Claim, Phase, State, Summary, Task};
use crate::store::{run_settings, run_trigger};
use crate::token::PresentedToken;
use protocol::{Finish, Outcome};

/// What a run's token begins with, so that it is told from its agent's, which is
/// TASK.ATTEMPT.SECRET.
pub(super) const RUN_TOKEN: &str = "run.";

impl Scheduler {
    /// The task that a token is for, if its attempt is the one that counts and
    /// its agent may write to it.
    ///
    /// A task's token outlives the revocation of its pool's token: it gives no
    /// more than the agent has already, and without it the state of a running
    /// apply would be lost.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the token is not one of this task's,
    /// [`Error::AttemptOver`].
    pub(crate) async fn task_of_token(&self, task_id: &str, token: &str) -> Result<Task, Error> {
        let mut db = self.store.read().await?;
        let denied = || Error::NotFound(format!("this token is not one of task {task_id}"));
        // A task's token is TASK.ATTEMPT.SECRET.
        let shown = PresentedToken::parse(token).ok_or_else(denied)?;
        let (id, attempt) = shown.id.rsplit_once('.').ok_or_else(denied)?;
        let attempt = attempt.parse().map_err(|_| denied())?;
        let claim = task::find_claim(&mut db, id, attempt).await?.ok_or_else(denied)?;
        if id != task_id || !shown.matches(&claim.secret_hash) {
            return Err(denied());
        }
        let task = task::find(&mut db, id).await?.ok_or_else(denied)?;
        check_attempt(&task, attempt)?;
        Ok(task)
    }

    /// The task whose run a token was given to, while that may be going on: the
    /// attempt counts and has not ended. So it lasts as long as the run does,
    /// an apply of hours or one whose agent is out of reach among them.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn task_of_run_token(
        &self,
        shown: &PresentedToken,
    ) -> sqlx::Result<Option<Task>> {
        let named = shown.id.strip_prefix(RUN_TOKEN).and_then(|id| id.rsplit_once('.'));
        let Some((id, Ok(attempt))) = named.map(|(id, attempt)| (id, attempt.parse::<i64>()))
        else {
            return Ok(None);
        };
        let mut db = self.store.read().await?;
        let claim = task::find_claim(&mut db, id, attempt).await?;
        let hash = claim.and_then(|claim| claim.run_secret_hash);
        if !hash.is_some_and(|hash| shown.matches(&hash)) {
            return Ok(None);
        }
        let task = task::find(&mut db, id).await?;
        Ok(task.filter(|task| task.attempt == attempt && task.state.is_with_agent()))
    }

    /// Remembers that an agent is about to start a task's container.
    ///
    /// # Errors
    /// [`Error::AttemptOver`].
    pub(crate) async fn start(&self, task_id: &str, attempt: i64) -> Result<(), Error> {
        let mut change = self.change().await?;
        let mut task = change.task(task_id).await?;
        check_attempt(&task, attempt)?;
        match task.state {
            State::Claimed => {}
            // Said again because the answer was lost.
            State::Running => return Ok(()),
            _ => return Err(over(&task)),
        }
        change.act_as_agent(&task).await?;
        task.state = State::Running;
        task.started_at = Some(change.now);
        task.lease_expires_at = Some(change.now + millis(self.terms().lease));
        let mut run = change.run(&task.run_id).await?;
        let workspace = change.workspace_of(&run).await?;
        let timeout = self.terms.timeout(&workspace, task.phase);
        task.overdue_at = Some(change.now + millis(timeout + OVERDUE_GRACE));
        task::update(&mut change.tx, &task).await?;
        let status = match task.phase {
            Phase::Plan => Status::Planning,
            Phase::Apply => Status::Applying,
        };
        change.set_status(&mut run, status).await?;
        info!(task = task.id, attempt, "task started");
        Ok(self.commit(change).await?)
    }

    /// Takes a task back from its agent, which has claimed it and cannot start it.
    ///
    /// # Errors
    /// [`Error::AttemptOver`], also when it was started.
    pub(crate) async fn give_back(&self, task_id: &str, attempt: i64) -> Result<(), Error> {
        let mut change = self.change().await?;
        let task = change.task(task_id).await?;
        check_attempt(&task, attempt)?;
        if task.state != State::Claimed {
            return Err(over(&task));
        }
        info!(task = task.id, attempt, "task given back");
        let because = format!("gave it back at {}", rfc3339(change.now));
        change.lost(task, &because).await?;
        Ok(self.commit(change).await?)
    }

    /// Takes the outcome of a task and goes on with its run. The task's log is
    /// complete.
    ///
    /// # Errors
    /// [`Error::AttemptOver`].
    pub(crate) async fn finish(&self, task_id: &str, finish: &Finish) -> Result<(), Error> {
        let mut change = self.change().await?;
        let mut task = change.task(task_id).await?;
        check_attempt(&task, finish.attempt.into())?;
        if task.state.is_ended() && task.agent_id.is_some() {
            // Said again because the answer was lost.
            return Ok(());
        }
        if !task.state.is_with_agent() {
            return Err(over(&task));
        }
        change.act_as_agent(&task).await?;
        task.state = match finish.outcome {
            Outcome::Finished => State::Finished,
            Outcome::Errored => State::Errored,
            Outcome::Canceled => State::Canceled,
        };
        task.message.clone_from(&finish.message);
        task.exit_code = finish.exit_code;
        task.oom_killed = finish.oom_killed;
        task.summary = match (task.phase, finish.outcome) {
            (Phase::Plan, _) => Summary(finish.summary),
            // It has done all that was planned.
            (Phase::Apply, Outcome::Finished) => {
                task::of_run(&mut change.tx, &task.run_id, Phase::Plan).await?.summary
            }
            (Phase::Apply, _) => Summary(None),
        };
        task.lease_expires_at = None;
        task.ended_at = Some(change.now);
        task::update(&mut change.tx, &task).await?;
        change.ended.push((task.phase, task.state));
        info!(task = task.id, attempt = task.attempt, outcome = ?finish.outcome, "task ended");

        let mut run = change.run(&task.run_id).await?;
        match task.phase {
            Phase::Plan => change.after_plan(&mut run, &task, finish).await?,
            Phase::Apply => change.after_apply(&mut run, finish).await?,
        }
        Ok(self.commit(change).await?)
    }
}

impl Change {
    /// The task with this id.
    pub(super) async fn task(&mut self, id: &str) -> Result<Task, Error> {
        task::find(&mut self.tx, id)
            .await?
            .ok_or_else(|| Error::NotFound(format!("there is no task {id}")))
    }

    /// From here on it is the task's agent that makes the change.
    async fn act_as_agent(&mut self, task: &Task) -> sqlx::Result<()> {
        let claim = task::find_claim(&mut self.tx, &task.id, task.attempt).await?;
        if let Some(Claim { agent_id: Some(id), agent_name, .. }) = claim {
            self.actor = Actor::agent(&id, agent_name.as_deref());
        }
        Ok(())
    }

    async fn after_plan(
        &mut self,
        run: &mut Run,
        plan: &Task,
        finish: &Finish,
    ) -> Result<(), Error> {
        run.has_changes = match finish.outcome {
            Outcome::Finished => Some(finish.has_changes != Some(false)),
            Outcome::Errored | Outcome::Canceled => None,
        };
        match finish.outcome {
            Outcome::Finished if plan.cancel_requested => {
                self.end_run(run, Status::Canceled, None).await?;
            }
            Outcome::Finished if run.ends_with_its_plan() => {
                self.end_run(run, Status::PlannedAndFinished, None).await?;
            }
            Outcome::Finished => {
                if let Some(mut settings) = run_settings::find(&mut self.tx, &run.id).await? {
                    settings.ran_image.clone_from(&finish.image);
                    run_settings::upsert(&mut self.tx, &run.id, &settings).await?;
                }
                if run.save_plan {
                    return self.save_plan(run).await;
                }
                self.set_status(run, Status::Planned).await?;
                if run.auto_apply {
                    self.actor = Actor::SERVER;
                    self.confirm(run).await?;
                }
            }
            Outcome::Errored | Outcome::Canceled => self.after_failure(run, finish).await?,
        }
        Ok(())
    }

    async fn after_apply(&mut self, run: &mut Run, finish: &Finish) -> Result<(), Error> {
        let status = match finish.outcome {
            Outcome::Finished => Status::Applied,
            Outcome::Errored => Status::Errored,
            Outcome::Canceled => Status::Canceled,
        };
        if status == Status::Applied {
            run_trigger::fire(&mut self.tx, run).await?;
        }
        let mut message = finish.message.clone();
        if let Some(why) = &finish.unsaved_state {
            let advice = self.lock(run, why).await?;
            message = Some(match message {
                Some(message) if message.contains(why.as_str()) => format!("{message}\n{advice}"),
                Some(message) => format!("{message}\n{why}\n{advice}"),
                None => format!("{why}\n{advice}"),
            });
        }
        Ok(self.end_run(run, status, message).await?)
    }

    async fn after_failure(&mut self, run: &mut Run, finish: &Finish) -> sqlx::Result<()> {
        let status = match finish.outcome {
            Outcome::Canceled => Status::Canceled,
            _ => Status::Errored,
        };
        self.end_run(run, status, finish.message.clone()).await
    }

    /// Takes a task from its agent, for another one or for good; what the agent
    /// writes is refused from here on.
    pub(super) async fn take_back(&mut self, task: &mut Task, state: State) -> sqlx::Result<()> {
        if let Some(agent_id) = task.agent_id.take() {
            warn!(task = task.id, attempt = task.attempt, ?state, "task taken back");
            // Whoever has it is told at once.
            self.woken_agents.push(agent_id);
            if !state.is_ended() {
                task.attempt += 1;
            }
        }
        if state == State::Queued {
            self.queued.extend(task.pool_id.clone().map(|pool_id| (pool_id, task.level)));
        }
        task.state = state;
        task.offered_at = None;
        task.lease_expires_at = None;
        match state.is_ended() {
            true => {
                task.ended_at = Some(self.now);
                self.ended.push((task.phase, state));
            }
            false => task.started_at = None,
        }
        task::update(&mut self.tx, task).await
    }
}

pub(super) fn check_attempt(task: &Task, attempt: i64) -> Result<(), Error> {
    if task.attempt == attempt { Ok(()) } else { Err(over(task)) }
}

pub(super) fn over(task: &Task) -> Error {
    let state = format!("{:?}", task.state).to_lowercase();
    Error::AttemptOver(format!(
        "this attempt at task {} is over: the task is {state}, at attempt {}",
        task.id, task.attempt
    ))
}

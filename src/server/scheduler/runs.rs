//! Runs: made, confirmed, discarded, canceled; and what follows when their
//! plan or apply ends.

use std::time::Duration;

use anyhow::Context as _;
use tracing::info;

use super::{Change, Decision, Error, NewRun, Scheduler, millis, pool_of};
use crate::clock::{Millis, rfc3339};
use crate::store::run::{self, Run, Status};
use crate::store::run_event::Actor;
use crate::store::state_version::{self, StateVersion};
use crate::store::task::{self, Phase, State, Summary, Task};
use crate::store::workspace::{self, Workspace};
use crate::store::{configuration_version, run_settings, variable};
use crate::token::new_id;
use protocol::RunOptions;

/// The [`protocol::LEVEL`] of agents that know a run's options and applies without changes.
const OPTIONS_LEVEL: i64 = 2;

/// How long after a cancel a run can be given up: longer than an agent with the usual
/// settings takes until it kills the run's container.
const FORCE_CANCEL_GRACE: Duration = Duration::from_secs(2 * 60);

/// From when on a canceled run can be given up; none: it cannot.
pub(crate) fn force_cancel_available_at(run: &Run) -> Option<Millis> {
    (run.status == Status::Canceling).then(|| run.updated_at + millis(FORCE_CANCEL_GRACE))
}

impl Scheduler {
    /// Makes a run; it starts at once unless its workspace has another one
    /// under way and both may be applied.
    ///
    /// # Errors
    /// [`Error::InvalidAttribute`], [`Error::Conflict`] when the configuration version is gone.
    pub(crate) async fn create_run(&self, mut new: NewRun) -> Result<Run, Error> {
        let mut change = self.change_by(std::mem::take(&mut new.by)).await?;
        let workspace = workspace::find(&mut change.tx, &new.workspace_id).await?;
        let workspace = workspace.context("a new run without its workspace")?;
        let version =
            configuration_version::find(&mut change.tx, &new.configuration_version_id).await?;
        let version = version.context("a new run without its configuration version")?;
        // Retention may have been faster.
        if version.removed_at.is_some() {
            return Err(Error::Conflict(format!(
                "The configuration version {} is gone: the server's retention removed it.",
                version.id
            )));
        }
        let variables = variable::reaching(&mut change.tx, &workspace.id).await?;
        let inputs = new.settle(&workspace, &version, &variables)?;
        let mut run = Run {
            id: new_id("run"),
            workspace_id: new.workspace_id,
            configuration_version_id: new.configuration_version_id,
            status: Status::Pending,
            source: new.source,
            message: new.message,
            is_destroy: new.is_destroy,
            auto_apply: new.auto_apply.unwrap_or_default(),
            is_plan_only: new.is_plan_only,
            save_plan: new.save_plan,
            allow_empty_apply: new.allow_empty_apply,
            inputs,
            terraform_version: new.terraform_version,
            is_exclusive: !new.is_plan_only && !new.save_plan,
            planned_state: None,
            has_changes: None,
            error_message: None,
            created_at: change.now,
            updated_at: change.now,
            files_removed_at: None,
        };
        run::insert(&mut change.tx, &run).await?;
        for (phase, prefix) in [(Phase::Plan, "plan"), (Phase::Apply, "apply")] {
            let task = new_task(&run, phase, new_id(prefix));
            task::insert(&mut change.tx, &task).await?;
        }
        info!(run = run.id, workspace = run.workspace_id, "run made");
        change.record(&run, run.status.name()).await?;
        match run.is_exclusive {
            true => change.start_next(&run.workspace_id).await?,
            false => change.start_plan(&mut run, &workspace).await?,
        }
        let run = change.run(&run.id).await?;
        self.commit(change).await?;
        Ok(run)
    }

    /// Says yes to a run's plan.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the run does not wait for it.
    pub(crate) async fn confirm(&self, run_id: &str, decision: Decision) -> Result<Run, Error> {
        let mut change = self.change_by(decision).await?;
        let mut run = change.run(run_id).await?;
        match run.status {
            Status::Planned => {}
            Status::PlannedAndSaved => change.take_turn(&mut run).await?,
            _ => return Err(wrong_status(&run, "applied", "only a planned run can")),
        }
        change.confirm(&mut run).await?;
        self.commit(change).await?;
        Ok(run)
    }

    /// Says no to a run's plan.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the run does not wait for it.
    pub(crate) async fn discard(&self, run_id: &str, decision: Decision) -> Result<Run, Error> {
        let mut change = self.change_by(decision).await?;
        let mut run = change.run(run_id).await?;
        if !matches!(run.status, Status::Planned | Status::PlannedAndSaved) {
            return Err(wrong_status(&run, "discarded", "only a planned run can"));
        }
        change.end_run(&mut run, Status::Discarded, None).await?;
        self.commit(change).await?;
        Ok(run)
    }

    /// Cancels a run: at once while no agent has started its task; else it is canceling
    /// until its agent has interrupted it. An unreachable apply is given up, and its workspace
    /// stays locked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is nothing to cancel.
    pub(crate) async fn cancel(&self, run_id: &str, decision: Decision) -> Result<Run, Error> {
        let mut change = self.change_by(decision).await?;
        let mut run = change.run(run_id).await?;
        let phase = match run.status {
            Status::Planned | Status::PlannedAndSaved => {
                return Err(wrong_status(&run, "canceled", "discard it instead"));
            }
            _ => run.phase(),
        };
        let phase = phase.ok_or_else(|| wrong_status(&run, "canceled", "it has ended"))?;
        let mut task = task::of_run(&mut change.tx, run_id, phase).await?;
        if task.state == State::Running {
            task.cancel_requested = true;
            task::update(&mut change.tx, &task).await?;
            change.woken_agents.extend(task.agent_id);
            if run.status != Status::Canceling {
                change.set_status(&mut run, Status::Canceling).await?;
            }
        } else {
            let message = match task.state {
                State::Unreachable => {
                    let why = "Canceled while its agent was out of reach: the apply may have gone \
                               on there, so compare the workspace's state with the real resources \
                               before the next run. An agent that comes back keeps the state in \
                               its data directory, below lost.";
                    let advice = change.lock(&run, why).await?;
                    Some(format!("{why}\n{advice}"))
                }
                _ => None,
            };
            change.take_back(&mut task, State::Canceled).await?;
            change.end_run(&mut run, Status::Canceled, message).await?;
        }
        info!(run = run.id, "run's cancel asked for");
        self.commit(change).await?;
        Ok(run)
    }

    /// Gives up a run that has been canceling for some time: it ends, whatever its agent does.
    /// The workspace of an apply stays locked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the run is not canceling, or not long enough.
    pub(crate) async fn force_cancel(
        &self,
        run_id: &str,
        decision: Decision,
    ) -> Result<Run, Error> {
        let mut change = self.change_by(decision).await?;
        let mut run = change.run(run_id).await?;
        let (Some(available_at), Some(phase)) = (force_cancel_available_at(&run), run.phase())
        else {
            return Err(wrong_status(&run, "force-canceled", "cancel it first"));
        };
        if change.now < available_at {
            return Err(Error::Conflict(format!(
                "Run {} is being canceled: it can be force-canceled from {} on.",
                run.id,
                rfc3339(available_at)
            )));
        }
        let mut message = format!("It was force-canceled before its {} had ended.", phase.name());
        if phase == Phase::Apply {
            let advice = change.lock(&run, &message).await?;
            message = format!("{message}\n{advice}");
        }
        let mut task = task::of_run(&mut change.tx, run_id, phase).await?;
        change.take_back(&mut task, State::Canceled).await?;
        change.end_run(&mut run, Status::Canceled, Some(message)).await?;
        info!(run = run.id, "run force-canceled");
        self.commit(change).await?;
        Ok(run)
    }
}

impl Change {
    /// The run with this id.
    pub(super) async fn run(&mut self, id: &str) -> Result<Run, Error> {
        run::find(&mut self.tx, id)
            .await?
            .ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    /// The workspace of a run.
    pub(super) async fn workspace_of(&mut self, run: &Run) -> Result<Workspace, Error> {
        let workspace = workspace::find(&mut self.tx, &run.workspace_id).await?;
        Ok(workspace.context("a run without its workspace")?)
    }

    /// Gives a run its next status.
    pub(super) async fn set_status(&mut self, run: &mut Run, status: Status) -> sqlx::Result<()> {
        run.status = status;
        run.updated_at = self.now;
        info!(run = run.id, ?status, "run");
        run::update(&mut self.tx, run).await?;
        self.record(run, status.name()).await?;
        self.call_webhooks(run).await
    }

    /// Gives a run whose plan is kept its turn among the workspace's runs.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another run has it, or the workspace is locked.
    async fn take_turn(&mut self, run: &mut Run) -> Result<(), Error> {
        if let Some(current) = run::current(&mut self.tx, &run.workspace_id).await? {
            return Err(Error::Conflict(format!(
                "Run {} of the workspace is under way. Apply this plan when that has ended, \
                 unless it changes the state: then make a new plan.",
                current.id
            )));
        }
        if let Some(reason) = self.workspace_of(run).await?.lock_reason {
            return Err(Error::Conflict(format!("The workspace is locked. {reason}")));
        }
        run.is_exclusive = true;
        Ok(())
    }

    /// Keeps the plan of a run for later, unless the state has changed since it began.
    pub(super) async fn save_plan(&mut self, run: &mut Run) -> Result<(), Error> {
        self.set_status(run, Status::PlannedAndSaved).await?;
        let current = state_version::current(&mut self.tx, &run.workspace_id).await?;
        Ok(self.discard_stale(run, current.map_or(0, |state| state.number)).await?)
    }

    /// Discards the kept plans that were made with another state than the workspace's.
    pub(super) async fn discard_all_stale(&mut self, state: &StateVersion) -> sqlx::Result<()> {
        for mut run in run::saved(&mut self.tx, &state.workspace_id).await? {
            self.discard_stale(&mut run, state.number).await?;
        }
        Ok(())
    }

    async fn discard_stale(&mut self, run: &mut Run, state_number: i64) -> sqlx::Result<()> {
        if run.planned_state == Some(state_number) {
            return Ok(());
        }
        self.actor = Actor::SERVER;
        let message =
            "The workspace's state has changed since this plan was made. Start a new run."
                .to_owned();
        self.end_run(run, Status::Discarded, Some(message)).await
    }

    /// Goes on from a plan that has changes.
    pub(super) async fn confirm(&mut self, run: &mut Run) -> Result<(), Error> {
        // The apply goes where the plan went: it may rely on what is there.
        let plan = task::of_run(&mut self.tx, &run.id, Phase::Plan).await?;
        let Some(pool_id) = plan.pool_id else {
            let message =
                "The agent pool that planned this run is deleted. Start a new run.".to_owned();
            return Ok(self.end_run(run, Status::Errored, Some(message)).await?);
        };
        self.set_status(run, Status::Confirmed).await?;
        let mut apply = task::of_run(&mut self.tx, &run.id, Phase::Apply).await?;
        if run.has_changes == Some(false) {
            // Others take it for a failure that the state is as before.
            apply.level = OPTIONS_LEVEL;
        }
        self.queue(&mut apply, pool_id).await?;
        Ok(self.set_status(run, Status::ApplyQueued).await?)
    }

    /// Ends a run: what it has not come to is canceled, and the workspace's
    /// next run starts.
    pub(super) async fn end_run(
        &mut self,
        run: &mut Run,
        status: Status,
        message: Option<String>,
    ) -> sqlx::Result<()> {
        run.error_message = message;
        self.set_status(run, status).await?;
        run_settings::delete(&mut self.tx, &run.id).await?;
        for phase in [Phase::Plan, Phase::Apply] {
            let mut task = task::of_run(&mut self.tx, &run.id, phase).await?;
            if task.state == State::Pending {
                task.state = State::Canceled;
                task.ended_at = Some(self.now);
                task::update(&mut self.tx, &task).await?;
            }
        }
        // The two call each other: runs that can't be started end one after
        // the other.
        Box::pin(self.start_next(&run.workspace_id)).await
    }

    /// Starts the run of a workspace that has waited longest, unless one is
    /// under way or the workspace is locked.
    pub(super) async fn start_next(&mut self, workspace_id: &str) -> sqlx::Result<()> {
        if run::current(&mut self.tx, workspace_id).await?.is_some() {
            return Ok(());
        }
        self.actor = Actor::SERVER;
        let Some(mut run) = run::next(&mut self.tx, workspace_id).await? else {
            return Ok(());
        };
        let workspace = workspace::find(&mut self.tx, workspace_id).await?;
        let Some(workspace) = workspace.filter(|workspace| workspace.lock_reason.is_none()) else {
            return Ok(());
        };
        self.start_plan(&mut run, &workspace).await
    }

    async fn start_plan(&mut self, run: &mut Run, workspace: &Workspace) -> sqlx::Result<()> {
        let pool = pool_of(&mut self.tx, workspace).await?;
        let Some(pool) = pool else {
            let message = "The workspace has no agent pool: link it to one, or give its \
                           environment or the account a default pool."
                .to_owned();
            return self.end_run(run, Status::Errored, Some(message)).await;
        };
        let mut plan = task::of_run(&mut self.tx, &run.id, Phase::Plan).await?;
        self.queue(&mut plan, pool.id).await?;
        self.set_status(run, Status::PlanQueued).await
    }

    async fn queue(&mut self, task: &mut Task, pool_id: String) -> sqlx::Result<()> {
        task.state = State::Queued;
        task.queued_at = Some(self.now);
        task.level = task.level.max(self.level_of_hooks(task).await?);
        self.queued.push((pool_id.clone(), task.level));
        task.pool_id = Some(pool_id);
        task::update(&mut self.tx, task).await
    }
}

fn new_task(run: &Run, phase: Phase, phase_id: String) -> Task {
    Task {
        id: new_id("task"),
        phase_id,
        run_id: run.id.clone(),
        phase,
        state: State::Pending,
        attempt: 1,
        // An apply does what was planned.
        level: match phase {
            Phase::Plan if run.inputs.options != RunOptions::default() => OPTIONS_LEVEL,
            _ => 1,
        },
        pool_id: None,
        agent_id: None,
        cancel_requested: false,
        offered_at: None,
        lease_expires_at: None,
        overdue_at: None,
        message: None,
        exit_code: None,
        oom_killed: false,
        summary: Summary::default(),
        created_at: run.created_at,
        queued_at: None,
        started_at: None,
        ended_at: None,
    }
}

fn wrong_status(run: &Run, done: &str, but: &str) -> Error {
    let status = run.status.name().replace('_', " ");
    Error::Conflict(format!("Run {} is {status} and can't be {done}: {but}.", run.id))
}

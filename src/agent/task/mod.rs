//! One task, from its claim to its outcome.
//!
//! The agent may be killed at any point of this. What it needs to go on is in
//! the journal before it matters: the task before anything is done for it, the
//! container before it is started. What a container wrote is on the engine's
//! disk until its outcome is with the server, so the log can be made again.

mod accounts;
pub(crate) mod ahead;
#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod cancel_tests;
mod command_times;
mod container_maker;
pub(crate) mod disk;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod entry_point;
mod environment;
mod follow;
mod hand_over;
mod hooks;
mod inner_strings;
mod input_archive;
pub(crate) mod interrupt;
mod left;
pub(crate) mod lost;
mod memory;
mod outcome;
mod paths;
mod plan_files;
mod plan_flags;
mod plan_json;
#[cfg(test)]
mod planned_image;
mod prepare;
mod resume;
mod time_limit;
mod unmoved_state;
#[cfg(test)]
mod unusable_tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span, error, info, warn};

use crate::client::{CallError, TaskClient};
use crate::context::Context;
use crate::engine::{self, Condition};
use crate::journal::{Container, Entry};
use crate::log::Filter;
use crate::log::end_mark::EndMark;
use crate::log::limit::Limiter;
use crate::log::spool::Spool;
use crate::log::upload::upload;
use crate::phase::{Ended, Phase};
use crate::progress::Progress;
use crate::slots::Slot;
use ahead::{Held, Model};
use follow::{OutputFrom, follow};
use inner_strings::inner_strings;
use interrupt::Interrupt;
use left::Left;
use outcome::{End, Ending, has_finished, outcome};
use protocol::redact::Redactor;
use protocol::{Finish, Kind, Outcome, Task, TaskState};
use resume::Resumption;

/// What the service and a task tell each other.
#[derive(Debug)]
pub(crate) struct TaskChannels {
    /// How far the task is.
    pub state: watch::Sender<TaskState>,
    /// Whether it is to end.
    pub orders: watch::Receiver<Option<Interrupt>>,
    /// When the task was offered; none: an earlier agent began it.
    pub offered: Option<SystemTime>,
}

/// Runs a task, or continues one that an earlier agent began, and reports its
/// outcome. The slot is taken until then. Gives what its container was made of, if another one
/// like it may be of use.
pub(crate) async fn run_task(
    context: Arc<Context>,
    mut entry: Entry,
    slot: Slot,
    channels: TaskChannels,
) -> Option<Model> {
    let resumption = resume::resume(&context, &mut entry, channels.orders.clone()).await;
    if let Resumption::Stopped = resumption {
        return None;
    }
    let task = entry.record().claimed.task.clone();
    let client = context.client.of_task(&entry.record().claimed);
    let progress = context.progress.begin(&task, client.clone(), channels.offered);
    if let Some(id) = progress.trace_id() {
        Span::current().record("trace_id", id);
    }
    info!(kind = %task.kind, workspace = task.workspace.name, "task begins");
    let mut orders = channels.orders.clone();
    let mut canceled_at = None;
    let limit = context.config.grace + AFTER_CANCEL;
    let left = Mutex::default();
    let progress_of_job = progress.clone();
    let mut job = Job {
        context,
        entry,
        slot,
        channels,
        client,
        progress: progress_of_job,
        left,
        model: None,
        is_over_disk: AtomicBool::default(),
    };
    let mut tries = 0;
    let ended = loop {
        if let Resumption::Refused(why) = &resumption {
            warn!("task is no longer this agent's: {why}");
            break Ended::Lost;
        }
        let mut finish = tokio::select! {
            // A noted end is final.
            biased;
            finish = job.until_finished() => finish,
            () = overdue(&mut orders, &mut canceled_at, limit) => {
                let why = format!(
                    "Canceled, and given up after {} s, in which the container engine, the server or a disk did not answer.",
                    limit.as_secs()
                );
                job.give_up(Outcome::Canceled, &why).map(Some).map_err(CallError::from)
            }
        };
        if let Err(error) = &finish
            && stays(error, job.task().kind)
        {
            tries += 1;
            if tries >= TRIES {
                let why = format!("Error: {error:#}");
                finish = job.give_up(Outcome::Errored, &why).map(Some).map_err(CallError::from);
            }
        }
        match job.reported(finish).await {
            Ok(Some(outcome)) => {
                let ended = Ended::With(outcome);
                info!(outcome = ended.name(), "task ended");
                break ended;
            }
            Ok(None) => {
                info!("task given back: it had not begun");
                break Ended::Unfinished;
            }
            Err(CallError::Refused { why, .. }) => {
                warn!("task is no longer this agent's: {why}");
                break Ended::Lost;
            }
            // The container may be running.
            Err(error) => {
                error!("cannot go on with the task, trying again: {error:#}");
                tokio::time::sleep(BEFORE_RETRY).await;
            }
        }
    };
    // Its slot is free only when its container is gone and nothing says any more that
    // it is taken: a crash in between would give two tasks one slot.
    while let Err(error) = progress.during(Phase::CleaningUp, job.clean_up()).await {
        error!("cannot clean up after the task, trying again: {error:#}");
        tokio::time::sleep(BEFORE_RETRY).await;
    }
    // Only now, since the server may offer it to this agent again.
    if let Ended::Unfinished = ended
        && let Err(error) = job.client.give_back().await
    {
        warn!("the task is given back when its lease ends: {error:#}");
    }
    let has_run = matches!(ended, Ended::With(_));
    progress.end(ended);
    job.model.filter(|_| has_run)
}

/// How long to wait after something on this host failed.
const BEFORE_RETRY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

/// How often a task is tried before an error ends it that does not pass by itself.
const TRIES: u32 = 12;

/// How long a canceled task may take to its end besides the grace of its container: that
/// is killed 10 s later, and its files are uploaded.
const AFTER_CANCEL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Waits until the run was canceled and `limit` has passed since.
async fn overdue(
    orders: &mut watch::Receiver<Option<Interrupt>>,
    canceled_at: &mut Option<Instant>,
    limit: Duration,
) {
    if canceled_at.is_none() {
        interrupt::told(orders, |order| order == Interrupt::Canceled).await;
        *canceled_at = Some(Instant::now());
    }
    let canceled_at = canceled_at.expect("it was just set");
    tokio::time::sleep_until(canceled_at + limit).await;
}

/// What came of a container.
enum Ran {
    /// It has ended; none: it is not to be started any more.
    Ended(Option<End>),
    /// It was started ahead, and has ended before its run began.
    NeverBegan,
}

struct Job {
    context: Arc<Context>,
    entry: Entry,
    slot: Slot,
    channels: TaskChannels,
    client: TaskClient,
    progress: Progress,
    /// What its container left, as far as that is fetched and nobody has taken it.
    left: Mutex<Left>,
    /// What its container was made of, if this agent made it.
    model: Option<Model>,
    /// Whether it is interrupted for what the engine's disk has, which a full one does not take
    /// as a notice.
    is_over_disk: AtomicBool,
}

impl Job {
    /// Gets the task to its end. None when this agent is stopped before its container is
    /// started, or can't keep the run behind its firewall: the server offers it again.
    async fn until_finished(&mut self) -> Result<Option<Finish>, CallError> {
        match self.entry.record().finish.clone() {
            // Said again: whether it was heard, nobody knows after a crash.
            Some(finish) => Ok(Some(finish)),
            None => self.until_ended().await,
        }
    }

    /// Reports an end, if it is one.
    async fn reported(
        &self,
        finish: Result<Option<Finish>, CallError>,
    ) -> Result<Option<Outcome>, CallError> {
        let Some(finish) = finish? else { return Ok(None) };
        self.progress.during(Phase::Finishing, self.report(&finish)).await?;
        Ok(Some(finish.outcome))
    }

    /// Ends the task as it is: waits neither for its container nor for the engine. What
    /// the container has of a state is kept when it is removed.
    fn give_up(&mut self, outcome: Outcome, why: &str) -> Result<Finish> {
        warn!("giving the task up: {why}");
        let why = self.redactor().mask(why);
        let mut spool = Spool::open(&self.entry.log())?;
        // On a full disk it is in the outcome alone.
        let _ = spool.write(format!("\n{why}\n").as_bytes());
        let task = self.task();
        let is_apply = task.kind == Kind::Apply && self.may_be_running();
        let finish = Finish {
            attempt: task.attempt,
            outcome,
            message: Some(why),
            exit_code: None,
            oom_killed: false,
            has_changes: None,
            log_bytes: spool.len(),
            log_sha256: spool.seal()?,
            unsaved_state: is_apply.then(|| {
                format!(
                    "The state was not taken from the apply's container. When the container engine answers, the agent keeps it on its host in {}; if it cannot, it keeps the container {}.",
                    self.context.journal.lost_path(&task.id, task.attempt).display(),
                    self.container_name()
                )
            }),
            image: None,
            summary: None,
        };
        if let Err(error) = self.entry.note_finish(finish.clone()) {
            warn!("the outcome is reported without a note of it here: {error:#}");
        }
        Ok(finish)
    }

    /// Tells the server how it ended, and sends what that lacks of the log.
    async fn report(&self, finish: &Finish) -> Result<(), CallError> {
        while self.progress.step("report outcome", self.client.finish(finish)).await?.is_some() {
            let spool = Spool::open(&self.entry.log())?;
            let complete = CancellationToken::new();
            complete.cancel();
            let (interval, length) = (Duration::ZERO, spool.watch());
            let acknowledged = |offset| self.progress.acknowledged(offset);
            upload(&self.client, spool.path(), length, &complete, interval, acknowledged).await?;
        }
        Ok(())
    }

    /// Runs the container, with the log going up beside it, and writes down how
    /// it ended.
    async fn until_ended(&mut self) -> Result<Option<Finish>, CallError> {
        let mut spool = Spool::open(&self.entry.log())?;
        let complete = CancellationToken::new();
        let interval = Duration::from_millis(self.context.intervals().log_milliseconds.into());
        let log = spool.path().to_owned();
        let (client, length) = (self.client.clone(), spool.watch());
        self.progress.has_log(length.clone());
        let uploading = {
            let (log, length, complete) = (log.clone(), length.clone(), complete.clone());
            let progress = self.progress.clone();
            async move {
                let acknowledged = |offset| progress.acknowledged(offset);
                upload(&client, &log, length, &complete, interval, acknowledged).await
            }
        };
        let mut uploading = AbortOnDropHandle::new(tokio::spawn(uploading.in_current_span()));

        let ran = tokio::select! {
            ran = self.run(&mut spool) => ran,
            lost = &mut uploading => Err(lost.context("the log's upload panicked")?
                .expect_err("it does not end before the log is complete")),
        };
        let mut end = match ran {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(None),
            Err(error @ CallError::Refused { .. }) => return Err(error),
            Err(error) if is_away(&error) => return Err(error),
            Err(error) if self.may_be_running() && !is_final(&error) => return Err(error),
            Err(error) => {
                warn!("task failed: {error:#}");
                End { unsaved_state: self.gone_state(&error), ..failed(format!("{error:#}")) }
            }
        };
        self.channels.state.send_replace(TaskState::Uploading);
        let handing_over = Box::pin(self.hand_over(&mut end));
        let handed_over = self.progress.during(Phase::Uploading, handing_over).await?;
        for note in handed_over.notes {
            let note = self.redactor().mask(&note);
            spool.write_patiently(format!("\n{note}\n").as_bytes()).await?;
        }
        if let Some(message) = &mut end.message {
            *message = self.redactor().mask(message);
            spool.write_patiently(format!("\n{message}\n").as_bytes()).await?;
        }
        let sha256 = spool.seal()?;
        complete.cancel();
        let rest = async { uploading.await.context("the log's upload panicked")? };
        let rest = self.progress.step("upload rest of log", rest);
        self.progress.during(Phase::Finishing, rest).await?;

        let finish = Finish {
            attempt: self.task().attempt,
            outcome: end.outcome,
            message: end.message,
            exit_code: end.exit_code,
            oom_killed: end.oom_killed,
            has_changes: end.has_changes,
            log_bytes: spool.len(),
            log_sha256: sha256,
            unsaved_state: end.unsaved_state,
            image: handed_over.image,
            summary: handed_over.summary,
        };
        self.entry.note_finish(finish.clone())?;
        Ok(Some(finish))
    }

    /// Gets the container to its end, with all it wrote in the log; none when it is
    /// not to be started any more.
    async fn run(&mut self, spool: &mut Spool) -> Result<Option<End>, CallError> {
        loop {
            if let Ran::Ended(end) = self.run_once(spool).await? {
                return Ok(end);
            }
            warn!("the run did not begin in the container that waited for it: making another one");
            self.entry.note_never_begun()?;
        }
    }

    async fn run_once(&mut self, spool: &mut Spool) -> Result<Ran, CallError> {
        let mut waiting = None;
        let replay = self.entry.record().container.is_some();
        if !replay {
            // A crash may have left the beginning of a log.
            spool.truncate(0)?;
            if self.is_interrupted() {
                return Ok(Ran::Ended(self.never_begun()));
            }
            let (mut any, mut cancel) =
                (self.channels.orders.clone(), self.channels.orders.clone());
            let preparing = self.progress.during(Phase::Preparing, Box::pin(self.prepare(spool)));
            let prepared = tokio::select! {
                prepared = preparing => prepared?,
                // A download, a pull and an engine can take long.
                () = interrupt::told(&mut any, |_| true) => {
                    return Ok(Ran::Ended(self.never_begun()));
                }
            };
            let Some(mut prepared) = prepared else {
                warn!("task not started: the firewall rules of runs are not up");
                return Ok(Ran::Ended(None));
            };
            tokio::select! {
                started = self.progress.step("announce start", self.client.start()) => started?,
                // The server may have heard it, so only what ends the run ends this.
                () = interrupt::told(&mut cancel, |order| order == Interrupt::Canceled) => {
                    return Ok(Ran::Ended(self.never_begun()));
                }
            }
            // A replay begins there, also after a loss of power.
            spool.sync()?;
            let container = Container {
                id: prepared.container,
                log_start: spool.len(),
                state_sha256: prepared.state_sha256,
                started_at: Some(time_limit::since_1970()),
                is_ahead: prepared.waiting.is_some(),
            };
            self.entry.note_container(container)?;
            if let Some(waiting) = &mut prepared.waiting {
                waiting.belongs_to_a_task();
            }
            waiting = prepared.waiting;
            self.model = Some(prepared.model);
        }
        self.channels.state.send_replace(TaskState::Running);
        let container =
            self.entry.record().container.clone().context("the container was just recorded")?;
        let ended = Box::pin(self.look_after(&container, spool, waiting, replay));
        self.progress.during(Phase::Running, ended).await
    }

    /// What comes of an interrupt before the container is started.
    fn never_begun(&self) -> Option<End> {
        let is_canceled = *self.channels.orders.borrow() == Some(Interrupt::Canceled);
        is_canceled.then(|| canceled(self.why_interrupted()))
    }

    /// Starts the container, or lets one begin that waits, and looks after it until its end.
    async fn look_after(
        &self,
        container: &Container,
        spool: &mut Spool,
        waiting: Option<Held>,
        replay: bool,
    ) -> Result<Ran, CallError> {
        let engine = self.context.engine.clone();
        if replay && container.is_ahead {
            self.settle_ahead(container).await?;
        }
        let limit = self.context.config.log_limit * 1024 * 1024;
        let name = self.container_name();
        let filter = || Filter::new(EndMark::new(&name), self.redactor(), Limiter::new(limit));
        let output = disk::Output::default();
        let from = match (replay, waiting) {
            (true, _) => OutputFrom::File,
            (false, None) => OutputFrom::Start,
            (false, Some(waiting)) => OutputFrom::Waiting(waiting),
        };
        let following = follow(&engine, container, spool, filter, from, &output, &self.progress);
        let condition = tokio::select! {
            condition = following => condition?,
            error = interrupt::when_told(
                &engine,
                &container.id,
                self.channels.orders.clone(),
                self.has_to_end(container, &output, replay),
                self.context.config.grace,
            ) => return Err(error.expect_err("it only ends with an error").into()),
            never = self.save_state_as_it_changes(&container.id) => match never {},
            never = self.end_overdue_hooks(&container.id) => match never {},
        };
        if self.never_began(container, condition).await? {
            return Ok(Ran::NeverBegan);
        }
        let ending = self.end(container, condition);
        let end = self.progress.step("read how it ended", ending).await?;
        if end.outcome == Outcome::Errored {
            self.progress.failed();
        }
        Ok(Ran::Ended(Some(end)))
    }

    /// Waits until the container has to end for a reason of its own.
    async fn has_to_end(&self, container: &Container, output: &disk::Output, replay: bool) {
        tokio::select! {
            () = self.pressed_for_memory(&container.id, replay) => {}
            () = self.pressed_for_disk(&container.id, output, replay) => {}
            () = self.out_of_time(container, replay) => {}
        }
    }

    /// What the container's end means.
    async fn end(&self, container: &Container, condition: Condition) -> Result<End, CallError> {
        let Condition::Ended { exit_code, oom_killed } = condition else {
            return Err(anyhow!("the container did not end").into());
        };
        let engine = &self.context.engine;
        self.fetch_left(&container.id).await?;
        self.trace_commands(&container.id).await;
        let (status, unusable) = match self.read_left(&container.id, paths::STATUS).await {
            Err(error) if engine::is_unusable(&error) => (Vec::new(), Some(error)),
            status => (status?.unwrap_or_default(), None),
        };
        let status = String::from_utf8_lossy(&status).into_owned();
        let (mut was_pressed, mut was_over_disk, mut was_overdue) = (false, false, false);
        // What finished needs no reason.
        if !has_finished(self.task().kind, &status) {
            was_pressed = self.has_notice(&container.id, paths::MEMORY_NOTICE).await?;
            was_over_disk = self.is_over_disk.load(Ordering::Relaxed)
                || self.has_notice(&container.id, paths::DISK_NOTICE).await?;
            was_overdue = self.has_notice(&container.id, paths::TIME_NOTICE).await?;
        }
        // What a shell ends with when it does not find a program.
        let image = match exit_code {
            127 => engine.image_of(&container.id).await.ok().map(|image| image.name),
            _ => None,
        };
        let interrupt = *self.channels.orders.borrow();
        let filled_disk = match (exit_code, interrupt) {
            (0, _) | (_, Some(_)) => None,
            _ => self.over_disk_at_end(&container.id).await,
        };
        let ending = Ending {
            kind: self.task().kind,
            status: &status,
            exit_code,
            oom_killed,
            was_pressed,
            was_over_disk,
            filled_disk,
            reached: self.time_limit().filter(|_| was_overdue),
            interrupt,
            image: image.as_deref(),
            platform: self.task().platform,
            environment_hooks: &self.task().environment_hooks,
        };
        let mut end = outcome(&ending, &self.context.config);
        if let Some(error) = unusable {
            end.fail(format!("Error: cannot tell how the run ended: {error}"));
        }
        if ending.has_applied() {
            self.check_state_moved(container, &mut end).await?;
        }
        if let Some(code) = end.exit_code {
            self.progress.ran(code, oom_killed);
        }
        Ok(end)
    }

    async fn has_notice(&self, container: &str, path: &str) -> Result<bool> {
        match self.read_left(container, path).await {
            // The agent's own is a file.
            Err(error) if engine::is_unusable(&error) => Ok(false),
            notice => notice.map(|notice| notice.is_some()),
        }
    }

    /// Ends the container of a task that is somebody else's now, or was given up, and keeps
    /// here what the server does not have.
    async fn end_lost(&self) -> Result<()> {
        let record = self.entry.record();
        let Some(Container { id, state_sha256, .. }) = &record.container else { return Ok(()) };
        // All else that ended is with the server.
        if record.finish.as_ref().is_some_and(|finish| finish.unsaved_state.is_none()) {
            return Ok(());
        }
        let task = self.task();
        let lost = lost::Lost {
            task_id: &task.id,
            attempt: task.attempt,
            is_apply: task.kind == Kind::Apply,
            container: id,
            errored_state: self.in_work(paths::ERRORED_STATE).ok(),
            state_sha256: state_sha256.as_deref(),
        };
        lost.end(&self.context).await
    }

    /// What became of the state of an apply whose container is gone, if `error` says so.
    fn gone_state(&self, error: &CallError) -> Option<String> {
        let is_gone = matches!(error, CallError::Here(error) if engine::is_gone(error));
        (self.task().kind == Kind::Apply && self.may_be_running() && is_gone).then(|| {
            "The container of the apply was removed, and what it had not saved with it.".to_owned()
        })
    }

    /// Removes the container, unless it has a state that can't be taken, and forgets the
    /// task.
    async fn clean_up(&self) -> Result<()> {
        match self.end_lost().await {
            Err(error) if !lost::is_waited_for(&error) => {
                warn!("{}", lost::kept(&error));
                return self.entry.end();
            }
            ended => ended?,
        }
        // One that was started ahead has no label of the task.
        self.context.engine.remove(&self.container_name()).await?;
        self.entry.end()
    }

    fn task(&self) -> &Task {
        &self.entry.record().claimed.task
    }

    fn container_name(&self) -> String {
        format!("{}-{}", self.task().id, self.task().attempt)
    }

    /// Where a file is in the directory that Terraform is started in.
    fn in_work(&self, name: &str) -> Result<String> {
        Ok(format!("{}/{name}", work_directory(self.task())?))
    }

    /// The filter for all that this run must not show.
    fn redactor(&self) -> Redactor {
        let (record, context) = (&self.entry.record().claimed, &self.context);
        let sensitive = record.task.variables.iter().filter(|variable| variable.sensitive);
        let proxies = context.proxy.iter();
        let own = [&record.task_token, &context.config.token, &context.client.session()];
        let own = own.into_iter().chain(&record.run_token);
        let inner = sensitive.clone().flat_map(|variable| inner_strings(variable.value.expose()));
        let secrets: Vec<String> = sensitive
            .map(|variable| &variable.value)
            .chain(own)
            .map(|secret| secret.expose().to_owned())
            .chain(inner)
            .chain(proxies.flat_map(|(_, value)| config::proxy::secrets_of(value)))
            .collect();
        Redactor::new(secrets.iter().map(String::as_str))
    }

    fn may_be_running(&self) -> bool {
        self.entry.record().container.is_some()
    }

    fn is_interrupted(&self) -> bool {
        self.channels.orders.borrow().is_some()
    }

    fn why_interrupted(&self) -> &'static str {
        self.channels.orders.borrow().unwrap_or(Interrupt::Canceled).why()
    }
}

/// The directory that Terraform is started in.
///
/// # Errors
/// The workspace's directory leads out of the configuration.
fn work_directory(task: &Task) -> Result<String> {
    let path = Path::new(paths::WORK).join(directory_inside(task)?);
    Ok(path.to_str().context("the working directory is not UTF-8")?.trim_end_matches('/').into())
}

/// The same, in the configuration.
///
/// # Errors
/// As [`work_directory`].
fn directory_inside(task: &Task) -> Result<PathBuf> {
    let directory = task.working_directory.as_deref().unwrap_or("");
    configuration::inside(Path::new(directory)).with_context(|| {
        format!("the workspace's directory `{directory}` is outside of the configuration")
    })
}

/// Whether an error means that the engine does not answer, and may again.
fn is_away(error: &CallError) -> bool {
    matches!(error, CallError::Here(error) if engine::is_away(error))
}

/// Whether an error means that the task's container is not there any more, or
/// can't ever be started.
fn is_final(error: &CallError) -> bool {
    matches!(error, CallError::Here(error) if engine::is_gone(error) || engine::is_invalid(error))
}

/// Whether an error does not pass by itself, though the task is still this agent's. A disk that
/// the container of a plan has filled stays full until that is removed; an apply's has a state.
fn stays(error: &CallError, kind: Kind) -> bool {
    match error {
        CallError::Here(error) if kind == Kind::Plan => !engine::is_away(error),
        CallError::Refused { .. } | CallError::Away(_) => false,
        CallError::FileRefused(_) => true,
        CallError::Here(error) => !lost::is_waited_for(error),
    }
}

fn failed(message: String) -> End {
    End {
        outcome: Outcome::Errored,
        exit_code: None,
        oom_killed: false,
        has_changes: None,
        message: Some(format!("Error: {message}")),
        unsaved_state: None,
    }
}

fn canceled(why: &str) -> End {
    End {
        outcome: Outcome::Canceled,
        message: Some(format!("Interrupted before it began: {why}.")),
        ..failed(String::new())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use protocol::Secret;
    use protocol::{Claimed, Identity, Named, Operation};

    /// The machine and the boot of the agent in tests.
    pub(crate) fn here() -> Identity {
        Identity { machine_id: "machine-1".to_owned(), boot_id: "boot-1".to_owned() }
    }

    /// A claimed plan, for tests.
    pub(crate) fn claimed() -> Claimed {
        let named = |id: &str| Named { id: id.to_owned(), name: format!("{id}-name") };
        Claimed {
            task: Task {
                id: "task-1".to_owned(),
                attempt: 1,
                kind: Kind::Plan,
                run_id: "run-1".to_owned(),
                run_source: "api".to_owned(),
                operation: Operation::Apply,
                options: protocol::RunOptions::default(),
                changes_nothing: false,
                workspace: named("ws-1"),
                environment: named("env-1"),
                platform: None,
                terraform_version: None,
                allow_other_terraform_version: false,
                image: None,
                image_id: None,
                image_content: None,
                working_directory: None,
                variables: Vec::new(),
                hooks: std::collections::BTreeMap::new(),
                environment_hooks: Vec::new(),
                timeout_seconds: None,
            },
            task_token: Secret::new("token-of-the-task"),
            run_token: Some(Secret::new("token-of-the-run")),
        }
    }

    #[test]
    fn a_working_directory_stays_inside() {
        let mut task = claimed().task;
        assert_eq!(work_directory(&task).unwrap(), "/scalr/work");
        task.working_directory = Some("./modules/net/".to_owned());
        assert_eq!(work_directory(&task).unwrap(), "/scalr/work/modules/net");
        task.working_directory = Some("../../etc".to_owned());
        assert!(work_directory(&task).is_err());
    }
}

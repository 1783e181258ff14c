//! What each running task is at. A task tells it here, and nowhere else; from
//! here those hear it who want to know: `scalr-agent status` and telemetry.
//!
//! `DATA/progress.json` is a [`Snapshot`], for people who ask: while there are
//! tasks it is written about once a second. It holds no secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use jiff::Timestamp;
use opentelemetry::trace::{Span as _, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::client::TaskClient;
use crate::json_file;
use crate::phase::{Ended, Phase};
use crate::telemetry::{TaskTrace, Telemetry};
use config::layout::data;
use protocol::{Kind, Task};

/// How often the file is written while there are tasks.
const WHILE_BUSY: Duration = Duration::from_secs(1);

/// How often it is written at least, which shows that an agent is running.
const WHILE_IDLE: Duration = Duration::from_secs(10);

/// Older than this it is not what an agent does, but what one did: an agent writes
/// it four times as often.
pub(crate) const STALE: Duration = Duration::from_secs(40);

/// What an agent does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// When the agent wrote it.
    pub written_at: Timestamp,
    /// Each running task.
    pub tasks: Vec<TaskSnapshot>,
}

/// What a task is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskSnapshot {
    /// The task's id.
    pub task: String,
    /// The attempt at it.
    pub attempt: u32,
    /// What is done for it.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// Whether something of it waits for a server that does not answer.
    pub waiting_for_server: bool,
    /// The memory in use by its container, in bytes, when last looked at.
    pub memory_bytes: Option<u64>,
    /// How long its log is, in bytes.
    pub log_bytes: u64,
    /// How much of that the server has, in bytes; none: not asked yet.
    pub log_bytes_acknowledged: Option<u64>,
    /// Its trace and span, as W3C's `traceparent` has them: an agent that goes on
    /// continues the task continues its trace.
    pub traceparent: Option<String>,
}

/// All running tasks.
#[derive(Debug)]
pub(crate) struct Keeper {
    file: PathBuf,
    telemetry: Arc<Telemetry>,
    tasks: Mutex<BTreeMap<String, Arc<Mutex<TaskRecord>>>>,
    changed: Notify,
    /// What an earlier agent left.
    before: Option<Snapshot>,
}

/// One task's progress.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    keeper: Arc<Keeper>,
    id: String,
    task: Arc<Mutex<TaskRecord>>,
}

#[derive(Debug)]
struct TaskRecord {
    attempt: u32,
    kind: Kind,
    since: Timestamp,
    /// The phases that it is in, each inside of the one before it.
    phases: Vec<Begun>,
    client: TaskClient,
    memory_bytes: Option<u64>,
    log: Option<watch::Receiver<u64>>,
    /// How much of the log is counted in the metrics.
    log_counted: u64,
    acknowledged: Option<u64>,
    trace: TaskTrace,
}

#[derive(Debug)]
struct Begun {
    phase: Phase,
    since: Timestamp,
    at: Instant,
}

impl Keeper {
    /// Begins with no running task.
    pub(crate) fn new(data_dir: &Path, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let before = look(data_dir).unwrap_or_else(|error| {
            debug!("{error:#}");
            None
        });
        Arc::new(Self {
            file: file(data_dir),
            telemetry,
            tasks: Mutex::default(),
            changed: Notify::new(),
            before,
        })
    }

    /// A task runs, claimed from `offered` on; without that, an earlier
    /// agent began it.
    pub(crate) fn begin(
        self: &Arc<Self>,
        task: &Task,
        client: TaskClient,
        offered: Option<SystemTime>,
    ) -> Progress {
        let before = match offered {
            Some(_) => None,
            None => self.before.iter().flat_map(|before| &before.tasks).find(|at| at.is_of(task)),
        };
        if let Some(offered) = offered {
            let took = offered.elapsed().unwrap_or_default();
            self.telemetry.phase_ended(task.kind, Phase::Claimed, took);
        }
        let traceparent = before.and_then(|at| at.traceparent.as_deref());
        let record = Arc::new(Mutex::new(TaskRecord {
            attempt: task.attempt,
            kind: task.kind,
            since: Timestamp::now(),
            phases: Vec::new(),
            client,
            memory_bytes: None,
            log: None,
            log_counted: 0,
            acknowledged: None,
            trace: self.telemetry.begin(task, offered, traceparent),
        }));
        self.tasks().insert(task.id.clone(), Arc::clone(&record));
        self.changed.notify_one();
        Progress { keeper: Arc::clone(self), id: task.id.clone(), task: record }
    }

    /// Writes the file from time to time, for ever.
    pub(crate) async fn keep(&self) -> Infallible {
        loop {
            self.write();
            tokio::time::sleep(WHILE_BUSY).await;
            if self.tasks().is_empty() {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(WHILE_IDLE.saturating_sub(WHILE_BUSY)) => {}
                }
            }
        }
    }

    /// The agent ends: marks the tasks that are still running.
    pub(crate) fn stop(&self) {
        for task in self.tasks().values() {
            let mut task = lock(task);
            self.count_log(&mut task);
            task.trace.end(Ended::Unfinished);
        }
        self.write();
    }

    /// What can't be written is no reason to do less: it is for people alone.
    fn write(&self) {
        let at = |(id, task): (&String, &Arc<Mutex<TaskRecord>>)| {
            let mut task = lock(task);
            self.count_log(&mut task);
            task.at(id)
        };
        let tasks = self.tasks().iter().map(at).collect();
        let snapshot = Snapshot { tasks, written_at: Timestamp::now() };
        if let Err(error) = json_file::write(&self.file, &snapshot) {
            debug!("{error:#}");
        }
    }

    fn count_log(&self, task: &mut TaskRecord) {
        let length = task.log_bytes();
        self.telemetry.log_written(length.saturating_sub(task.log_counted));
        task.log_counted = task.log_counted.max(length);
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Mutex<TaskRecord>>>> {
        self.tasks.lock().expect("nothing panics while it holds the tasks")
    }
}

impl Progress {
    /// The id of its trace, if that is sent to anybody.
    pub(crate) fn trace_id(&self) -> Option<String> {
        lock(&self.task).trace.id()
    }

    /// Does `work`, which is the task's `phase`: one that is inside of another's
    /// work is a part of that. An error is the phase's.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn during<T, E>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let inside = Inside::begin(self, phase);
        let result = work.await;
        if result.is_err() {
            self.failed();
        }
        drop(inside);
        result
    }

    /// Does `work`, a step of the phase that the task is in: a trace shows it. Steps may
    /// overlap.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn step<T, E>(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut step = lock(&self.task).trace.step_begins(name);
        let result = work.await;
        if result.is_err() {
            step.set_status(Status::error(""));
        }
        result
    }

    /// A step of the phase that the task is in has begun and ended before.
    pub(crate) fn step_was(&self, name: &'static str, begun: SystemTime, ended: SystemTime) {
        lock(&self.task).trace.step_was(name, begun, ended);
    }

    /// The phase that the task is in has failed.
    pub(crate) fn failed(&self) {
        lock(&self.task).trace.phase_failed();
    }

    /// Its log is this one, from here on.
    pub(crate) fn has_log(&self, length: watch::Receiver<u64>) {
        let mut task = lock(&self.task);
        if task.log.is_none() {
            // An earlier agent's.
            task.log_counted = *length.borrow();
        }
        task.log = Some(length);
    }

    /// The server has this much of its log, in bytes.
    pub(crate) fn acknowledged(&self, offset: u64) {
        let mut task = lock(&self.task);
        let before = task.acknowledged.unwrap_or(offset);
        task.acknowledged = Some(offset);
        self.keeper.telemetry.log_acknowledged(offset.saturating_sub(before));
    }

    /// Its container uses this much memory, in bytes.
    pub(crate) fn uses_memory(&self, bytes: u64) {
        let mut task = lock(&self.task);
        task.memory_bytes = Some(bytes);
        task.trace.uses_memory(bytes);
    }

    /// Its container ended.
    pub(crate) fn ran(&self, exit_code: i64, oom_killed: bool) {
        let mut task = lock(&self.task);
        task.memory_bytes = None;
        task.trace.ran(exit_code, oom_killed);
    }

    /// It is out of hand.
    pub(crate) fn end(self, ended: Ended) {
        let mut task = lock(&self.task);
        self.keeper.count_log(&mut task);
        self.keeper.telemetry.task_ended(task.kind, ended);
        task.trace.end(ended);
        drop(task);
        self.keeper.tasks().remove(&self.id);
        self.keeper.changed.notify_one();
    }
}

/// A task is in a phase while this lives.
struct Inside<'a>(&'a Progress);

impl<'a> Inside<'a> {
    fn begin(progress: &'a Progress, phase: Phase) -> Self {
        let mut task = lock(&progress.task);
        task.phases.push(Begun { phase, since: Timestamp::now(), at: Instant::now() });
        task.trace.phase_begins(phase);
        Self(progress)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut task = lock(&self.0.task);
        let Some(begun) = task.phases.pop() else { return };
        task.trace.phase_ends();
        self.0.keeper.telemetry.phase_ended(task.kind, begun.phase, begun.at.elapsed());
        task.since = Timestamp::now();
    }
}

impl TaskRecord {
    fn at(&self, id: &str) -> TaskSnapshot {
        let (phase, since) = match self.phases.last() {
            Some(begun) => (begun.phase, begun.since),
            None => (Phase::Claimed, self.since),
        };
        TaskSnapshot {
            task: id.to_owned(),
            attempt: self.attempt,
            phase,
            since,
            waiting_for_server: self.client.waits(),
            memory_bytes: self.memory_bytes,
            log_bytes: self.log_bytes(),
            log_bytes_acknowledged: self.acknowledged,
            traceparent: self.trace.parent(),
        }
    }

    fn log_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, |length| *length.borrow())
    }
}

impl TaskSnapshot {
    /// Whether it is about this task, in this attempt.
    pub(crate) fn is_of(&self, task: &Task) -> bool {
        (&self.task, self.attempt) == (&task.id, task.attempt)
    }
}

fn lock(task: &Mutex<TaskRecord>) -> MutexGuard<'_, TaskRecord> {
    task.lock().expect("nothing panics while it holds a task")
}

/// What an agent does, or did last; `None` if none has reported it.
///
/// # Errors
/// The file can't be read.
pub(crate) fn look(data_dir: &Path) -> Result<Option<Snapshot>> {
    json_file::read(&file(data_dir))
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(data::PROGRESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::https::Https;
    use crate::task::tests::claimed;
    use config::Settings;

    /// A running task, and where its agent's data are.
    fn begun() -> (tempfile::TempDir, Arc<Keeper>, Progress) {
        let data = tempfile::tempdir().unwrap();
        let settings = Settings {
            url: Some("http://127.0.0.1:9".parse().unwrap()),
            token: Some(protocol::Secret::new("t")),
            ..Settings::default()
        };
        let client =
            Client::new(&settings.resolve().unwrap(), &Https::new(None, &[]).unwrap()).unwrap();
        let keeper = Keeper::new(data.path(), Telemetry::off());
        let claimed = claimed();
        let client = client.of_task(&claimed);
        let progress = keeper.begin(&claimed.task, client, Some(SystemTime::now()));
        (data, keeper, progress)
    }

    fn seen(data: &Path, keeper: &Keeper) -> Vec<TaskSnapshot> {
        keeper.write();
        look(data).unwrap().unwrap().tasks
    }

    #[tokio::test]
    async fn a_task_is_seen_until_it_ends() {
        let (data, keeper, progress) = begun();
        let at = seen(data.path(), &keeper).remove(0);
        assert!(at.is_of(&claimed().task), "{at:?}");
        assert_eq!((at.phase, at.log_bytes, at.log_bytes_acknowledged), (Phase::Claimed, 0, None));
        assert_eq!(at.traceparent, None, "nobody gets its trace");

        let length = watch::Sender::new(0);
        progress.has_log(length.subscribe());
        let running = async {
            length.send_replace(9);
            progress.acknowledged(4);
            progress.uses_memory(1_000);
            let at = seen(data.path(), &keeper).remove(0);
            assert_eq!((at.phase, at.memory_bytes), (Phase::Running, Some(1_000)));
            assert_eq!((at.log_bytes, at.log_bytes_acknowledged), (9, Some(4)));
            Ok::<_, ()>(())
        };
        progress.during(Phase::Running, running).await.unwrap();
        assert_eq!(seen(data.path(), &keeper)[0].phase, Phase::Claimed);
        progress.end(Ended::Lost);
        assert_eq!(seen(data.path(), &keeper), []);
    }

    #[tokio::test]
    async fn a_phase_inside_of_another_is_seen_until_it_ends_or_is_given_up() {
        let (data, keeper, progress) = begun();
        let preparing = async {
            let pulling = async {
                assert_eq!(seen(data.path(), &keeper)[0].phase, Phase::PullingImage);
                std::future::pending::<Result<(), ()>>().await
            };
            tokio::select! {
                biased;
                _ = progress.during(Phase::PullingImage, pulling) => {}
                () = std::future::ready(()) => {}
            }
            assert_eq!(seen(data.path(), &keeper)[0].phase, Phase::Preparing);
            Ok::<_, ()>(())
        };
        progress.during(Phase::Preparing, preparing).await.unwrap();
        assert_eq!(seen(data.path(), &keeper)[0].phase, Phase::Claimed);
    }

    #[tokio::test]
    async fn a_task_waits_for_a_server_that_is_away_and_reports_it() {
        let (data, keeper, progress) = begun();
        let client = lock(&progress.task).client.clone();
        assert!(!seen(data.path(), &keeper)[0].waiting_for_server);
        let starting = tokio::spawn(async move { client.start().await });
        while !seen(data.path(), &keeper)[0].waiting_for_server {
            tokio::task::yield_now().await;
        }
        starting.abort();
        starting.await.unwrap_err();
        assert!(!seen(data.path(), &keeper)[0].waiting_for_server);
    }
}

//! Ends a run that fills the engine's disk, before the disk is full: other runs need it,
//! and an interrupted run writes its state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::{Job, paths};
use crate::engine::FreeSpace;
use config::Config;

const MEBIBYTE: u64 = 1024 * 1024;

/// What to do about it.
pub(super) const ADVICE: &str = "Let it write less to /scalr, /tmp and its log, or give runs more with `scalr-agent configure --disk MB` on the agent's host, and restart the agent.";

/// Between two looks at what a run has written. The engine reads all its volumes for that,
/// so a slow look makes the next one later.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });
/// How old the sizes of volumes may be: less than [`LOOK`], and runs share them.
const FRESH: Duration = Duration::from_secs(4);
const PAUSE_PER_LOOK: u32 = 10;

/// While the engine's disk has less free than this, in bytes, there are no new tasks, and
/// runs that have more than a tenth of what they may have are interrupted.
pub(super) const RESERVE: u64 = 128 * MEBIBYTE;

/// The same of files and directories, which can run out before the bytes do.
const RESERVED_FILES: u64 = 20_000;

/// Whether the engine's disk has no room for another run.
pub(crate) fn is_nearly_full(free: FreeSpace) -> bool {
    free.bytes < RESERVE || free.files.is_some_and(|files| files < RESERVED_FILES)
}

/// At how many looks in a row it may be so before all runs are interrupted: those that have much
/// end first, and others may make room.
const PATIENCE: u32 = 6;

/// Whether it has no room for the runs that are there: half of the reserve is used up. The
/// engine counts neither directories nor empty files, so it cannot tell whose they are.
fn is_full(free: FreeSpace) -> bool {
    free.bytes < RESERVE / 2 || free.files.is_some_and(|files| files < RESERVED_FILES / 2)
}

/// What the engine itself lets a run write to each of its folders, in MB, where it has such
/// limits: more than the run may have in all of them, so that a run that writes slowly is
/// interrupted, and not refused the space for its state.
pub(super) fn engine_limit(config: &Config) -> u64 {
    config.disk + RESERVE / MEBIBYTE
}

/// What a line of a run's output takes in the engine's file besides its text, in bytes.
const LINE: u64 = 80;

/// How much of the engine's disk a run's output takes, in bytes.
#[derive(Debug, Default)]
pub(super) struct Output(AtomicU64);

impl Output {
    /// It is read from its beginning.
    pub(super) fn begin(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: &[u8]) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.0.fetch_add(bytes.len() as u64 + lines * LINE, Ordering::Relaxed);
    }
}

impl Job {
    /// Waits until the container has more on the engine's disk than it may, and leaves the
    /// notice there that its entry point prints when it is interrupted. `replay`: as in
    /// [`Job::pressed_for_memory`].
    pub(super) async fn pressed_for_disk(&self, container: &str, output: &Output, replay: bool) {
        let engine = &self.context.engine;
        if replay && matches!(engine.read(container, paths::DISK_NOTICE).await, Ok(Some(_))) {
            return;
        }
        let limit = self.context.config.disk;
        let used = AtomicU64::new(0);
        let has_too_much = async {
            let (mut pause, mut has_failed) = (LOOK, false);
            loop {
                tokio::time::sleep(pause).await;
                let begun = Instant::now();
                match engine.disk_used(container, FRESH).await {
                    Ok(found) => {
                        let found = found + output.0.load(Ordering::Relaxed);
                        used.store(found, Ordering::Relaxed);
                        if found > limit * MEBIBYTE {
                            let found = found / MEBIBYTE;
                            let what = "MB on the engine's disk, more than its";
                            break format!("the run has {found} {what} {limit} MB");
                        }
                    }
                    Err(error) if has_failed => {
                        debug!(container, "cannot tell what it has on the disk: {error:#}");
                    }
                    Err(error) => {
                        warn!(container, "cannot tell what it has on the disk: {error:#}");
                        has_failed = true;
                    }
                }
                pause = LOOK.max(begun.elapsed() * PAUSE_PER_LOOK);
            }
        };
        // Looked at by itself: the engine takes long to read a great many files, or gives up.
        let has_no_room = async {
            let mut full = 0;
            loop {
                tokio::time::sleep(LOOK).await;
                // An engine whose disk is not this host's does not tell.
                let Ok(free) = engine.free_space().await else { continue };
                full = if is_full(free) { full + 1 } else { 0 };
                let has_much = used.load(Ordering::Relaxed) > limit * MEBIBYTE / 10;
                if full == PATIENCE || has_much && is_nearly_full(free) {
                    let used = used.load(Ordering::Relaxed) / MEBIBYTE;
                    break format!(
                        "the engine's disk is nearly full: it has {free} free, and the run has {used} MB there"
                    );
                }
            }
        };
        let what = tokio::select! {
            what = has_too_much => what,
            what = has_no_room => what,
        };
        let notice =
            format!("Warning: {what}. The run is interrupted now, so that its state is written.\n");
        warn!("{}", notice.trim_end());
        self.is_over_disk.store(true, Ordering::Relaxed);
        if let Err(error) = self.put_notice(container, paths::DISK_NOTICE, &notice).await {
            warn!("cannot tell in the run's log: {error:#}");
        }
    }

    /// How much the container of a failed run has on the engine's disk, in MB, if that is
    /// more than it may have: where the engine refuses writes, a run can end by itself before
    /// anybody looks. None too when the engine does not tell.
    pub(super) async fn over_disk_at_end(&self, container: &str) -> Option<u64> {
        let engine = &self.context.engine;
        if !engine.limits_disk(engine_limit(&self.context.config)).await {
            return None;
        }
        match engine.disk_used(container, Duration::ZERO).await {
            Ok(used) => Some(used / MEBIBYTE).filter(|used| *used > self.context.config.disk),
            Err(error) => {
                warn!(container, "cannot tell what it has on the disk: {error:#}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::sync::watch;

    use super::*;
    use crate::context::Context;
    use crate::journal::{Container, Entry};
    use crate::task::ends::{Finishes, choosy, context, engine, job, json, packed, run_task_alone};
    use crate::task::tests::claimed;
    use protocol::Outcome;

    /// What tests let a run have on the disk, in bytes.
    const LIMIT: u64 = 64 * 1024 * 1024;

    /// An engine whose container runs until it gets a signal.
    #[derive(Clone)]
    struct Running {
        /// In bytes, in this order: its own files, its volume, a volume that it only reads.
        has: [u64; 3],
        /// Whether it can tell what its volumes have: at last when it was asked how the run ended.
        tells: Arc<AtomicBool>,
        /// Where its data is.
        root: &'static str,
        /// Whether its disk takes a notice.
        takes: bool,
        /// Whether its disk has room to mount a container that has ended.
        mounts: bool,
        signaled: watch::Sender<bool>,
        notice: Arc<Mutex<Option<String>>>,
    }

    impl Running {
        fn with(has: [u64; 3]) -> Self {
            Self {
                has,
                tells: Arc::new(AtomicBool::new(true)),
                root: "/",
                takes: true,
                mounts: true,
                signaled: watch::Sender::default(),
                notice: Arc::default(),
            }
        }

        fn router(&self) -> Router {
            let engine = self.clone();
            Router::new().fallback(async move |method: Method, uri: Uri, body: Bytes| {
                engine.answer(&method, &uri, &body).await
            })
        }

        async fn answer(&self, method: &Method, uri: &Uri, body: &[u8]) -> Response {
            let [own, volume, read_only] = self.has;
            let query = uri.query().unwrap_or_default();
            match uri.path() {
                path if path.ends_with("/containers/c1/json") => json(&format!(
                    r#"{{"State": {{"Status": "{}", "Running": {}, "ExitCode": 1}}, "SizeRw": {own},
                        "Mounts": [{{"Type": "volume", "Name": "v1", "RW": true}},
                                   {{"Type": "volume", "Name": "v2", "RW": false}}]}}"#,
                    if *self.signaled.borrow() { "exited" } else { "running" },
                    !*self.signaled.borrow(),
                )),
                path if path.ends_with("/info") => {
                    json(&format!(r#"{{"DockerRootDir": "{}"}}"#, self.root))
                }
                "/v1.41/system/df" if !self.tells.load(Ordering::Relaxed) => {
                    StatusCode::CONFLICT.into_response()
                }
                "/v1.41/system/df" => json(&format!(
                    r#"{{"Volumes": [
                        {{"Name": "v1", "UsageData": {{"Size": {volume}, "RefCount": 1}}}},
                        {{"Name": "v2", "UsageData": {{"Size": {read_only}, "RefCount": 1}}}},
                        {{"Name": "unknown", "UsageData": {{"Size": -1, "RefCount": -1}}}}]}}"#
                )),
                path if path.ends_with("/kill") => {
                    assert_eq!(query, "signal=SIGINT");
                    self.signaled.send_replace(true);
                    json("")
                }
                path if path.ends_with("/logs") => {
                    let mut signaled = self.signaled.subscribe();
                    Body::from_stream(stream::once(async move {
                        signaled.wait_for(|signaled| *signaled).await.unwrap();
                        Ok::<_, std::io::Error>(Bytes::new())
                    }))
                    .into_response()
                }
                path if path.ends_with("/archive") && method == Method::PUT => {
                    if !self.takes {
                        return StatusCode::INSUFFICIENT_STORAGE.into_response();
                    }
                    let text = String::from_utf8_lossy(body).into_owned();
                    *self.notice.lock().unwrap() = Some(text);
                    json("")
                }
                path if path.ends_with("/archive") && !self.mounts => {
                    let full =
                        r#"{"message": "error creating overlay mount: no space left on device"}"#;
                    (StatusCode::INTERNAL_SERVER_ERROR, full).into_response()
                }
                _ if query.ends_with("run%2Fdisk") && self.notice.lock().unwrap().is_some() => {
                    packed("Warning").into_response()
                }
                path if path.ends_with("/create") => json(
                    r#"{"Id": "c2", "Warnings": [], "Name": "v3", "Driver": "local", "Mountpoint": "/",
                        "Labels": {}, "Scope": "local", "Options": {}}"#,
                ),
                _ if query.ends_with("run%2Fstatus") => {
                    self.tells.store(true, Ordering::Relaxed);
                    packed("init 0\nplan 1\n").into_response()
                }
                path => engine(&format!("GET {path}?{query}")),
            }
        }
    }

    /// A plan whose container was made before.
    fn with_container(context: &Context) -> Entry {
        let mut entry = context.journal.begin(claimed(), 0).unwrap();
        let container = Container { id: "c1".into(), ..Container::default() };
        entry.note_container(container).unwrap();
        entry
    }

    #[tokio::test]
    async fn a_run_with_more_on_the_disk_than_its_limit_is_interrupted() {
        for has in [[LIMIT + 1, 0, 0], [0, LIMIT + 1, 0], [LIMIT, 1, 0]] {
            let folder = tempfile::tempdir().unwrap();
            let (finishes, engine) = (Finishes::default(), Running::with(has));
            let server = choosy(&finishes, |_| None);
            let context = context(folder.path(), server, engine.router()).await;
            let ended = run_task_alone(&context, with_container(&context));
            tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
            let finish = finishes.lock().unwrap().remove(0);
            assert_eq!(finish.outcome, Outcome::Errored);
            let message = finish.message.unwrap();
            assert!(message.contains("where a run may have 64 MB"), "{message}");
            let notice = engine.notice.lock().unwrap().clone().unwrap();
            let expected = "Warning: the run has 64 MB on the engine's disk, more than its 64 MB.";
            assert!(notice.contains(expected), "{notice}");
        }
    }

    #[tokio::test]
    async fn a_run_whose_disk_takes_no_notice_says_all_the_same_why_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let finishes = Finishes::default();
        let engine = Running { takes: false, ..Running::with([LIMIT + 1, 0, 0]) };
        let server = choosy(&finishes, |_| None);
        let context = context(folder.path(), server, engine.router()).await;
        let ended = run_task_alone(&context, with_container(&context));
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
        let message = finishes.lock().unwrap().remove(0).message.unwrap();
        assert!(message.contains("interrupted because of the engine's disk"), "{message}");
    }

    #[tokio::test]
    async fn a_plan_that_left_no_room_to_read_how_it_ended_does_not_keep_its_slot() {
        let folder = tempfile::tempdir().unwrap();
        let finishes = Finishes::default();
        let engine = Running { mounts: false, ..Running::with([0, 0, 0]) };
        engine.signaled.send_replace(true);
        let server = choosy(&finishes, |_| None);
        let context = context(folder.path(), server, engine.router()).await;
        let ended = run_task_alone(&context, with_container(&context));
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
        let finish = finishes.lock().unwrap().remove(0);
        assert_eq!(finish.outcome, Outcome::Errored);
        assert!(finish.message.unwrap().contains("no space left on device"));
    }

    #[test]
    fn a_disk_without_inodes_is_full_whatever_bytes_it_has() {
        let all = |bytes, files| {
            let free = FreeSpace { bytes, files };
            [is_nearly_full(free), is_full(free)]
        };
        let (much, many) = (1 << 40, Some(1 << 40));
        assert_eq!(all(much, many), [false, false]);
        assert_eq!(all(much, None), [false, false]);
        assert_eq!(all(RESERVE - 1, many), [true, false]);
        assert_eq!(all(much, Some(RESERVED_FILES - 1)), [true, false]);
        assert_eq!(all(RESERVE / 2 - 1, None), [true, true]);
        assert_eq!(all(much, Some(0)), [true, true]);
    }

    #[tokio::test]
    async fn a_run_is_interrupted_before_its_disk_is_full_whatever_the_engine_can_tell_of_it() {
        for tells in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            // A file system that never has anything free.
            let engine = Running { root: "/proc", ..Running::with([0, 0, 0]) };
            engine.tells.store(tells, Ordering::Relaxed);
            let context = context(folder.path(), Router::new(), engine.router()).await;
            let job = job(&context, context.journal.begin(claimed(), 0).unwrap());
            let output = Output::default();
            let pressed = job.pressed_for_disk("c1", &output, false);
            let in_time = tokio::time::timeout(Duration::from_secs(20), pressed).await;
            assert!(in_time.is_ok(), "tells: {tells}");
            let notice = engine.notice.lock().unwrap().clone().unwrap();
            let expected = "Warning: the engine's disk is nearly full: it has 0 MB free";
            assert!(notice.contains(expected), "{notice}");
        }
    }

    #[tokio::test]
    async fn a_run_that_fails_on_a_limit_of_its_engine_says_how_to_raise_it() {
        let folder = tempfile::tempdir().unwrap();
        let (finishes, engine) = (Finishes::default(), Running::with([0, 2 * LIMIT, 0]));
        engine.signaled.send_replace(true);
        // What interrupts a run finds nothing before its end.
        engine.tells.store(false, Ordering::Relaxed);
        let server = choosy(&finishes, |_| None);
        let context = context(folder.path(), server, engine.router()).await;
        run_task_alone(&context, with_container(&context)).await;
        let finish = finishes.lock().unwrap().remove(0);
        assert_eq!(finish.outcome, Outcome::Errored);
        let message = finish.message.unwrap();
        assert!(message.contains("had 128 MB on the engine's disk when it failed"), "{message}");
        assert!(message.contains("where a run may have 64 MB"), "{message}");
        assert!(message.contains("beyond 192 MB in one folder"), "{message}");
        assert!(message.contains("scalr-agent configure --disk MB"), "{message}");
    }

    #[tokio::test]
    async fn what_a_run_only_reads_does_not_count_and_its_output_does() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Running::with([LIMIT / 2, LIMIT / 2 - LINE, 2 * LIMIT]);
        let context = context(folder.path(), Router::new(), engine.router()).await;
        let job = job(&context, context.journal.begin(claimed(), 0).unwrap());
        let output = Output::default();
        let short = Duration::from_millis(500);
        let pressed = job.pressed_for_disk("c1", &output, false);
        assert!(tokio::time::timeout(short, pressed).await.is_err());
        output.add(b"\n");
        job.pressed_for_disk("c1", &output, false).await;
    }
}

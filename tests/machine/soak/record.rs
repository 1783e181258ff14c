//! What the engine's containers wrote, kept beyond their removal.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::engine::{Attempt, written};

/// How often new containers are looked for. None lives as shortly as this:
/// Terraform alone takes longer.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Keeps a second link to the log of each container, which then outlives it.
pub(super) struct Recorder {
    folder: PathBuf,
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

/// A container that was started.
pub(super) struct Recorded {
    /// The run that it was for.
    pub run: String,
    /// `plan` or `apply`.
    pub phase: String,
    /// The attempt at it.
    pub attempt: u32,
    /// All that it wrote; see [`written`].
    pub log: String,
}

impl Recorder {
    /// Records from now on, on the machine with this root folder.
    pub(super) fn start(root: &Path) -> Self {
        let containers = root.join("var/lib/scalr-docker/containers");
        let folder = root.join("var/tmp/containers");
        fs::create_dir(&folder).expect("the machine takes a folder");
        let is_over = Arc::new(AtomicBool::new(false));
        let looking = std::thread::spawn({
            let (folder, is_over) = (folder.clone(), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::SeqCst) {
                    look(&containers, &folder);
                    std::thread::sleep(BETWEEN_LOOKS);
                }
            }
        });
        Self { folder, is_over, looking }
    }

    /// All that was recorded.
    pub(super) fn end(self) -> Vec<Recorded> {
        self.is_over.store(true, Ordering::SeqCst);
        self.looking.join().expect("the recorder ends well");
        let entries = fs::read_dir(&self.folder).expect("the machine runs");
        entries
            .map(|entry| entry.expect("the machine runs").path())
            .filter(|path| path.extension().is_some_and(|found| found == "log"))
            .filter_map(|log| read(&log))
            .collect()
    }
}

/// Links the logs that are new. A container has one from its start on.
fn look(containers: &Path, folder: &Path) {
    for container in fs::read_dir(containers).into_iter().flatten().flatten() {
        let id = container.file_name().into_string().expect("an id");
        let log = container.path().join(format!("{id}-json.log"));
        if log.exists() {
            // What is gone between two lines here was not there for long enough
            // to have been a run's: whoever misses it will say so. One that was started ahead
            // gets its name late.
            let about = fs::read(container.path().join("config.v2.json"));
            if let Ok(about) = about
                && fs::write(folder.join(&id).with_extension("json"), about).is_ok()
            {
                let _ = fs::hard_link(&log, folder.join(&id).with_extension("log"));
            }
        }
    }
    let tasks = containers.join("../../scalr-agent/tasks");
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let name = task.file_name().into_string().expect("a task and its attempt");
        if let Ok(journal) = fs::read_to_string(task.path().join("journal"))
            && journal.contains('\n')
        {
            fs::write(folder.join(format!("{name}.journal")), journal).expect("there is room");
        }
    }
}

fn read(log: &Path) -> Option<Recorded> {
    let about = fs::read(log.with_extension("json")).expect("it was written before the log");
    let about: Value = serde_json::from_slice(&about).expect("JSON");
    let journal = |name: &str| {
        let journal = log.with_file_name(format!("{name}.journal"));
        fs::read_to_string(journal).expect("its task was noted before")
    };
    let attempt = Attempt::of(&about, journal)?;
    let file = fs::read_to_string(log).expect("the log can be read");
    Some(Recorded {
        run: attempt.run,
        phase: attempt.kind,
        attempt: attempt.number,
        log: written(&about, &file),
    })
}

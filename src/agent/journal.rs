//! What this agent has in hand, on disk: one directory a task, which is there
//! from its claim until the server has its outcome.
//!
//! `DATA/tasks/TASK-ATTEMPT/` holds `task.json` (a [`Record`]) and `log`. It
//! carries tokens and variables, so only the agent's user may enter.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::protocol::{Claimed, Finish};

/// The directory of all tasks.
#[derive(Clone, Debug)]
pub struct Journal {
    tasks: PathBuf,
}

/// How far a task is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What to do, and the token to report with.
    pub claimed: Claimed,
    /// The number of its slot.
    pub slot: usize,
    /// Its container, once there is one that may have been started.
    pub container: Option<Container>,
    /// How it ended, once all that it left is with the server but for this.
    #[serde(default)]
    pub finish: Option<Finish>,
}

/// A container that may have been started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// The engine's id of it.
    pub id: String,
    /// How long the log was before the container wrote to it, in bytes.
    pub log_start: u64,
}

/// A task's directory.
#[derive(Debug)]
pub struct Entry {
    directory: PathBuf,
    /// What `task.json` says; [`Entry::save`] writes it.
    pub record: Record,
}

impl Journal {
    /// The journal below the agent's data directory.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let tasks = data_dir.join("tasks");
        make_private(&tasks)?;
        Ok(Self { tasks })
    }

    /// The tasks that an agent has in hand, for people who ask, by their slots.
    /// It changes nothing: the agent may be about to write one down.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn look(data_dir: &Path) -> Result<Vec<Record>> {
        let tasks = data_dir.join("tasks");
        let found = match fs::read_dir(&tasks) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {}", tasks.display()))?,
        };
        let mut records = Vec::new();
        for directory in found {
            records.extend(read(&directory?.path().join("task.json"))?);
        }
        records.sort_by_key(|record| record.slot);
        Ok(records)
    }

    /// Begins a task's directory.
    ///
    /// # Errors
    /// It can't be written.
    pub fn begin(&self, claimed: Claimed, slot: usize) -> Result<Entry> {
        let name = directory_name(&claimed.task.id, claimed.task.attempt);
        let directory = self.tasks.join(name);
        make_private(&directory)?;
        let record = Record { claimed, slot, container: None, finish: None };
        let entry = Entry { directory, record };
        entry.save()?;
        Ok(entry)
    }

    /// Whether this attempt at a task is in hand.
    pub fn has(&self, task_id: &str, attempt: u32) -> bool {
        self.tasks.join(directory_name(task_id, attempt)).is_dir()
    }

    /// Keeps a file of a task for people, who find it at the path that this gives:
    /// in `DATA/lost`, as the server does not take it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn keep(&self, task_id: &str, attempt: u32, name: &str, content: &[u8]) -> Result<PathBuf> {
        let directory = self.tasks.with_file_name("lost").join(directory_name(task_id, attempt));
        make_private(&directory)?;
        let file = directory.join(name);
        let describe = || format!("cannot write {}", file.display());
        let mut new = tempfile::NamedTempFile::new_in(&directory).with_context(describe)?;
        new.write_all(content).with_context(describe)?;
        new.as_file().sync_all().with_context(describe)?;
        new.persist(&file).with_context(describe)?;
        Ok(file)
    }

    /// The tasks that are in hand.
    ///
    /// # Errors
    /// The journal can't be read. A directory whose task was never written
    /// down whole is removed: nothing was done with it.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.tasks)
            .with_context(|| format!("cannot read {}", self.tasks.display()))?
        {
            let directory = found?.path();
            if let Some(record) = read(&directory.join("task.json"))? {
                entries.push(Entry { directory, record });
            } else {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
            }
        }
        Ok(entries)
    }
}

impl Entry {
    /// Writes `task.json`, whole or not at all, so that it outlives a loss of
    /// power.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self) -> Result<()> {
        let file = self.directory.join("task.json");
        let describe = || format!("cannot write {}", file.display());
        let mut new = tempfile::NamedTempFile::new_in(&self.directory).with_context(describe)?;
        new.write_all(&serde_json::to_vec(&self.record)?).with_context(describe)?;
        new.as_file().sync_all().with_context(describe)?;
        new.persist(&file).with_context(describe)?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .with_context(describe)
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Forgets the task; one that is forgotten already is fine.
    ///
    /// # Errors
    /// The directory can't be removed.
    pub fn end(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.with_context(|| format!("cannot remove {}", self.directory.display())),
        }
    }
}

fn directory_name(task_id: &str, attempt: u32) -> String {
    format!("{task_id}-{attempt}")
}

/// What a task's file says; `None` if there is no such file.
fn read(file: &Path) -> Result<Option<Record>> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("cannot read {}", file.display()))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .with_context(|| format!("cannot understand {}", file.display()))
}

fn make_private(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::agent::task::tests::claimed;

    #[test]
    fn what_was_written_is_found_again() {
        let data = tempfile::tempdir().unwrap();
        let journal = Journal::open(data.path()).unwrap();
        let mut entry = journal.begin(claimed(), 1).unwrap();
        entry.record.container = Some(Container { id: "c1".into(), log_start: 7 });
        entry.save().unwrap();
        let half_made = data.path().join("tasks/half-made");
        fs::create_dir(&half_made).unwrap();
        let seen = Journal::look(data.path()).unwrap();
        assert_eq!((seen.len(), seen[0].slot), (1, 1));
        assert!(half_made.exists(), "a look changes nothing");

        let found = Journal::open(data.path()).unwrap().entries().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].record.container.as_ref().map(|c| c.log_start), Some(7));
        assert_eq!(found[0].record.claimed, claimed());
        let mode = fs::metadata(data.path().join("tasks")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        assert!(journal.has("task-1", 1) && !journal.has("task-1", 2));
        found.iter().for_each(|entry| entry.end().unwrap());
        assert!(!journal.has("task-1", 1));
        assert!(journal.entries().unwrap().is_empty());
    }
}

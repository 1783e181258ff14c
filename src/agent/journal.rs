//! The running tasks of this agent, on disk: one directory a task, which is there
//! from its claim until the server has its outcome.
//!
//! `DATA/tasks/TASK-ATTEMPT/` holds `journal` and `log`. The journal is only appended
//! to: each [`Line`] is on the disk before what it records begins. A last line without
//! an end was cut off by a crash, so it did not happen.
//!
//! It carries tokens and variables, so only the agent's user may enter.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use cli::untrusted_file;
use config::layout::data;
use protocol::journal::{self, Line};
use protocol::{Claimed, Finish, Identity, Secret};

pub(crate) use protocol::journal::Container;

/// The directory of all tasks.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    tasks: PathBuf,
    here: Identity,
}

/// How far a task is: what its journal's lines add up to.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// What to do, and the token to report with.
    pub claimed: Claimed,
    /// The number of its slot.
    pub slot: usize,
    /// The machine and the boot that it was begun on, or confirmed for. None: the agent was
    /// too old to note it.
    pub identity: Option<Identity>,
    /// Its container, once there is one that may have been started.
    pub container: Option<Container>,
    /// How it ended, once all that it left is with the server but for this.
    pub finish: Option<Finish>,
}

/// A task's directory.
#[derive(Debug)]
pub(crate) struct Entry {
    directory: PathBuf,
    journal: File,
    record: Record,
    here: Identity,
}

impl Journal {
    /// The journal below the agent's data directory, of an agent on this machine and boot.
    ///
    /// # Errors
    /// The directory can't be made.
    pub(crate) fn open(data_dir: &Path, here: Identity) -> Result<Self> {
        let tasks = data_dir.join(data::TASKS);
        make_private(&tasks)?;
        Ok(Self { tasks, here })
    }

    /// The running tasks of an agent, for people who ask, by their slots.
    /// It changes nothing: the agent may be about to write one down.
    ///
    /// # Errors
    /// The journal can't be read.
    pub(crate) fn look(data_dir: &Path) -> Result<Vec<Record>> {
        let tasks = data_dir.join(data::TASKS);
        let found = match fs::read_dir(&tasks) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {}", tasks.display()))?,
        };
        let mut records = Vec::new();
        for directory in found {
            records.extend(read(&directory?.path())?.map(|(record, _)| record));
        }
        records.sort_by_key(|record| record.slot);
        Ok(records)
    }

    /// Begins a task's directory.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn begin(&self, claimed: Claimed, slot: usize) -> Result<Entry> {
        let name = directory_name(&claimed.task.id, claimed.task.attempt);
        let directory = self.tasks.join(name);
        make_private(&directory)?;
        // One that was cut off in its first line is begun again.
        let file = directory.join(journal::FILE);
        let cannot = || format!("cannot write {}", file.display());
        let journal = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&file)
            .with_context(cannot)?;
        journal.set_len(0).with_context(cannot)?;
        let here = self.here.clone();
        let identity = Some(here.clone());
        let record = Record {
            claimed: claimed.clone(),
            slot,
            identity: identity.clone(),
            container: None,
            finish: None,
        };
        let mut entry = Entry { directory, journal, record, here };
        entry.append(&Line::Claimed { claim: Box::new(claimed), slot, identity })?;
        for new in [&entry.directory, &self.tasks] {
            let synced = File::open(new).and_then(|directory| directory.sync_all());
            synced.with_context(|| format!("cannot write {}", new.display()))?;
        }
        Ok(entry)
    }

    /// Whether this attempt at a task is running.
    pub(crate) fn has(&self, task_id: &str, attempt: u32) -> bool {
        self.tasks.join(directory_name(task_id, attempt)).is_dir()
    }

    /// A folder for what a task made and the server does not take, for people to find:
    /// in `DATA/lost`.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn lost(&self, task_id: &str, attempt: u32) -> Result<PathBuf> {
        let directory = self.lost_path(task_id, attempt);
        make_private(&directory)?;
        Ok(directory)
    }

    /// Where that folder is, or would be.
    pub(crate) fn lost_path(&self, task_id: &str, attempt: u32) -> PathBuf {
        self.tasks.with_file_name(data::LOST).join(directory_name(task_id, attempt))
    }

    /// The running tasks.
    ///
    /// # Errors
    /// The journal can't be read. A directory whose task was never written
    /// down whole is removed: nothing was done with it.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.tasks)
            .with_context(|| format!("cannot read {}", self.tasks.display()))?
        {
            let directory = found?.path();
            if let Some((record, length)) = read(&directory)? {
                let file = directory.join(journal::FILE);
                let cannot = || format!("cannot write {}", file.display());
                let journal = File::options().append(true).open(&file).with_context(cannot)?;
                journal.set_len(length).with_context(cannot)?;
                entries.push(Entry { directory, journal, record, here: self.here.clone() });
            } else {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("cannot remove {}", directory.display()))?;
            }
        }
        Ok(entries)
    }
}

impl Entry {
    /// How far the task is.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the task was begun, or confirmed, on this boot of this machine.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.record.identity.as_ref() == Some(&self.here)
    }

    /// Notes that the server confirmed the task for this boot of this machine.
    ///
    /// # Errors
    /// As [`Entry::note_container`].
    pub(crate) fn note_resumed(&mut self, task_token: Secret) -> Result<()> {
        let identity = self.here.clone();
        self.append(&Line::Resumed { identity: identity.clone(), task_token: task_token.clone() })?;
        self.record.identity = Some(identity);
        self.record.claimed.task_token = task_token;
        Ok(())
    }

    /// Notes the container that is about to be started.
    ///
    /// # Errors
    /// It can't be written; then it did not happen.
    pub(crate) fn note_container(&mut self, container: Container) -> Result<()> {
        self.append(&Line::Container(container.clone()))?;
        self.record.container = Some(container);
        Ok(())
    }

    /// Notes that the run never began in its container.
    ///
    /// # Errors
    /// As [`Entry::note_container`].
    pub(crate) fn note_never_begun(&mut self) -> Result<()> {
        self.append(&Line::NeverBegun)?;
        self.record.container = None;
        Ok(())
    }

    /// Notes how the task ended, before the server gets it.
    ///
    /// # Errors
    /// As [`Entry::note_container`].
    pub(crate) fn note_finish(&mut self, finish: Finish) -> Result<()> {
        self.append(&Line::Finished(finish.clone()))?;
        self.record.finish = Some(finish);
        Ok(())
    }

    /// Appends a line, whole or not at all, so that it outlives a loss of power.
    fn append(&mut self, line: &Line) -> Result<()> {
        let cannot = || format!("cannot write {}", self.directory.join(journal::FILE).display());
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let length = self.journal.metadata().with_context(cannot)?.len();
        let written = self.journal.write_all(&bytes).and_then(|()| self.journal.sync_all());
        if written.is_err() {
            self.journal.set_len(length).with_context(cannot)?;
        }
        written.with_context(cannot)
    }

    /// Its directory, for what is of no use any more when the task has ended.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Forgets the task; one that is forgotten already is fine.
    ///
    /// # Errors
    /// The directory can't be removed.
    pub(crate) fn end(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.with_context(|| format!("cannot remove {}", self.directory.display())),
        }
    }
}

fn directory_name(task_id: &str, attempt: u32) -> String {
    format!("{task_id}-{attempt}")
}

/// What the journal in a task's directory adds up to, and how long it is without what
/// was cut off; none if its first line is not whole.
fn read(directory: &Path) -> Result<Option<(Record, u64)>> {
    let file = directory.join(journal::FILE);
    let text = match untrusted_file::read(&file, journal::LARGEST) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let length = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut record: Option<Record> = None;
    for line in serde_json::Deserializer::from_slice(&text[..length]).into_iter() {
        let line = line.with_context(|| format!("cannot understand {}", file.display()))?;
        match (line, &mut record) {
            (Line::Claimed { claim, slot, identity }, _) => {
                let claimed = *claim;
                record = Some(Record { claimed, slot, identity, container: None, finish: None });
            }
            (Line::Resumed { identity, task_token }, Some(record)) => {
                record.identity = Some(identity);
                record.claimed.task_token = task_token;
            }
            (Line::Container(container), Some(record)) => record.container = Some(container),
            (Line::NeverBegun, Some(record)) => record.container = None,
            (Line::Finished(finish), Some(record)) => record.finish = Some(finish),
            (_, None) => bail!("{} does not begin with a claim", file.display()),
        }
    }
    Ok(record.map(|record| (record, length as u64)))
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
    use crate::task::tests::{claimed, here};

    #[test]
    fn what_was_written_is_found_again() {
        let data = tempfile::tempdir().unwrap();
        let journal = Journal::open(data.path(), here()).unwrap();
        let mut entry = journal.begin(claimed(), 1).unwrap();
        entry
            .note_container(Container { id: "c1".into(), log_start: 7, ..Container::default() })
            .unwrap();
        let half_made = data.path().join("tasks/half-made");
        fs::create_dir(&half_made).unwrap();
        let seen = Journal::look(data.path()).unwrap();
        assert_eq!((seen.len(), seen[0].slot), (1, 1));
        assert!(half_made.exists(), "a look changes nothing");

        let found = Journal::open(data.path(), here()).unwrap().entries().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].record.container.as_ref().map(|c| c.log_start), Some(7));
        assert_eq!(found[0].record.claimed, claimed());
        let mode = fs::metadata(data.path().join("tasks")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let file = data.path().join("tasks/task-1-1/journal");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        // Cut off in the middle of a line, which then did not happen.
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 3]).unwrap();
        let mut found = journal.entries().unwrap();
        assert!(found[0].record.container.is_none());
        found[0]
            .note_container(Container { id: "c2".into(), log_start: 7, ..Container::default() })
            .unwrap();
        let seen = Journal::look(data.path()).unwrap();
        assert_eq!(seen[0].container.as_ref().map(|c| c.id.as_str()), Some("c2"));

        assert!(journal.has("task-1", 1) && !journal.has("task-1", 2));
        found.iter().for_each(|entry| entry.end().unwrap());
        assert!(!journal.has("task-1", 1));
        assert!(journal.entries().unwrap().is_empty());
    }
}

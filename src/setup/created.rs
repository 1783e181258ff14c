//! The record of the accounts and folders that were made for the agent: a purge deletes
//! these alone, and gives the others back as they were. The package's scripts read and write
//! it, too, hence lines of words.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use cli::untrusted_file;
use config::layout::CREATED;
use host::changes::{Attributes, Changes};
use host::machine::Machine;

/// What is recorded: on each line a kind and a name.
#[derive(Debug, Default)]
pub(crate) struct Created {
    text: String,
}

/// A folder of root's that the agent's group may write to.
pub(crate) struct Opened {
    pub(crate) folder: PathBuf,
    /// Its earlier group.
    pub(crate) group: u32,
    /// Its earlier mode.
    pub(crate) mode: u32,
}

/// The mode of a folder that the agent was let in.
pub(crate) const OPEN: u32 = 0o1770;

impl Created {
    /// What is recorded on a machine so far.
    ///
    /// # Errors
    /// The record can't be read.
    pub(crate) fn on(machine: &Machine) -> Result<Self> {
        match untrusted_file::read_text(machine.path(CREATED)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            result => Ok(Self { text: result.with_context(|| format!("cannot read {CREATED}"))? }),
        }
    }

    /// The users that the package has made.
    pub(crate) fn users(&self) -> Vec<&str> {
        self.of_kind("user").collect()
    }

    /// The groups that the package has made.
    pub(crate) fn groups(&self) -> Vec<&str> {
        self.of_kind("group").collect()
    }

    /// The data folders that settings have named, each with files of the agent's.
    pub(crate) fn data_folders(&self) -> impl Iterator<Item = PathBuf> {
        self.of_kind("data").map(PathBuf::from)
    }

    /// Those of them that did not exist before.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.of_kind("folder").map(PathBuf::from)
    }

    /// The folders that the agent was let in, as they were found.
    pub(crate) fn opened(&self) -> impl Iterator<Item = Opened> {
        self.of_kind("was").filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let group = words.next()?.parse().ok()?;
            let mode = u32::from_str_radix(words.next()?, 8).ok()?;
            Some(Opened { folder: words.next()?.into(), group, mode })
        })
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '))
    }
}

/// Records that a data folder is used, and whether it was made for that.
///
/// # Errors
/// The record can't be read or written.
pub(crate) fn record_data_folder(changes: &mut Changes, folder: &Path, made: bool) -> Result<()> {
    let folder = folder.display();
    let made = made.then(|| format!("folder {folder}"));
    record(changes, made.into_iter().chain([format!("data {folder}")]))
}

/// Records how a folder is that the agent is going to be let in.
///
/// # Errors
/// The record can't be read or written.
pub(crate) fn record_opened(changes: &mut Changes, opened: &Opened) -> Result<()> {
    let Opened { folder, group, mode } = opened;
    record(changes, [format!("was {group} {mode:o} {}", folder.display())])
}

/// Adds the lines that are not there yet.
fn record(changes: &mut Changes, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut text = Created::on(changes.machine())?.text;
    for line in lines {
        if text.lines().all(|known| known != line) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    changes.write(CREATED, &text, Attributes::PUBLIC).map(drop)
}

//! What there is to undo as long as a transaction is not committed: on disk
//! before each step, so that also what was killed half-way is undone.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::path_state::{Mark, PathState, is_there, remove_temporary};
use crate::command::CommandExt as _;
use crate::command_line::CommandLine;
use crate::installation::Installation;
use crate::machine::Machine;
use crate::packages::Packages;
use crate::systemd::Services;
use cli::eprintln;
use cli::untrusted_file;

/// The changes of an unfinished transaction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Unfinished {
    /// Oldest first; undone newest first.
    steps: Vec<Step>,
    /// Whether the newest step was done for certain: each is noted before it is done.
    #[serde(default)]
    is_certain: bool,
    /// What brings services back as they were, in this order, when all else is undone.
    #[serde(default)]
    services: Vec<CommandLine>,
    /// Where it is kept.
    #[serde(skip)]
    path: &'static str,
    /// Directories made for this file itself.
    #[serde(skip)]
    directories: Vec<PathBuf>,
}

/// Something that was done, as what undoes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// A file or link was changed; it is left alone if somebody else has changed
    /// it since.
    PutBack { path: String, before: PathState, after: Mark },
    /// A directory was made.
    RemoveDirectory { path: String },
    /// A directory was removed.
    MakeDirectory { path: String, mode: u32 },
    /// Packages were installed: those that were not there before go again.
    KeepPackages { before: Packages, installation: Installation },
    /// Nothing undoes it, or needs to.
    Nothing { what: String },
    /// A command undoes it.
    Run { what: String, command: CommandLine },
}

impl Unfinished {
    /// Nothing yet, to be kept at `path`.
    pub(super) fn at(path: &'static str) -> Self {
        Self { path, ..Self::default() }
    }

    /// The changes of an earlier, interrupted transaction; `None` without one.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn read(machine: &Machine, path: &'static str) -> Result<Option<Self>> {
        let text = match untrusted_file::read_text(machine.path(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.with_context(|| format!("cannot read {path}"))?,
        };
        let unfinished: Self = serde_json::from_str(&text).map_err(|error| {
            anyhow!(
                "cannot read what an interrupted command has left to undo: {path}: {error}\n\
                 If a newer scalr-agent-setup wrote it, run that one's `recover`. If it is damaged, \
                 `scalr-agent-setup recover --discard` forgets it, and the machine stays as it is."
            )
        })?;
        Ok(Some(Self { path, ..unfinished }))
    }

    /// Whether nothing is to be undone.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Notes a step that is about to be done.
    ///
    /// # Errors
    /// It can't be written, so the step must not be done.
    pub(super) fn note(&mut self, machine: &Machine, step: Step) -> Result<()> {
        self.steps.push(step);
        self.save(machine)
    }

    /// Notes what brings a service back as it was when all is undone.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(super) fn note_service(&mut self, machine: &Machine, command: &Command) -> Result<()> {
        self.services.push(command.into());
        // As long as nothing is changed, no service has to be brought back.
        if self.is_empty() { Ok(()) } else { self.save(machine) }
    }

    /// Undoes all, newest first, and forgets each step that is undone. What somebody else
    /// has changed since stays, with a warning.
    ///
    /// # Errors
    /// A step can't be undone; those that are left are kept for another try.
    pub(super) fn undo(mut self, machine: &Machine) -> Result<()> {
        let services = Services::of(machine);
        let units = self.steps.iter().any(Step::is_of_systemd);
        for newest in (0..self.steps.len()).rev() {
            let step = &self.steps[newest];
            let undone = step.undo(machine);
            if let Err(error) = &undone {
                eprintln!("cannot undo: {step}: {error:#}");
            }
            let was_done = self.is_certain || !matches!(step, Step::Run { .. });
            if undone.is_ok() || !was_done {
                self.steps.remove(newest);
            }
            self.is_certain = true;
            // On a full disk the longer record stays, and what is undone can be undone again.
            let _ = self.save(machine);
        }
        if services.can_run() {
            let reloaded = if units { services.reload_units() } else { Ok(()) };
            // One after the other: an agent that stops while its engine starts cannot report
            // its runs.
            let brought_back = self.services.iter().map(|line| Command::from(line).run());
            for error in std::iter::once(reloaded).chain(brought_back).filter_map(Result::err) {
                eprintln!("cannot bring the services back: {error}");
            }
        }
        if self.is_empty() {
            return self.forget(machine);
        }
        bail!(
            "not all changes are undone; fix the cause above, then run `scalr-agent-setup recover`"
        )
    }

    /// Forgets all: the transaction is finished.
    ///
    /// # Errors
    /// The file can't be removed.
    pub(super) fn forget(&self, machine: &Machine) -> Result<()> {
        PathState::Absent
            .put(&machine.entry(self.path))
            .with_context(|| format!("cannot remove {}", self.path))?;
        for directory in self.directories.iter().rev() {
            // Unless something is in it by now.
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }

    fn save(&mut self, machine: &Machine) -> Result<()> {
        let file = machine.entry(self.path);
        let directory = file.parent().context("a file has a directory")?;
        let missing = directory.ancestors().take_while(|directory| !directory.exists());
        let mut missing: Vec<PathBuf> = missing.map(ToOwned::to_owned).collect();
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        missing.reverse();
        self.directories.append(&mut missing);
        let (uid, gid) = PathState::Absent.owner();
        PathState::File { mode: 0o600, uid, gid, text: serde_json::to_string(self)? }
            .put(&file)
            .with_context(|| format!("cannot write {}, so nothing more is changed", self.path))
    }
}

impl Step {
    fn is_of_systemd(&self) -> bool {
        matches!(self, Self::PutBack { path, .. } if path.contains("/systemd/system/"))
    }

    fn undo(&self, machine: &Machine) -> Result<()> {
        match self {
            Self::PutBack { path, before, after } => {
                let file = machine.entry(path);
                remove_temporary(&file)?;
                let found = PathState::at(&file)?;
                if found == *before {
                    return Ok(());
                }
                if found.mark() != *after {
                    eprintln!("{path} was changed since by someone else, so it stays as it is");
                    return Ok(());
                }
                before.put(&file)
            }
            // Each of these two was perhaps never done, on a file system that is mounted for
            // reading, for example.
            Self::RemoveDirectory { path } => {
                let directory = machine.entry(path);
                if !is_there(&directory) {
                    return Ok(());
                }
                Ok(fs::remove_dir(directory)?)
            }
            Self::MakeDirectory { path, mode } => {
                let directory = machine.entry(path);
                if PathState::at(&directory)? == (PathState::Directory { mode: *mode }) {
                    return Ok(());
                }
                fs::create_dir_all(&directory)?;
                Ok(fs::set_permissions(&directory, Permissions::from_mode(*mode))?)
            }
            Self::KeepPackages { before, installation } => before.restore(installation),
            Self::Nothing { .. } => Ok(()),
            Self::Run { command, .. } => Ok(Command::from(command).run()?),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PutBack { path, .. } | Self::MakeDirectory { path, .. } => {
                write!(f, "put back {path}")
            }
            Self::RemoveDirectory { path } => write!(f, "remove {path}"),
            Self::KeepPackages { .. } => f.write_str("remove what was installed"),
            Self::Nothing { what } | Self::Run { what, .. } => f.write_str(what),
        }
    }
}

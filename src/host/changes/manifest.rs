//! What was changed for good, and what was there before.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::path_state::{Mark, PathState};
use crate::machine::Machine;
use crate::users;
use cli::untrusted_file;

/// The manifest's version that we write and read.
const VERSION: u32 = 1;

/// What was changed on a machine and what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Oldest first.
    #[serde(default)]
    pub(super) files: Vec<FileChange>,
    /// Units that were enabled.
    #[serde(default)]
    pub enabled: Vec<String>,
    /// Groups that earlier versions have put a user into.
    #[serde(default)]
    pub memberships: Vec<Membership>,
    /// Keys that rpm was given to verify packages by.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// A user who was put into a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The user's name.
    pub user: String,
    /// The group's name.
    pub group: String,
}

/// A change of one file or link, with what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    pub(super) path: String,
    pub(super) now: Mark,
    pub(super) before: PathState,
}

impl FileChange {
    /// The machine's path of it.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Manifest {
    /// The paths that were changed, oldest first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|entry| entry.path.as_str())
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
            && self.enabled.is_empty()
            && self.memberships.is_empty()
            && self.keys.is_empty()
    }

    pub(super) fn read(machine: &Machine, path: &str) -> Result<Self> {
        let file = machine.entry(path);
        let metadata = match fs::symlink_metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty()),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {path}")),
        };
        // The directory is the agent's: what it could have put there is not
        // followed.
        if !metadata.is_file() || users::are_root() && metadata.uid() != 0 {
            bail!("{path} is not a file of root's own; look at it, then remove it");
        }
        let text = match untrusted_file::read_text(&file) {
            // Root's own secret; without it a dry run can still show most.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Self::empty());
            }
            result => result.with_context(|| format!("cannot read {path}"))?,
        };
        let manifest: Self = serde_json::from_str(&text)
            .with_context(|| format!("{path} is damaged; look at it, then remove it"))?;
        if manifest.version != VERSION {
            bail!("{path} was written by another version of scalr-agent-setup; use that one");
        }
        Ok(manifest)
    }

    /// The state of the manifest's file with this content.
    pub(super) fn state(&self) -> Result<PathState> {
        if self.is_empty() {
            return Ok(PathState::Absent);
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let (uid, gid) = PathState::Absent.owner();
        Ok(PathState::File { mode: 0o600, uid, gid, text })
    }

    pub(super) fn write(&self, machine: &Machine, path: &str) -> Result<()> {
        let file = machine.entry(path);
        let state = self.state()?;
        let directory = file.parent().context("the manifest has a directory")?;
        if state == PathState::Absent && !directory.exists() {
            return Ok(());
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        state.put(&file).with_context(|| format!("cannot write {path}"))
    }

    fn empty() -> Self {
        Self {
            version: VERSION,
            files: Vec::new(),
            enabled: Vec::new(),
            memberships: Vec::new(),
            keys: Vec::new(),
        }
    }

    pub(super) fn entry(&self, path: &str) -> Option<&FileChange> {
        self.files.iter().find(|entry| entry.path == path)
    }

    pub(super) fn record(&mut self, path: &str, before: PathState, now: Mark) {
        if let Some(entry) = self.files.iter_mut().find(|entry| entry.path == path) {
            entry.now = now;
        } else {
            self.files.push(FileChange { path: path.to_owned(), now, before });
        }
        // What is as it was before we came is no change of ours.
        self.files.retain(|entry| entry.path != path || entry.before.mark() != entry.now);
    }
}

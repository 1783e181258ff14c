//! What is at a path, and putting it there in one step.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::users;
use cli::whole_file::{self, WholeFile};
use cli::{refusal, untrusted_file};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PathState {
    Absent,
    Directory { mode: u32 },
    Symlink { target: PathBuf },
    File { mode: u32, uid: u32, gid: u32, text: String },
}

impl PathState {
    pub(super) fn at(path: &Path) -> Result<Self> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        };
        let mode = metadata.mode() & 0o7777;
        let kind = metadata.file_type();
        Ok(if kind.is_symlink() {
            Self::Symlink { target: fs::read_link(path)? }
        } else if kind.is_dir() {
            Self::Directory { mode }
        } else if kind.is_file() {
            let text = untrusted_file::read_text(path).with_context(|| {
                format!("cannot read {}, so it is left as it is", path.display())
            })?;
            Self::File { mode, uid: metadata.uid(), gid: metadata.gid(), text }
        } else {
            bail!("{} is neither a file nor a link, so it is left as it is", path.display());
        })
    }

    /// Puts it at `path` in one step, whatever file or link is there. Killed before
    /// that step, it leaves a temporary file; see [`remove_temporary`].
    ///
    /// # Errors
    /// It can't be written; they name `path`, not the temporary file alone.
    pub(super) fn put(&self, path: &Path) -> Result<()> {
        let directory = path.parent().context("a file has a directory")?;
        remove_temporary(path)?;
        let name = temporary_name(path);
        match self {
            Self::Absent => remove_if_there(path)?,
            Self::Directory { .. } => bail!("{} cannot become a directory", path.display()),
            Self::Symlink { target } => put_link(path, &name, target)
                .map_err(refusal::explain)
                .with_context(|| format!("cannot write {}", path.display()))?,
            Self::File { mode, uid, gid, text } => {
                let new = WholeFile::at(path).temporary_name(&name).mode(*mode);
                let new = if users::are_root() { new.owner(*uid, *gid) } else { new };
                new.write(text)?;
            }
        }
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        synced.with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn mark(&self) -> Mark {
        match self {
            Self::Absent => Mark::Absent,
            Self::Directory { .. } => Mark::Directory,
            Self::Symlink { target } => Mark::Symlink { target: target.clone() },
            Self::File { text, .. } => Mark::File { sha256: hex::encode(Sha256::digest(text)) },
        }
    }

    /// The owner and the group, ours for anything but a file.
    pub(super) fn owner(&self) -> (u32, u32) {
        match self {
            Self::File { uid, gid, .. } => (*uid, *gid),
            _ => users::our_ids(),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Absent | Self::Directory { .. } => String::new(),
            Self::Symlink { target } => format!("-> {}\n", target.display()),
            Self::File { text, .. } => text.clone(),
        }
    }
}

/// Removes what [`PathState::put`] has left beside `path` when it was killed.
pub(super) fn remove_temporary(path: &Path) -> Result<()> {
    remove_if_there(&path.with_file_name(temporary_name(path)))
}

/// A hidden name that no directory of drop-ins takes for one, and that is known
/// afterwards; only one process at a time changes the machine.
pub(super) fn temporary_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.scalr-agent-setup.tmp")
}

fn put_link(path: &Path, temporary_name: &str, target: &Path) -> io::Result<()> {
    let link = tempfile::Builder::new()
        .prefix(temporary_name)
        .rand_bytes(0)
        .make_in(whole_file::folder_of(path), |link| symlink(target, link))?;
    link.persist(path).map_err(|error| error.error)
}

fn remove_if_there(path: &Path) -> Result<()> {
    // A file system that is mounted for reading refuses also to remove what is not there.
    if !is_there(path) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refusal::explain(error))
            .with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Whether something is at `path`, also a link to nothing.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The part of a state that is compared later: a file's text, not its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mark {
    Absent,
    Directory,
    Symlink { target: PathBuf },
    File { sha256: String },
}

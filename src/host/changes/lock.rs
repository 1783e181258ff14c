//! One transaction at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::file_lock::FileLock;
use crate::machine::Machine;

/// Takes the machine's lock. A tree that lacks the directory for it has none:
/// nobody else works on an image that is being made.
///
/// # Errors
/// Another process has it and keeps it, or it can't be made.
pub(super) fn take(machine: &Machine, path: &str) -> Result<Option<FileLock>> {
    let path = machine.path(path);
    if !path.parent().is_some_and(|directory| directory.is_dir()) {
        return Ok(None);
    }
    let cannot = || format!("cannot lock {}", path.display());
    match FileLock::take(open(&path).with_context(cannot)?) {
        Ok(lock) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => bail!(
            "another scalr-agent-setup is changing this machine; run this again when it has \
             ended (`fuser -v {}` tells which it is)",
            path.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

/// Whether a process holds it and keeps it.
pub(super) fn is_taken(machine: &Machine, path: &str) -> bool {
    File::open(machine.path(path)).is_ok_and(|file| FileLock::is_taken(&file))
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

//! One transaction at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::machine::Machine;

/// Held as long as a machine is being changed; gone with the process.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the machine's lock. A tree that lacks the directory for it has none:
    /// nobody else works on an image that is being made.
    ///
    /// # Errors
    /// Another process has it, or it can't be made.
    pub(super) fn take(machine: &Machine, path: &str) -> Result<Option<Self>> {
        let path = machine.path(path);
        if !path.parent().is_some_and(|directory| directory.is_dir()) {
            return Ok(None);
        }
        let file = open(&path).with_context(|| format!("cannot lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => bail!(
                "another scalr-agent-setup is changing this machine; run this again when it has \
                 ended (`fuser -v {}` tells which it is)",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Whether a process holds it.
    pub(super) fn is_taken(machine: &Machine, path: &str) -> bool {
        File::open(machine.path(path)).is_ok_and(|file| file.try_lock_shared().is_err())
    }
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

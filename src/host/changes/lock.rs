//! One transaction at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backon::{BlockingRetryable as _, ConstantBuilder};

use crate::machine::Machine;

/// How long a lock is waited for, and how often it is looked at meanwhile: one that is killed
/// leaves its lock for an instant to the command that it was about to start.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Held as long as a machine is being changed; gone with the process.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the machine's lock. A tree that lacks the directory for it has none:
    /// nobody else works on an image that is being made.
    ///
    /// # Errors
    /// Another process has it and keeps it, or it can't be made.
    pub(super) fn take(machine: &Machine, path: &str) -> Result<Option<Self>> {
        let path = machine.path(path);
        if !path.parent().is_some_and(|directory| directory.is_dir()) {
            return Ok(None);
        }
        let file = open(&path).with_context(|| format!("cannot lock {}", path.display()))?;
        match patiently(|| file.try_lock()) {
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

    /// Whether a process holds it and keeps it.
    pub(super) fn is_taken(machine: &Machine, path: &str) -> bool {
        File::open(machine.path(path))
            .is_ok_and(|file| patiently(|| file.try_lock_shared()).is_err())
    }
}

fn patiently(
    take: impl FnMut() -> std::result::Result<(), TryLockError>,
) -> std::result::Result<(), TryLockError> {
    let looks = usize::try_from(PATIENCE.as_millis() / LOOK.as_millis()).unwrap_or(usize::MAX);
    take.retry(ConstantBuilder::default().with_delay(LOOK).with_max_times(looks))
        .when(|error| matches!(error, TryLockError::WouldBlock))
        .call()
}

fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_left_soon_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::at(folder.path());
        let held = Lock::take(&machine, "/lock").unwrap();
        assert!(Lock::is_taken(&machine, "/lock"));
        let left = std::thread::spawn(move || {
            std::thread::sleep(4 * LOOK);
            drop(held);
        });
        assert!(Lock::take(&machine, "/lock").unwrap().is_some());
        left.join().unwrap();
    }
}

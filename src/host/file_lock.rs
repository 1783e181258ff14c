//! A file that one process at a time has locked with flock(2).

use std::fs::{File, TryLockError};
use std::time::Duration;

use backon::{BlockingRetryable as _, ConstantBuilder};

/// How long a lock is waited for, and how often it is looked at meanwhile: one that is killed
/// leaves its lock for an instant to the command that it was about to start.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Held as long as this lives; gone with the process.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Locks `file`, after a short wait if another has it.
    ///
    /// # Errors
    /// Another has it and keeps it (`WouldBlock`), or it can't be locked.
    pub fn take(file: File) -> Result<Self, TryLockError> {
        patiently(|| file.try_lock())?;
        Ok(Self { file })
    }

    /// Whether another has `file` and keeps it.
    #[must_use]
    pub fn is_taken(file: &File) -> bool {
        patiently(|| file.try_lock_shared()).is_err()
    }

    /// The file that is locked.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that another thread is just starting has it
        // open as well until its program runs.
        drop(self.file.unlock());
    }
}

fn patiently(take: impl FnMut() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    let looks = usize::try_from(PATIENCE.as_millis() / LOOK.as_millis()).unwrap_or(usize::MAX);
    take.retry(ConstantBuilder::default().with_delay(LOOK).with_max_times(looks))
        .when(|error| matches!(error, TryLockError::WouldBlock))
        .call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_left_soon_is_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(path.path()).unwrap();
        let held = FileLock::take(open()).unwrap();
        assert!(FileLock::is_taken(&open()));
        let left = std::thread::spawn(move || {
            std::thread::sleep(4 * LOOK);
            drop(held);
        });
        FileLock::take(open()).unwrap();
        left.join().unwrap();
    }

    #[test]
    fn a_process_that_is_being_started_does_not_keep_it() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let held = FileLock::take(File::open(path.path()).unwrap()).unwrap();
        let _of_the_process = held.file().try_clone().unwrap();
        drop(held);
        File::open(path.path()).unwrap().try_lock().unwrap();
    }
}

//! A task's log on disk, where it waits for the server.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::sum;

/// How often a full disk is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// The log's file, which is only appended to, but for a replay after a crash.
#[derive(Debug)]
pub struct Spool {
    file: File,
    path: PathBuf,
    length: watch::Sender<u64>,
}

impl Spool {
    /// Opens the log at `path`, where it ends.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let length = file.metadata().context("cannot look at the log's file")?.len();
        Ok(Self { file, path: path.to_owned(), length: watch::Sender::new(length) })
    }

    /// Appends, all or nothing.
    ///
    /// # Errors
    /// The disk is full, for example.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes).with_context(|| self.cannot_write())
    }

    /// Appends, and waits for room while the disk is full. Whoever writes the log
    /// waits as well, so that nothing of it is lost.
    ///
    /// # Errors
    /// The file can't be written for another reason.
    pub(crate) async fn write_patiently(&mut self, bytes: &[u8]) -> Result<()> {
        let mut waited = false;
        loop {
            match self.append(bytes) {
                Err(error) if is_full(&error) => {
                    if !waited {
                        warn!("{}: {error}; the run's output waits for room", self.cannot_write());
                    }
                    waited = true;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                result => {
                    if waited && result.is_ok() {
                        info!("there is room again; the run's output goes on");
                    }
                    return result.with_context(|| self.cannot_write());
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(bytes) {
            // Half of it would stand twice in the log after another try.
            self.file.set_len(self.len())?;
            return Err(error);
        }
        self.length.send_modify(|length| *length += bytes.len() as u64);
        Ok(())
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {}", self.path.display())
    }

    /// Cuts it off after `length` bytes, to be written again from there.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).with_context(|| self.cannot_write())?;
        self.length.send_replace(length);
        Ok(())
    }

    /// Sees to it that what it has so far outlives a loss of power.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| self.cannot_write())
    }

    /// How long it is, in bytes.
    pub(crate) fn len(&self) -> u64 {
        *self.length.borrow()
    }

    /// How long it is, as it grows.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.length.subscribe()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that it outlives a loss of power, and gives its SHA-256 in
    /// lower-case hex.
    ///
    /// # Errors
    /// The file can't be written or read.
    pub(crate) fn seal(&self) -> Result<String> {
        self.sync()?;
        sum::sha256(&self.path)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn a_log_goes_on_where_it_ended_and_can_be_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        Spool::open(&path).unwrap().write(b"one\n").unwrap();
        let mut spool = Spool::open(&path).unwrap();
        let length = spool.watch();
        spool.write(b"two").unwrap();
        assert_eq!((spool.len(), *length.borrow()), (7, 7));
        spool.truncate(4).unwrap();
        spool.write(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(spool.seal().unwrap(), hex::encode(Sha256::digest(b"one\ntwo\n")));
    }
}

//! The logs of plans and applies, a file for each attempt.
//!
//! They are plain files and not objects because they grow while people read
//! them: an object store has no append, and rewriting a log with every piece
//! of it costs the square of its length. Every piece is synced before it is
//! acknowledged: an agent that was told an offset never sends what is before
//! it again.

mod ansi;
mod indexes;
mod lines;
mod times;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use crate::clock::Millis;
use crate::disk::Reserve;
use crate::usage::Usage;
use indexes::Indexes;

pub(crate) use lines::{Lines, Matches};

/// The logs' folder.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    reserve: Reserve,
    usage: Usage,
    indexes: Indexes,
    searches: Arc<Semaphore>,
}

/// How many logs are searched at once: each search reads a whole log.
const SEARCHES: usize = 2;

/// Which log.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The workspace, so that its logs go with it.
    pub workspace_id: String,
    /// The plan or apply.
    pub task_id: String,
    /// The attempt at it.
    pub attempt: i64,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It was written; the log is this long now.
    To(u64),
    /// It was not: the log ends here, not at the offset of the write.
    WrongOffset(u64),
}

impl Logs {
    /// The logs in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder can't be made.
    pub(crate) fn open(folder: &Path, reserve: Reserve, usage: Usage) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let searches = Arc::new(Semaphore::new(SEARCHES));
        let indexes = Indexes::default();
        Ok(Self { folder: folder.to_owned(), reserve, usage, indexes, searches })
    }

    /// Where the logs are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes `piece`, which came `at` this time, at `offset`, which has to be the log's end.
    ///
    /// # Errors
    /// It can't be written; then the log is as it was.
    pub(crate) async fn append(
        &self,
        key: &Key,
        offset: u64,
        piece: Bytes,
        at: Millis,
    ) -> Result<Appended> {
        let (reserve, indexes) = (self.reserve.clone(), self.indexes.clone());
        self.blocking(key, move |path| {
            let mut file = open_for_writing(path)?;
            let length = file.metadata()?.len();
            if offset != length {
                return Ok(Appended::WrongOffset(length));
            }
            if !piece.is_empty() {
                reserve.check()?;
            }
            let written = file.write_all(&piece).and_then(|()| file.sync_data());
            if let Err(error) = written {
                // Half a piece would shift everything behind it.
                file.set_len(length)?;
                indexes.forget(path);
                return Err(error);
            }
            // A log without times is better than a run without its log.
            if !piece.is_empty()
                && let Err(error) = times::note(path, offset, at)
            {
                warn!("cannot note the time of a piece of {}: {error}", path.display());
            }
            indexes.grown(path);
            Ok(Appended::To(length + piece.len() as u64))
        })
        .await
    }

    /// Whether the log is what its agent says that it sent; if not, from where
    /// it has to be sent again.
    ///
    /// A log that differs in what is already there is emptied.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn verify(
        &self,
        key: &Key,
        length: u64,
        sha256: &str,
    ) -> Result<Result<(), u64>> {
        let (sha256, indexes) = (sha256.to_owned(), self.indexes.clone());
        self.blocking(key, move |path| {
            let file = open_for_writing(path)?;
            let have = file.metadata()?.len();
            if have < length {
                return Ok(Err(have));
            }
            if have == length && digest(path)? == sha256 {
                return Ok(Ok(()));
            }
            times::forget(path)?;
            file.set_len(0)?;
            indexes.forget(path);
            Ok(Err(0))
        })
        .await
    }

    /// The log's file for reading, if there is one.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) async fn reader(&self, key: &Key) -> Result<Option<tokio::fs::File>> {
        let path = self.path(key);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Up to `count` lines from `first` on, a number from 1, or the last ones; none if there is
    /// no log.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn lines(
        &self,
        key: &Key,
        first: Option<u64>,
        count: u64,
    ) -> Result<Option<Lines>> {
        let indexes = self.indexes.clone();
        self.read(key, move |path, log, length| {
            let index = indexes.of(path);
            let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
            index.extend(log, length)?;
            let (mut lines, offsets) = index.read(log, length, first, count)?;
            lines.times = times::read(path, &offsets)?;
            Ok(lines)
        })
        .await
    }

    /// The lines with `text` in them, whatever its case in ASCII; none if there is no log.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn search(&self, key: &Key, text: String) -> Result<Option<Matches>> {
        let _turn = self.searches.acquire().await?;
        self.read(key, move |_, log, length| lines::search(log, length, &text)).await
    }

    /// Notifies its waiters each time that the log grows.
    pub(crate) fn growth(&self, key: &Key) -> Arc<Notify> {
        self.indexes.growth(&self.path(key))
    }

    /// Deletes the logs of a workspace.
    ///
    /// # Errors
    /// They can't be deleted.
    pub(crate) async fn delete_workspace(&self, workspace_id: &str) -> Result<()> {
        let folder = self.folder.join(workspace_id);
        let removed = tokio::fs::remove_dir_all(&folder).await;
        self.usage.changed(workspace_id);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// Where a log is.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.workspace_id).join(format!("{}.{}.log", key.task_id, key.attempt))
    }

    async fn read<T: Send + 'static>(
        &self,
        key: &Key,
        read: impl FnOnce(&Path, &File, u64) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let path = self.path(key);
        let name = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let log = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let length = log.metadata()?.len();
            read(&path, &log, length).map(Some)
        });
        read.await?.with_context(|| format!("cannot read the log {name}"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path(key);
        let name = path.display().to_string();
        let worked = tokio::task::spawn_blocking(move || work(&path)).await?;
        self.usage.changed(&key.workspace_id);
        worked.with_context(|| format!("cannot work on the log {name}"))
    }
}

/// Opens a log, made if it is missing, for one writer at a time.
fn open_for_writing(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.lock()?;
    Ok(file)
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(sha256.finalize())),
            length => sha256.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Logs {
        Logs::open(folder, Reserve::new(folder, 0), Usage::default()).unwrap()
    }

    fn key() -> Key {
        Key { workspace_id: "ws-1".into(), task_id: "task-1".into(), attempt: 1 }
    }

    #[tokio::test]
    async fn pieces_go_to_the_end_only() {
        let folder = tempfile::tempdir().unwrap();
        let logs = open(folder.path());
        let append = async |offset, piece: &'static str| {
            logs.append(&key(), offset, Bytes::from_static(piece.as_bytes()), 0).await.unwrap()
        };
        assert_eq!(append(0, "one ").await, Appended::To(4));
        assert_eq!(append(0, "one ").await, Appended::WrongOffset(4));
        assert_eq!(append(9, "three").await, Appended::WrongOffset(4));
        assert_eq!(append(4, "two").await, Appended::To(7));
        assert_eq!(
            logs.append(&key(), 9, Bytes::new(), 0).await.unwrap(),
            Appended::WrongOffset(7)
        );
    }

    #[tokio::test]
    async fn a_log_that_differs_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = open(folder.path());
        logs.append(&key(), 0, Bytes::from_static(b"abc"), 0).await.unwrap();
        let sum = |text: &str| hex::encode(Sha256::digest(text));
        assert_eq!(logs.verify(&key(), 3, &sum("abc")).await.unwrap(), Ok(()));
        assert_eq!(logs.verify(&key(), 5, &sum("abcde")).await.unwrap(), Err(3));
        assert_eq!(logs.verify(&key(), 3, &sum("xyz")).await.unwrap(), Err(0));
        assert_eq!(
            logs.append(&key(), 3, Bytes::new(), 0).await.unwrap(),
            Appended::WrongOffset(0)
        );
    }
}

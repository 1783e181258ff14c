//! What a container left in `/scalr/run`, by one call to the engine: each call for a path of a
//! container that has ended takes Docker 40 ms, for it mounts the container's files.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use tracing::debug;

use super::{Job, paths};
use crate::engine::{self, LARGE_FILE, SMALL_FILE};

/// How much of other files is read, in bytes. A run can leave more there; then each file is
/// asked for alone.
const MOST_OF_OTHERS: u64 = 64 * 1024 * 1024;

/// What an entry takes in an archive besides its content, in bytes.
const HEADER: u64 = 512;

/// The files that are of use, and the most that each may have, in bytes.
const WANTED: [(&str, u64); 8] = [
    (paths::STATUS, SMALL_FILE),
    (paths::TIMES, SMALL_FILE),
    (paths::MEMORY_NOTICE, SMALL_FILE),
    (paths::TIME_NOTICE, SMALL_FILE),
    (paths::DISK_NOTICE, SMALL_FILE),
    (paths::PLAN, LARGE_FILE),
    (paths::PLAN_JSON, LARGE_FILE),
    (paths::STATE, LARGE_FILE),
];

/// What was found of the files that are of use.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// None: it is not there. A file that is no regular one, or too large, is not here.
    files: HashMap<&'static str, Option<NamedTempFile>>,
}

impl Left {
    /// Reads the archive of the folder, making copies in `scratch`.
    fn read(archive: &mut dyn io::Read, scratch: &Path) -> Result<Self> {
        let mut files: HashMap<_, _> = WANTED.iter().map(|(path, _)| (*path, None)).collect();
        let mut others = 0_u64;
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            // The folder's own name comes first.
            let path = Path::new(paths::SCALR).join(entry.path()?);
            let wanted = WANTED.iter().find(|(wanted, _)| Path::new(wanted) == path);
            if let Some((wanted, limit)) = wanted
                && entry.header().entry_type().is_file()
                && entry.size() <= *limit
            {
                let mut copy = NamedTempFile::new_in(scratch)
                    .context("cannot make a file for what the run left")?;
                io::copy(&mut entry, &mut copy)?;
                files.insert(*wanted, Some(copy));
                continue;
            }
            if let Some((wanted, _)) = wanted {
                // Of two names of a file, the archive has one as a link to the other.
                files.remove(wanted);
            }
            // A sparse file is sent with its whole length.
            others = others.saturating_add(entry.size()).saturating_add(HEADER);
            if others > MOST_OF_OTHERS {
                files.retain(|_, file| file.is_some());
                break;
            }
        }
        Ok(Self { files })
    }
}

impl Job {
    /// Fetches what the container left.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(super) async fn fetch_left(&self, container: &str) -> Result<()> {
        let scratch = self.entry.directory().to_owned();
        let read = move |archive: &mut dyn io::Read| Left::read(archive, &scratch);
        let left = match self.context.engine.archive_of(container, paths::RUN, read).await {
            Err(error) if engine::is_away(&error) => return Err(error),
            Err(error) => {
                debug!("each file of the run is asked for alone: {error:#}");
                None
            }
            left => left?,
        };
        *self.left() = left.unwrap_or_default();
        Ok(())
    }

    /// The file that the container left at `path`, if there is one, of at most `limit` bytes:
    /// as it was fetched, or by a call of its own.
    ///
    /// # Errors
    /// As [`Job::copy_out`].
    pub(super) async fn take_left(
        &self,
        container: &str,
        path: &str,
        limit: u64,
    ) -> Result<Option<NamedTempFile>> {
        let fetched = self.left().files.remove(path);
        match fetched {
            Some(file) => Ok(file),
            None => {
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                let copying = self.copy_out(container, path, limit);
                self.progress.step(format!("copy {name}"), copying).await
            }
        }
    }

    /// The content of a small file that the container left.
    ///
    /// # Errors
    /// As [`Job::copy_out`].
    pub(super) async fn read_left(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.take_left(container, path, SMALL_FILE).await? else {
            return Ok(None);
        };
        fs::read(file.path()).context("cannot read what the run left").map(Some)
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Left> {
        self.left.lock().expect("nothing panics while it holds the files")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tar::{EntryType, Header};

    use super::*;

    fn archive(entries: &[(&str, EntryType, u64)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, size) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(*size);
            if kind.is_hard_link() {
                archive.append_link(&mut header, path, "run/other").unwrap();
            } else {
                archive.append_data(&mut header, path, io::repeat(b'x').take(*size)).unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    /// What is known of a file: its length, or that it is not there.
    fn found(left: &Left, path: &str) -> Option<Option<u64>> {
        let file = left.files.get(path)?;
        Some(file.as_ref().map(|file| file.path().metadata().unwrap().len()))
    }

    #[test]
    fn what_is_no_regular_file_of_its_own_or_too_large_is_asked_for_alone() {
        use EntryType::{Directory, Fifo, Link, Regular};
        let scratch = tempfile::tempdir().unwrap();
        let archive = archive(&[
            ("run/", Directory, 0),
            ("run/other", Regular, 3),
            ("run/memory", Fifo, 0),
            ("run/hooks/status", Regular, 9),
            ("run/plan", Link, 0),
            ("run/plan.json", Regular, 5),
            ("run/status", Regular, SMALL_FILE),
            ("run/times", Regular, SMALL_FILE + 1),
        ]);
        let left = Left::read(&mut archive.as_slice(), scratch.path()).unwrap();
        assert_eq!(found(&left, paths::STATUS), Some(Some(SMALL_FILE)));
        assert_eq!(found(&left, paths::PLAN_JSON), Some(Some(5)));
        assert_eq!(found(&left, paths::STATE), Some(None), "it is not there");
        for path in [paths::PLAN, paths::TIMES, paths::MEMORY_NOTICE] {
            assert_eq!(found(&left, path), None, "{path}");
        }
    }

    #[test]
    fn a_sparse_file_is_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        let mut archive = archive(&[("run/memory", EntryType::Regular, 1)]);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_path("run/plan").unwrap();
        header.set_size(10 << 40);
        header.set_cksum();
        // Without the two blocks at the end; its content would follow.
        archive.truncate(archive.len() - 1024);
        archive.extend(header.as_bytes());
        let left = Left::read(&mut archive.as_slice(), scratch.path()).unwrap();
        assert_eq!(found(&left, paths::MEMORY_NOTICE), Some(Some(1)));
        for path in [paths::PLAN, paths::STATUS] {
            assert_eq!(found(&left, path), None, "{path}");
        }
    }

    #[test]
    fn what_comes_after_much_else_is_asked_for_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let regular = EntryType::Regular;
        let archive = archive(&[
            ("run/disk", regular, 1),
            ("run/large", regular, MOST_OF_OTHERS + 1),
            ("run/status", regular, 9),
        ]);
        let left = Left::read(&mut archive.as_slice(), scratch.path()).unwrap();
        assert_eq!(found(&left, paths::DISK_NOTICE), Some(Some(1)));
        assert_eq!(found(&left, paths::STATUS), None);
        assert_eq!(found(&left, paths::PLAN), None);
    }
}

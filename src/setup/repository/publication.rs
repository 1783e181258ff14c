//! How a new repository takes the place of the old one: all of it is made beside
//! the old one, and then each part is exchanged in one step.
//!
//! Inside of the output, not beside it: the output may be a mount point, and a
//! server that has it mounted would go on seeing a folder that was replaced.

use std::fs::{self, File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
use tempfile::TempDir;

use super::KEY;
use super::retired::{self, Retired};
use cli::Failure;
use host::file_lock::FileLock;

/// How the folder of what is not published yet begins.
const NEW: &str = ".new-";

/// A repository in the making, and the one whose place it takes.
pub(super) struct Publication {
    output: PathBuf,
    /// The output is there only because of us, and goes if nothing is published.
    is_first: bool,
    /// The files that were retired before.
    retired: Retired,
    new: TempDir,
    lock: FileLock,
}

impl Publication {
    /// Begins a repository at `output`.
    ///
    /// # Errors
    /// Something else is there; another process publishes; it can't be written to.
    pub(super) fn begin(output: &Path) -> Result<Self> {
        let is_first = !output.exists();
        let cannot = || format!("cannot write into {}", output.display());
        fs::create_dir_all(output).with_context(cannot)?;
        if is_first {
            // As with what is in it: the caller's umask may be 077.
            fs::set_permissions(output, Permissions::from_mode(0o755)).with_context(cannot)?;
        }
        let lock = match FileLock::take(File::open(output).with_context(cannot)?) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Locked.because(format!(
                    "another `scalr-agent-setup repository` is writing into {}",
                    output.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        };
        let mut others = 0;
        for entry in fs::read_dir(output).with_context(cannot)? {
            let entry = entry?;
            // Of one that was killed: we have the lock.
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                fs::remove_dir_all(entry.path()).with_context(cannot)?;
            } else {
                others += 1;
            }
        }
        if others > 0 && !output.join(KEY).is_file() {
            return Err(Failure::Usage.because(format!(
                "{} is not a repository made by scalr-agent-setup, so nothing is published there",
                output.display()
            )));
        }
        let retired = Retired::read(output)?;
        let new = tempfile::Builder::new().prefix(NEW).tempdir_in(output).with_context(cannot)?;
        Ok(Self { output: output.to_owned(), is_first, retired, new, lock })
    }

    /// The folder of what is published.
    pub(super) fn output(&self) -> &Path {
        &self.output
    }

    /// The folder of the new publication.
    pub(super) fn folder(&self) -> &Path {
        self.new.path()
    }

    /// The files of the part `part` which an index names that is published, as
    /// paths relative to the output.
    ///
    /// # Errors
    /// A folder can't be read.
    pub(super) fn published(&self, part: &str) -> Result<Vec<String>> {
        let files = retired::files(&self.output, part)?;
        Ok(files.into_iter().filter(|path| !self.retired.has(path)).collect())
    }

    /// Puts `file` at `path` in the new repository, without a copy where the file
    /// system can do that.
    ///
    /// # Errors
    /// It can't.
    pub(super) fn link(&self, file: &Path, path: &str) -> Result<PathBuf> {
        let target = self.place(path)?;
        if fs::hard_link(file, &target).is_err() {
            fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(target)
    }

    /// The same, as a copy that can be written to.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn copy(&self, file: &Path, path: &str) -> Result<PathBuf> {
        let target = self.place(path)?;
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(target)
    }

    /// Keeps the files that the old repository has and the new one no longer names,
    /// as long as they stay, and records them.
    ///
    /// # Errors
    /// A file can't be linked or written.
    pub(super) fn keep_retired(&self, parts: &[&str], now: Timestamp) -> Result<()> {
        let mut kept = Retired::default();
        for part in parts {
            for path in retired::files(&self.output, part)? {
                if self.folder().join(&path).exists() {
                    continue;
                }
                let Some(since) = self.retired.since(&path, now) else { continue };
                self.link(&self.output.join(&path), &path)?;
                kept.add(path, since);
            }
        }
        kept.write(self.folder())
    }

    /// Publishes it, all of a part in one step: no client sees half of it.
    ///
    /// # Errors
    /// A part can't be exchanged; then all is as it was.
    pub(super) fn publish(mut self) -> Result<()> {
        let new = self.folder().to_owned();
        readable(&new)?;
        // An index is not to be on the disk before what it names.
        syncfs(self.lock.file()).context("cannot write to the disk")?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&new)? {
            names.push(entry?.file_name());
        }
        names.sort();
        for (done, name) in names.iter().enumerate() {
            let Err(error) = exchange(&new.join(name), &self.output.join(name)) else { continue };
            for name in names[..done].iter().rev() {
                drop(exchange(&new.join(name), &self.output.join(name)));
            }
            bail!("cannot replace {}: {error}", self.output.join(name).display());
        }
        self.is_first = false;
        syncfs(self.lock.file()).context("cannot write to the disk")
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let target = self.folder().join(path);
        let folder = target.parent().context("a file without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(target)
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if self.is_first {
            drop(fs::remove_dir_all(self.new.path()));
            // Only if there is nothing in it.
            drop(fs::remove_dir(&self.output));
        }
    }
}

/// Puts `new` where `old` is, and what was there, if anything, at `new`.
fn exchange(new: &Path, old: &Path) -> std::io::Result<()> {
    // After an exchange that is taken back, the first is the one that is missing.
    match (new.exists(), old.exists()) {
        (true, true) => Ok(renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)?),
        (true, false) => fs::rename(new, old),
        (false, _) => fs::rename(old, new),
    }
}

/// A web server reads it as another user; a temporary directory is private.
fn readable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_folder = path.is_dir();
        let mode = if is_folder { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        if is_folder {
            readable(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::repository::retired::STAY;

    #[test]
    fn an_exchange_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&new, "new").unwrap();
        exchange(&new, &old).unwrap();
        assert_eq!((fs::read_to_string(&old).unwrap().as_str(), new.exists()), ("new", false));
        exchange(&new, &old).unwrap();
        assert_eq!((fs::read_to_string(&new).unwrap().as_str(), old.exists()), ("new", false));
        fs::write(&old, "old").unwrap();
        exchange(&new, &old).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        assert_eq!(fs::read_to_string(&new).unwrap(), "old");
    }

    #[test]
    fn a_strange_folder_stays_and_a_new_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(Publication::begin(folder.path()).is_err());
        assert!(folder.path().join("mine").exists());
        let output = folder.path().join("output");
        drop(Publication::begin(&output).unwrap());
        assert!(!output.exists());
    }

    #[test]
    fn two_do_not_write_at_once_and_what_a_killed_one_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let first = Publication::begin(folder.path()).unwrap();
        let error = Publication::begin(folder.path()).err().unwrap();
        assert_eq!(Failure::of(&error), Failure::Locked);
        drop(first);
        fs::create_dir(folder.path().join(".new-left")).unwrap();
        drop(Publication::begin(folder.path()).unwrap());
        assert!(!folder.path().join(".new-left").exists());
    }

    #[test]
    fn a_file_that_is_no_longer_named_stays_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join(KEY), "").unwrap();
        fs::create_dir_all(root.join("yum/packages")).unwrap();
        fs::write(root.join("yum/packages/a.rpm"), "a").unwrap();
        let publish = |now: Timestamp| {
            let publication = Publication::begin(root).unwrap();
            fs::create_dir(publication.folder().join("yum")).unwrap();
            publication.keep_retired(&["yum"], now).unwrap();
            publication.publish().unwrap();
            retired::files(root, "yum").unwrap()
        };
        let start = Timestamp::now();
        assert_eq!(publish(start), ["yum/packages/a.rpm"]);
        // Its term does not start again.
        let later = start + SignedDuration::from_hours(100);
        assert_eq!(publish(later), ["yum/packages/a.rpm"]);
        let recorded = Retired::read(root).unwrap();
        assert_eq!(recorded.since("yum/packages/a.rpm", later), Some(start));
        assert!(publish(start + STAY).is_empty());
        assert_eq!(Retired::read(root).unwrap(), Retired::default());
    }
}

//! Files written whole or not at all.
//!
//! The new content goes into a temporary file in the same folder, which is then renamed:
//! a rename from elsewhere would keep the wrong SELinux label. Both are on disk before the
//! call returns, so that a power cut leaves the old file or the new one. What a killed
//! process leaves is removed by the next one that writes the same file.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use tempfile::{Builder, NamedTempFile};

use crate::refusal;

/// A file to be written, and how.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct WholeFile<'a> {
    path: &'a Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    temporary_name: Option<&'a str>,
    keeps_existing: bool,
    is_synced: bool,
}

impl<'a> WholeFile<'a> {
    /// The file at `path`, readable by its owner alone. It replaces the file or the link
    /// that is there.
    pub fn at(path: &'a Path) -> Self {
        let (owner, temporary_name) = (None, None);
        Self { path, mode: 0o600, owner, temporary_name, keeps_existing: false, is_synced: true }
    }

    /// With these permissions, whatever the umask.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// With this user and group.
    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self { owner: Some((uid, gid)), ..self }
    }

    /// With a temporary file of this name, which a killed process leaves behind.
    pub fn temporary_name(self, name: &'a str) -> Self {
        Self { temporary_name: Some(name), ..self }
    }

    /// Writing fails if there is a file already.
    pub fn keep_existing(self) -> Self {
        Self { keeps_existing: true, ..self }
    }

    /// After a power cut the file may be empty or the old one: for what is written often
    /// and can be made again.
    pub fn unsynced(self) -> Self {
        Self { is_synced: false, ..self }
    }

    /// Writes `content`.
    ///
    /// # Errors
    /// The file or its folder cannot be written, or there is a file that has to stay.
    pub fn write(self, content: impl AsRef<[u8]>) -> Result<()> {
        let _signals = HeldBack::new();
        self.fill(|file| Ok(file.write_all(content.as_ref())?))
    }

    /// Writes what `fill` writes.
    ///
    /// # Errors
    /// As [`WholeFile::write`], and those of `fill`.
    pub fn fill(self, fill: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
        let made = match self.temporary_name {
            Some(name) => {
                Builder::new().prefix(name).rand_bytes(0).tempfile_in(folder_of(self.path))
            }
            None => self.make_temporary(),
        };
        let filled = made.map_err(refusal::explain).map_err(anyhow::Error::new).and_then(|file| {
            let mut content = BufWriter::new(file.as_file());
            fill(&mut content)?;
            content.flush()?;
            drop(content);
            Ok(file)
        });
        self.put(filled.with_context(|| self.cannot())?)
    }

    /// An empty file for [`WholeFile::put`], gone when it is dropped.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn draft(self) -> Result<NamedTempFile> {
        self.make_temporary().map_err(refusal::explain).with_context(|| self.cannot())
    }

    /// A locked file of a name that only we give; those without a process are removed.
    fn make_temporary(self) -> io::Result<NamedTempFile> {
        let folder = folder_of(self.path);
        let mut prefix = OsString::from(".");
        prefix.push(self.path.file_name().unwrap_or_default());
        prefix.push(MARK);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let random = name.as_bytes().strip_prefix(prefix.as_bytes());
            if random.is_some_and(|random| random.len() == RANDOM) {
                remove_without_process(&entry.path());
            }
        }
        loop {
            let file = Builder::new().prefix(&prefix).rand_bytes(RANDOM).tempfile_in(folder)?;
            match file.as_file().lock() {
                // What nobody can lock, nobody removes.
                Err(error) if !has_no_locks(&error) => return Err(error),
                _ => {}
            }
            // Another process may have found it before it was locked.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    /// Writes what is in `content`, a [`WholeFile::draft`] or another file in the same file
    /// system. A killed process leaves that one for good, unless its folder is emptied.
    ///
    /// # Errors
    /// As [`WholeFile::write`].
    pub fn put(self, content: NamedTempFile) -> Result<()> {
        self.try_put(content).map_err(refusal::explain).with_context(|| self.cannot())
    }

    fn try_put(self, content: NamedTempFile) -> io::Result<()> {
        let file = content.as_file();
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))?;
        if self.is_synced {
            file.sync_all()?;
        }
        if self.keeps_existing {
            content.persist_noclobber(self.path).map_err(|error| error.error)?;
        } else {
            content.persist(self.path).map_err(|error| error.error)?;
        }
        if self.is_synced {
            File::open(folder_of(self.path))?.sync_all()?;
        }
        Ok(())
    }

    fn cannot(self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

/// What the name of a temporary file has between that of its file and [`RANDOM`] characters.
const MARK: &str = ".scalr-";
const RANDOM: usize = 8;

/// Whether the file system has no flock(2), as some of a network's.
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(Errno::ENOLCK as i32)
}

/// Removes a temporary file unless its process lives, which has it locked.
fn remove_without_process(file: &Path) {
    let options = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).custom_flags(options.bits()).open(file);
    let Ok(opened) = opened else { return };
    let is_file = opened.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file && opened.try_lock().is_ok() {
        let _ = fs::remove_file(file);
    }
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// While it lives, no signal that asks the process to end reaches this thread: the temporary
/// file, maybe with a secret in it, would stay behind.
struct HeldBack(Option<SigSet>);

impl HeldBack {
    fn new() -> Self {
        let ends = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
        Self(SigSet::from_iter(ends).thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use anyhow::bail;

    use super::*;

    fn mode(file: &Path) -> u32 {
        file.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_its_owners_alone_unless_a_mode_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        WholeFile::at(&file).write("one").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("one", 0o600));
        WholeFile::at(&file).mode(0o666).write("two").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("two", 0o666));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        WholeFile::at(&file).mode(0o640).write("one").unwrap();
        let error = WholeFile::at(&file).fill(|new| {
            write!(new, "half")?;
            bail!("no more")
        });
        let error = format!("{:#}", error.unwrap_err());
        assert_eq!(error, format!("cannot write {}: no more", file.display()));
        WholeFile::at(&file).keep_existing().write("two").unwrap_err();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("one", 0o640));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(folder.path().join(name), "token").unwrap();
        put(".agent.toml.scalr-AbCd1234");
        for others in [
            ".agent.toml.scalr-1",
            ".other.scalr-AbCd1234",
            ".tmpAbCd12",
            "agent.toml.scalr-AbCd1234",
        ] {
            put(others);
        }
        put(".agent.toml.scalr-written1");
        let written = File::open(folder.path().join(".agent.toml.scalr-written1")).unwrap();
        written.lock().unwrap();
        symlink("agent.toml", folder.path().join(".agent.toml.scalr-AbCdLink")).unwrap();

        let file = folder.path().join("agent.toml");
        WholeFile::at(&file).write("one").unwrap();
        let names = || {
            let entries = folder.path().read_dir().unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let others = [
            ".agent.toml.scalr-1",
            ".agent.toml.scalr-AbCdLink",
            ".agent.toml.scalr-written1",
            ".other.scalr-AbCd1234",
            ".tmpAbCd12",
            "agent.toml",
            "agent.toml.scalr-AbCd1234",
        ];
        assert_eq!(names(), others);
        drop(written);
        WholeFile::at(&file).write("two").unwrap();
        assert!(!names().iter().any(|name| name == ".agent.toml.scalr-written1"));
    }

    #[test]
    fn a_draft_becomes_the_file_and_a_killed_process_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let (_, of_killed) = WholeFile::at(&file).draft().unwrap().keep().unwrap();
        let mut draft = WholeFile::at(&file).draft().unwrap();
        assert!(!of_killed.exists());
        draft.write_all(b"whole").unwrap();
        WholeFile::at(&file).put(draft).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "whole");
        drop(WholeFile::at(&file).draft().unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_system_without_locks_is_told_from_a_broken_one() {
        for errno in [Errno::ENOLCK, Errno::ENOSYS, Errno::EOPNOTSUPP] {
            assert!(has_no_locks(&io::Error::from(errno)), "{errno}");
        }
        assert!(!has_no_locks(&io::Error::from(Errno::EIO)));
    }

    #[test]
    fn processes_that_write_the_same_file_at_once_all_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        WholeFile::at(&file).unsynced().write("whole").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&file).unwrap(), "whole");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_has_to_stay_stops_only_a_second_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        WholeFile::at(&file).keep_existing().write("one").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");
    }

    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "one").unwrap();
        symlink(&target, &link).unwrap();
        WholeFile::at(&link).write("two").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one");
        assert!(link.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn readers_of_the_old_file_keep_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        WholeFile::at(&file).write("one").unwrap();
        let reader = File::open(&file).unwrap();
        WholeFile::at(&file).write("two").unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "one");
    }

    #[test]
    fn a_file_without_a_folder_in_its_name_is_in_the_working_directory() {
        assert_eq!(folder_of(Path::new("file")), Path::new("."));
        assert_eq!(folder_of(Path::new("/etc/file")), Path::new("/etc"));
    }

    #[test]
    fn a_signal_that_ends_the_process_waits_until_the_file_is_whole() {
        struct Content;

        impl AsRef<[u8]> for Content {
            fn as_ref(&self) -> &[u8] {
                assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGINT));
                b"one"
            }
        }

        let folder = tempfile::tempdir().unwrap();
        WholeFile::at(&folder.path().join("file")).write(Content).unwrap();
        WholeFile::at(Path::new("/no/such/file")).write(Content).unwrap_err();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGINT));
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let error = WholeFile::at(Path::new("/no/such/file")).write("one").unwrap_err();
        assert!(error.to_string().starts_with("cannot write /no/such/file"), "{error}");
    }

    #[test]
    fn what_is_in_a_temporary_file_already_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mut content = NamedTempFile::new_in(folder.path()).unwrap();
        content.write_all(b"one").unwrap();
        WholeFile::at(&file).mode(0o644).put(content).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("one", 0o644));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn root_can_give_a_file_to_a_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let (uid, gid) = (folder.path().metadata().unwrap().uid(), 65534);
        let written = WholeFile::at(&file).owner(uid, gid).mode(0o640).write("one");
        if uid == 0 {
            written.unwrap();
            assert_eq!((file.metadata().unwrap().gid(), mode(&file)), (gid, 0o640));
        } else {
            written.unwrap_err();
            assert!(!file.exists());
        }
    }
}

//! Disks: what is free on them, and how they are mounted.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::statfs::{XFS_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};

/// The free space on the disk that `path` is on, or will be on, in MB.
///
/// # Errors
/// It can't be asked for.
pub fn free(path: &Path) -> Result<u64> {
    let disk = look(path)?;
    Ok(disk.blocks_available() as u64 * disk.fragment_size() as u64 / (1 << 20))
}

/// How many files can still be made there, and how many there can be at all;
/// `None` for a file system without such a limit.
///
/// # Errors
/// It can't be asked for.
pub fn inodes(path: &Path) -> Result<Option<(u64, u64)>> {
    let disk = look(path)?;
    Ok((disk.files() > 0).then(|| (disk.files_available() as u64, disk.files() as u64)))
}

/// Whether programs may not be run from there (mounted `noexec`).
///
/// # Errors
/// It can't be asked for.
pub fn is_noexec(path: &Path) -> Result<bool> {
    Ok(look(path)?.flags().contains(FsFlags::ST_NOEXEC))
}

/// Whether nothing can be written there (mounted `ro`).
///
/// # Errors
/// It can't be asked for.
pub fn is_read_only(path: &Path) -> Result<bool> {
    Ok(look(path)?.flags().contains(FsFlags::ST_RDONLY))
}

/// Where the disk is mounted that `path` is on, or will be on.
///
/// # Errors
/// It can't be looked at.
pub fn mount_point(path: &Path) -> Result<PathBuf> {
    let existing = existing(path)?.canonicalize().context("cannot find a disk's mount point")?;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev());
    let here = device(&existing).context("cannot look at a disk")?;
    let same = |path: &&Path| device(path).is_ok_and(|device| device == here);
    let top = existing.ancestors().take_while(same).last().unwrap_or(&existing);
    Ok(top.to_owned())
}

/// Whether the file system that `path` is on is xfs.
///
/// # Errors
/// It can't be asked for.
pub fn is_xfs(path: &Path) -> Result<bool> {
    let existing = existing(path)?;
    let disk = statfs(existing).with_context(|| cannot_look(existing))?;
    Ok(disk.filesystem_type() == XFS_SUPER_MAGIC)
}

/// Whether listing a directory there tells what is a directory, which overlay
/// takes for granted. An xfs that was made with `ftype=0`, as was usual until
/// CentOS 7.2, does not; then even the entry `.` has no type.
///
/// # Errors
/// No directory there can be listed.
pub fn tells_file_types(path: &Path) -> Result<bool> {
    let existing = existing(path)?;
    let listed = openat(CWD, existing, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .and_then(Dir::read_from)
        .with_context(|| cannot_look(existing))?;
    for entry in listed {
        let entry = entry.with_context(|| cannot_look(existing))?;
        if entry.file_name() == c"." {
            return Ok(entry.file_type() == FileType::Directory);
        }
    }
    Ok(true)
}

fn look(path: &Path) -> Result<Statvfs> {
    let existing = existing(path)?;
    statvfs(existing).with_context(|| cannot_look(existing))
}

fn existing(path: &Path) -> Result<&Path> {
    path.ancestors().find(|ancestor| ancestor.exists()).context("no such disk")
}

fn cannot_look(path: &Path) -> String {
    format!("cannot look at {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_a_disk_of_its_own() {
        assert_eq!(mount_point(Path::new("/proc/self/no/such/file")).unwrap(), Path::new("/proc"));
        assert_eq!(mount_point(Path::new("/")).unwrap(), Path::new("/"));
    }

    #[test]
    fn this_disk_tells_file_types() {
        let directory = tempfile::tempdir().unwrap();
        assert!(tells_file_types(&directory.path().join("not/yet")).unwrap());
    }
}

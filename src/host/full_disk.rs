//! Names the file system without space in an error that comes from one.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::disk;
use cli::Failure;

/// How the system, apt, dpkg, rpm, dnf and SQLite report it.
const SIGNS: [&str; 7] = [
    "No space left on device",
    "Disk quota exceeded",
    "enough free space",
    "B on the /",
    "more space needed on the",
    "disk is full",
    // dnf then says that a key is wrong.
    "write a readonly database",
];

/// Adds which of the file systems that the error names is full and how much is free on it,
/// and what to do. Any other error stays as it is. To be called before anything is undone.
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if !SIGNS.iter().any(|sign| text.contains(sign)) {
        return error;
    }
    // rpm does not say where its database is.
    let named = paths(&text).filter_map(Space::at);
    match named.chain(full_package_database()).min_by_key(Space::usable) {
        Some(space) => Failure::of(&error).because(format!("{text}\n{space}")),
        None => error,
    }
}

/// Where the package tools keep what is installed.
const PACKAGE_DATABASES: [&str; 3] = ["/var/lib/dpkg", "/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// Less than what a package tool writes at once, in bytes.
const NO_SPACE: u64 = 1 << 20;

/// The file system of the package database, what is free on it and what to do, if it is
/// full: dnf reports success then.
pub fn of_package_database() -> Option<String> {
    full_package_database().map(|space| space.to_string())
}

fn full_package_database() -> Option<Space> {
    let exist = PACKAGE_DATABASES.iter().map(Path::new).filter(|folder| folder.is_dir());
    let full = exist.filter_map(Space::at).filter(|space| space.usable() < NO_SPACE);
    full.min_by_key(Space::usable)
}

/// The absolute paths that a message names.
fn paths(text: &str) -> impl Iterator<Item = &Path> {
    let is_around = |c: char| c.is_whitespace() || "'\"`()[],;:".contains(c);
    text.split(is_around).filter(|word| word.starts_with('/')).map(Path::new)
}

/// What is free on a file system.
struct Space {
    /// In bytes, for others than root.
    free: u64,
    total: u64,
    has_inodes: bool,
    mount_point: PathBuf,
}

impl Space {
    /// That of the file system that `path` is on, or will be on; `None` if that takes no files.
    fn at(path: &Path) -> Option<Self> {
        // A file in an overlay has another device than the overlay.
        let folder = path.ancestors().find(|ancestor| ancestor.is_dir())?;
        let disk = statvfs(folder).ok()?;
        let size = disk.fragment_size() as u64;
        if disk.blocks() == 0 || disk.flags().contains(FsFlags::ST_RDONLY) {
            return None;
        }
        Some(Self {
            free: disk.blocks_available() as u64 * size,
            total: disk.blocks() as u64 * size,
            has_inodes: disk.files() == 0 || disk.files_available() > 0,
            mount_point: disk::mount_point(folder).ok()?,
        })
    }

    /// In bytes; a file needs an inode, too.
    fn usable(&self) -> u64 {
        if self.has_inodes { self.free } else { 0 }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, total) = (self.free >> 20, self.total >> 20);
        write!(f, "The file system {}: {free} MB free of {total} MB", self.mount_point.display())?;
        if !self.has_inodes {
            f.write_str(", and no inode for another file")?;
        }
        f.write_str(". Free some space there or enlarge it, then run this again.")
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn the_file_system_with_the_least_space_is_named() {
        let error = anyhow!("cannot write /dev/shm/x: No space left on device (os error 28)");
        let text = explain(error.context("cannot go on with '/proc/self/status'")).to_string();
        let (first, last) = text.split_once('\n').unwrap();
        assert!(first.ends_with("No space left on device (os error 28)"), "{text}");
        assert!(last.starts_with("The file system /dev/shm: "), "{text}");
        assert!(last.contains(" MB free of "), "{text}");
    }

    #[test]
    fn another_error_stays_as_it_is() {
        let error = Err::<(), _>(Failure::NotPermitted.because("cannot write /tmp/x: no"));
        let error = explain(error.context("cannot go on").unwrap_err());
        assert_eq!(format!("{error:#}"), "cannot go on: cannot write /tmp/x: no");
        assert_eq!(Failure::of(&error), Failure::NotPermitted);
    }

    #[test]
    fn the_exit_code_stays() {
        let error = Failure::NotInstalled.because("installing x needs 80MB on the / filesystem");
        let error = explain(error);
        assert!(error.to_string().contains("\nThe file system /: "), "{error}");
        assert_eq!(Failure::of(&error), Failure::NotInstalled);
    }

    #[test]
    fn paths_are_found_in_what_dpkg_and_rpm_print() {
        let text = "cannot copy './usr/lib/a' to '/usr/lib/a.dpkg-new': failed; needs 80MB on the \
                    /usr filesystem; unpacking of archive failed on file /usr/bin/a;6b0b3d1c: cpio";
        let found: Vec<_> = paths(text).map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["/usr/lib/a.dpkg-new", "/usr", "/usr/bin/a"]);
    }
}

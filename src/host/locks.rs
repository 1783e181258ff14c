//! Locks that package tools hold on files.

use std::fs::{self, File};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// What it is called, such as `apt-get`; empty if it has just ended.
    pub name: String,
}

/// Who has locked a file with fcntl(2), as apt, dpkg and rpm do; `None` if it is
/// free or does not exist.
///
/// # Errors
/// It may not be opened.
pub fn holder(file: &Path) -> std::io::Result<Option<Holder>> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    // Whoever has locked it in any way stands in the way of a write lock.
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&opened, FcntlArg::F_GETLK(&mut lock))?;
    // 0 is a process outside of our container.
    let free = lock.l_type == libc::F_UNLCK as libc::c_short;
    Ok((!free).then(|| Holder { pid: lock.l_pid, name: name(lock.l_pid) }))
}

/// Who has written its number into a file, as yum does, and still runs.
pub fn writer(file: &Path) -> Option<Holder> {
    let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let name = name(pid);
    (!name.is_empty()).then_some(Holder { pid, name })
}

fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

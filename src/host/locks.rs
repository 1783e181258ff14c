//! Locks that package tools hold on files.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::machine::Machine;

/// What apt and dpkg lock, and rpm.
const LOCKS: [&str; 6] = [
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
];

/// Where yum and dnf write the number of the process that is at work.
const PID_FILES: [&str; 4] = [
    "/run/yum.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/var/lib/dnf/rpmdb_lock.pid",
];

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// What it is called, such as `apt-get`; empty if it has just ended.
    pub name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, self.name.as_str()) {
            (pid, _) if pid <= 0 => f.write_str("a process outside of this container"),
            (pid, "") => write!(f, "process {pid}"),
            (pid, name) => write!(f, "{name} (process {pid})"),
        }
    }
}

/// Who holds a lock of one of the package tools, and which.
///
/// # Errors
/// We are not root, so a lock can't be looked at.
pub fn of_package_tools(machine: &Machine) -> Result<Option<(&'static str, Holder)>> {
    let written = PID_FILES.into_iter().find_map(|file| Some((file, writer(&machine.path(file))?)));
    if written.is_some() {
        return Ok(written);
    }
    for file in LOCKS {
        let holder = holder(&machine.path(file)).with_context(|| file.to_owned())?;
        if let Some(holder) = holder {
            return Ok(Some((file, holder)));
        }
    }
    Ok(None)
}

/// Who has locked a file with fcntl(2), as apt, dpkg and rpm do; `None` if it is
/// free or does not exist.
fn holder(file: &Path) -> std::io::Result<Option<Holder>> {
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
fn writer(file: &Path) -> Option<Holder> {
    let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let name = name(pid);
    (!name.is_empty()).then_some(Holder { pid, name })
}

fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn put(machine: &Machine, path: &str, text: &str) -> PathBuf {
        let file = machine.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_lock_that_somebody_holds_is_seen() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        assert_eq!(of_package_tools(&machine).unwrap(), None);
        let path = put(&machine, "/var/lib/dpkg/lock-frontend", "");
        assert_eq!(of_package_tools(&machine).unwrap(), None);

        // A lock of the open file, not of this process: as if another held it.
        let opened = fs::File::options().write(true).open(path).unwrap();
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&opened, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        let (file, _) = of_package_tools(&machine).unwrap().unwrap();
        assert_eq!(file, "/var/lib/dpkg/lock-frontend");
        drop(opened);
        assert_eq!(of_package_tools(&machine).unwrap(), None);
    }

    #[test]
    fn yum_writes_who_it_is() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        put(&machine, "/run/yum.pid", &format!("{}\n", std::process::id()));
        let (_, found) = of_package_tools(&machine).unwrap().unwrap();
        assert_eq!(found.pid as u32, std::process::id());
        // One that has ended holds nothing: no process has a number like this.
        put(&machine, "/run/yum.pid", "4999999\n");
        assert_eq!(of_package_tools(&machine).unwrap(), None);
    }
}

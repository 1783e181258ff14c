//! The kernel: its version, and what it can do.

use std::io;

use anyhow::{Context as _, Result};

use super::machine::Machine;
use cli::untrusted_file;

/// What a kernel is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` tells it: `3.10.0-1160.el7.x86_64`.
    pub release: String,
    /// Whether it has the overlay file system, built in, loaded or as a module;
    /// `None` if that is unknown, since its modules are not here (a container).
    pub has_overlay: Option<bool>,
    /// Whether users may make namespaces of their own.
    pub has_user_namespaces: bool,
}

impl Kernel {
    /// The machine's kernel; `None` for a directory tree, which has none.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn of(machine: &Machine) -> Result<Option<Self>> {
        let read = |path: &str| untrusted_file::read_text(machine.path(path));
        let release = match read("/proc/sys/kernel/osrelease") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !machine.is_this_one() => {
                return Ok(None);
            }
            result => result.context("cannot read /proc/sys/kernel/osrelease")?.trim().to_owned(),
        };
        let loaded = read("/proc/filesystems").context("cannot read /proc/filesystems")?;
        let has_overlay = if names_overlay(&loaded) {
            Some(true)
        } else {
            read(&format!("/lib/modules/{release}/modules.dep"))
                .ok()
                .map(|modules| modules.contains("/overlay.ko"))
        };
        let namespaces = read("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        let has_user_namespaces = namespaces.trim().parse().is_ok_and(|most: u64| most > 0);
        Ok(Some(Self { release, has_overlay, has_user_namespaces }))
    }

    /// Its version's first two numbers; zeros if it has none.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// Lines of an optional `nodev` and a name.
fn names_overlay(filesystems: &str) -> bool {
    filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay"))
}

//! SELinux: whether it is on, and the labels of files we put in place.

use std::path::Path;
use std::process::Command;

use super::command::{CommandError, CommandExt as _};
use super::machine::Machine;

/// Whether the kernel of this machine has SELinux switched on. A directory tree
/// gets its labels where it is booted.
pub fn is_on(machine: &Machine) -> bool {
    machine.is_this_one() && Path::new("/sys/fs/selinux/enforce").exists()
}

/// Gives a file the label that the policy has for its path.
///
/// # Errors
/// restorecon is missing or fails.
pub fn restore_label(path: &Path) -> Result<(), CommandError> {
    Command::new("restorecon").arg(path).run()
}

//! SELinux: whether it is on, and the labels of files we put in place.

use std::path::Path;
use std::process::Command;

use super::command::{CommandError, CommandExt as _};
use super::machine::Machine;
use cli::untrusted_file;

/// Whether the kernel of this machine has SELinux switched on. A directory tree
/// gets its labels where it is booted.
pub fn is_on(machine: &Machine) -> bool {
    machine.is_this_one() && Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether it forbids what its policy does not allow, or only logs that; `None`
/// where it is off.
pub fn is_enforcing(machine: &Machine) -> Option<bool> {
    let text = untrusted_file::read_text(machine.path("/sys/fs/selinux/enforce")).ok()?;
    Some(text.trim() == "1")
}

/// Those of these paths whose label is not the one that the policy has for them,
/// each with what matchpathcon says of it.
///
/// # Errors
/// matchpathcon is missing.
pub fn wrong_labels(paths: &[&str]) -> Result<Vec<(String, String)>, CommandError> {
    let output = Command::new("matchpathcon").arg("-V").args(paths).env("LC_ALL", "C").probe()?;
    Ok(parse_verified(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines like `/usr/bin/x verified.` or `/usr/bin/x has context A, should be B`.
fn parse_verified(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once(" has context "))
        .map(|(path, rest)| (path.to_owned(), rest.to_owned()))
        .collect()
}

/// Gives a file the label that the policy has for its path.
///
/// # Errors
/// restorecon is missing or fails.
pub(crate) fn restore_label(path: &Path) -> Result<(), CommandError> {
    Command::new("restorecon").arg(path).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_as_matchpathcon_prints_them() {
        let text = "\
/usr/bin/scalr-agent verified.
/etc/scalr-agent has context unconfined_u:object_r:user_tmp_t:s0, should be system_u:object_r:etc_t:s0
";
        let wrong = parse_verified(text);
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].0, "/etc/scalr-agent");
        assert!(wrong[0].1.contains("should be system_u:object_r:etc_t:s0"));
    }
}

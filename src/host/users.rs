//! Users and groups.

use std::io;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::command::CommandExt as _;
use super::machine::Machine;
use cli::untrusted_file;

/// Whether we are root.
pub fn are_root() -> bool {
    users::get_effective_uid() == 0
}

/// The user and the group that we are.
pub(crate) fn our_ids() -> (u32, u32) {
    (users::get_effective_uid(), users::get_effective_gid())
}

/// The number of a group of the machine; `None` if it has no such group.
///
/// # Errors
/// A tree's `/etc/group` can't be read.
pub fn group_id(machine: &Machine, name: &str) -> Result<Option<u32>> {
    if machine.is_this_one() {
        return Ok(users::get_group_by_name(name).map(|group| group.gid()));
    }
    listed_id(machine, "/etc/group", name)
}

/// The number of a user of the machine; `None` if it has no such user.
///
/// # Errors
/// A tree's `/etc/passwd` can't be read.
pub fn user_id(machine: &Machine, name: &str) -> Result<Option<u32>> {
    if machine.is_this_one() {
        return Ok(users::get_user_by_name(name).map(|user| user.uid()));
    }
    listed_id(machine, "/etc/passwd", name)
}

/// The third field of the line of `name`.
fn listed_id(machine: &Machine, file: &str, name: &str) -> Result<Option<u32>> {
    let text = match untrusted_file::read_text(machine.path(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("cannot read {file}"))?,
    };
    let id = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    };
    Ok(text.lines().find_map(id))
}

/// Whether there is such a group; no group at all always is.
pub fn group_exists(machine: &Machine, name: Option<&str>) -> bool {
    name.is_none_or(|name| group_id(machine, name).is_ok_and(|id| id.is_some()))
}

/// The command that puts a user of this machine into a group.
pub fn join(user: &str, group: &str) -> Command {
    let mut command = Command::new("usermod");
    command.args(["--append", "--groups", group, user]);
    command
}

/// The command that takes a user of this machine out of a group.
pub fn leave(user: &str, group: &str) -> Command {
    let mut command = Command::new("gpasswd");
    command.args(["--delete", user, group]);
    command
}

/// Removes users of this machine and then groups, where they exist, and no other group.
///
/// # Errors
/// usermod, userdel or groupdel fails.
pub fn remove(users: &[&str], groups: &[&str]) -> Result<()> {
    for user in users.iter().filter(|user| users::get_user_by_name(user).is_some()) {
        if !groups.contains(user) {
            // userdel takes a user's own group of the same name along.
            Command::new("usermod").args(["--gid", "0", user]).run()?;
        }
        Command::new("userdel").arg(user).run()?;
    }
    // Not from the cache of this process: userdel takes a user's own group along.
    let exists = |group: &&&str| {
        Command::new("getent")
            .args(["group", group])
            .probe()
            .is_ok_and(|output| output.status.success())
    };
    for group in groups.iter().filter(exists) {
        Command::new("groupdel").arg(group).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_trees_groups_are_its_own() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        assert_eq!(group_id(&machine, "scalr-agent").unwrap(), None);
        fs::create_dir(machine.path("/etc")).unwrap();
        fs::write(machine.path("/etc/group"), "root:x:0:\nscalr-agent:x:987:\n").unwrap();
        assert_eq!(group_id(&machine, "scalr-agent").unwrap(), Some(987));
    }
}

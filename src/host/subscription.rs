//! subscription-manager: the repositories that a Red Hat subscription has.

use std::process::Command;

use super::command::{CommandError, CommandExt as _};

/// The ids of the repositories of this host's subscription that are disabled.
///
/// # Errors
/// subscription-manager is missing, or this system is not registered.
pub fn disabled_repositories() -> Result<Vec<String>, CommandError> {
    let list =
        Command::new("subscription-manager").args(["repos", "--list"]).env("LC_ALL", "C").read()?;
    Ok(parse(&list))
}

/// Paragraphs with `Repo ID:   rhel-7-server-extras-rpms` and `Enabled:   0`.
pub fn parse(text: &str) -> Vec<String> {
    let mut disabled = Vec::new();
    let mut last = "";
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match (name.trim(), value.trim()) {
            ("Repo ID", id) => last = id,
            ("Enabled", "0") => disabled.push(last.to_owned()),
            _ => {}
        }
    }
    disabled
}

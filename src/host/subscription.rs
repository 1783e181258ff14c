//! subscription-manager: the repositories that a Red Hat subscription has.

use std::process::Command;

use super::command::{CommandError, CommandExt as _};
use super::yum::Repository;

/// All repositories of this host's subscription, enabled or not.
///
/// # Errors
/// subscription-manager is missing, or this system is not registered.
pub fn repositories() -> Result<Vec<Repository>, CommandError> {
    let list =
        Command::new("subscription-manager").args(["repos", "--list"]).env("LC_ALL", "C").read()?;
    Ok(parse(&list))
}

/// Paragraphs with `Repo ID:   rhel-7-server-extras-rpms` and `Enabled:   0`.
pub fn parse(text: &str) -> Vec<Repository> {
    let mut found: Vec<Repository> = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match (name.trim(), value.trim()) {
            ("Repo ID", id) => found.push(Repository { id: id.to_owned(), enabled: false }),
            ("Enabled", enabled) => {
                if let Some(last) = found.last_mut() {
                    last.enabled = enabled == "1";
                }
            }
            _ => {}
        }
    }
    found
}

//! apt: the commands that fetch lists, install and remove.

use std::fs;
use std::process::Command;

use super::command::CommandError;

pub(crate) mod hold;
mod policy;
pub(crate) mod proxy;

/// Where apt keeps the lists that it has fetched.
const LISTS: &str = "/var/lib/apt/lists";

/// Fetches the lists of one source alone: somebody else's broken one is not our
/// affair.
pub(crate) fn update_command(source: &str) -> Command {
    let list = format!("Dir::Etc::sourcelist={source}");
    let alone = ["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Get::List-Cleanup=0"];
    // Without this, a repository that can't be reached or verified is a warning.
    let strict = ["-o", "APT::Update::Error-Mode=any"];
    command(&[&["update", "-o", &list][..], &alone, &strict].concat())
}

/// Fetches the lists of all sources.
pub(crate) fn update_all_command() -> Command {
    command(&["update"])
}

/// Installs a package, or a package file (whose path then has a `/` in it).
/// Settings that somebody has edited stay, and the files that were downloaded go.
pub fn install_command(package: &str) -> Command {
    let no_copy = "APT::Keep-Downloaded-Packages=0";
    command(&["-o", no_copy, "-o", "Dpkg::Options::=--force-confold", "install", package])
}

/// Removes packages; with `purge` their settings as well.
pub(crate) fn remove_command(packages: &[&str], purge: bool) -> Command {
    command(&[&[if purge { "purge" } else { "remove" }], packages].concat())
}

/// Deletes the lists that were fetched from below `uri`, such as
/// `https://pools.example.com/packages/apt`.
pub fn forget_lists_command(uri: &str) -> Command {
    let mut command = Command::new("find");
    // Below it, what could not be verified.
    command.args([LISTS, "-maxdepth", "2", "-type", "f", "-name"]);
    command.arg(format!("{}_*", list_name(uri))).arg("-delete");
    command
}

/// Whether apt has fetched lists from below `uri`.
pub fn has_lists(uri: &str) -> bool {
    let beginning = format!("{}_", list_name(uri));
    let is_list = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(&beginning))
    };
    fs::read_dir(LISTS).is_ok_and(|mut entries| entries.any(is_list))
}

/// How apt begins the names of such lists: the scheme goes, some characters are
/// quoted, and a slash becomes `_` (its `URItoFileName`).
fn list_name(uri: &str) -> String {
    let place = uri.split_once("://").map_or(uri, |(_, place)| place);
    let quoted = |c: char| match c {
        '/' => "_".to_owned(),
        c if r#"\|{}[]<>"^~_=!@#$%&*"#.contains(c) => format!("%{:02x}", u32::from(c)),
        c => c.to_string(),
    };
    place.trim_end_matches('/').chars().map(quoted).collect()
}

/// `E: Could not get lock /var/lib/dpkg/lock-frontend …`. apt waits for dpkg's
/// lock only from 1.9.11 on, and never for that of its lists.
pub(crate) fn is_locked(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { stderr, .. } if stderr.contains("Could not get lock"))
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("--yes")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_named_by_their_place() {
        let named = [
            ("https://pools.example.com:8443/packages/apt", "pools.example.com:8443_packages_apt"),
            ("file:///media/my_stick/repository/apt/", "_media_my%5fstick_repository_apt"),
            ("file:///a%20stick/apt", "_a%2520stick_apt"),
        ];
        for (uri, name) in named {
            assert_eq!(list_name(uri), name);
        }
    }
}

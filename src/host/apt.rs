//! apt: installing and removing packages.

use std::process::Command;

use anyhow::Result;

use super::command::CommandExt as _;

/// Fetches the lists of one source alone: somebody else's broken one is not our
/// affair.
///
/// # Errors
/// It fails.
pub fn update(source: &str) -> Result<()> {
    let list = format!("Dir::Etc::sourcelist={source}");
    let alone = ["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Get::List-Cleanup=0"];
    call(&[&["update", "-o", &list][..], &alone[..]].concat())
}

/// Fetches the lists of all sources.
///
/// # Errors
/// It fails.
pub fn update_all() -> Result<()> {
    call(&["update"])
}

/// Installs a package, or a package file (whose path then has a `/` in it).
///
/// # Errors
/// It fails.
pub fn install(package: &str) -> Result<()> {
    call(&["install", package])
}

/// Removes a package; with `purge` its settings as well.
///
/// # Errors
/// It fails.
pub fn remove(package: &str, purge: bool) -> Result<()> {
    call(&[if purge { "purge" } else { "remove" }, package])
}

fn call(arguments: &[&str]) -> Result<()> {
    Ok(Command::new("apt-get")
        .arg("--yes")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()?)
}

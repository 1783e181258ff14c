//! apt: installing and removing packages.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::command::CommandError;
use super::patience;

/// Fetches the lists of one source alone: somebody else's broken one is not our
/// affair.
///
/// # Errors
/// It fails, or another program has held the lists' lock for all of `patience`.
pub fn update(source: &str, patience: Duration) -> Result<()> {
    let list = format!("Dir::Etc::sourcelist={source}");
    let alone = ["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Get::List-Cleanup=0"];
    // Without this, a repository that can't be reached or verified is a warning.
    let strict = ["-o", "APT::Update::Error-Mode=any"];
    call(&[&["update", "-o", &list][..], &alone, &strict].concat(), patience)
}

/// Fetches the lists of all sources.
///
/// # Errors
/// As [`update`].
pub fn update_all(patience: Duration) -> Result<()> {
    call(&["update"], patience)
}

/// The command that installs a package, or a package file (whose path then has a
/// `/` in it). Settings that somebody has edited stay.
pub fn install_command(package: &str) -> Command {
    command(&["-o", "Dpkg::Options::=--force-confold", "install", package])
}

/// Runs [`install_command`].
///
/// # Errors
/// As [`update`].
pub fn install(package: &str, patience: Duration) -> Result<()> {
    patient(&mut install_command(package), patience)
}

/// Removes packages; with `purge` their settings as well.
///
/// # Errors
/// As [`update`].
pub fn remove(packages: &[&str], purge: bool, patience: Duration) -> Result<()> {
    call(&[&[if purge { "purge" } else { "remove" }], packages].concat(), patience)
}

fn call(arguments: &[&str], patience: Duration) -> Result<()> {
    patient(&mut command(arguments), patience)
}

fn patient(command: &mut Command, limit: Duration) -> Result<()> {
    Ok(patience::run(command, limit, is_locked)?)
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

/// `E: Could not get lock /var/lib/dpkg/lock-frontend …`. apt waits for dpkg's
/// lock only from 1.9.11 on, and never for that of its lists.
fn is_locked(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { stderr, .. } if stderr.contains("Could not get lock"))
}

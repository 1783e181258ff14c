//! Docker's command line client.

use std::path::Path;
use std::process::Command;

use super::command::{CommandError, CommandExt as _, within};

/// How long an engine may take to tell something, in seconds.
const PATIENCE: u32 = 15;

/// The version of the engine that listens on `socket`, for example `26.1.4`.
///
/// # Errors
/// The client is missing, or the engine does not answer.
pub fn engine_version(client: &Path, socket: &str) -> Result<String, CommandError> {
    Ok(ask(client, socket, &["version", "--format", "{{.Server.Version}}"])?.trim().to_owned())
}

/// The output of a command that changes nothing, `info` for example.
///
/// # Errors
/// The client is missing, or the engine does not answer in time.
pub fn ask(client: &Path, socket: &str, arguments: &[&str]) -> Result<String, CommandError> {
    within(PATIENCE, client).args(["--host", socket]).args(arguments).read()
}

/// A client's version, for example `Docker version 26.1.4, build …`;
/// no engine is asked.
///
/// # Errors
/// It can't be run.
pub fn client_version(client: &Path) -> Result<String, CommandError> {
    Ok(Command::new(client).arg("--version").read()?.trim().to_owned())
}

/// Removes containers of the engine that listens on `socket`, running or not,
/// with their volumes: all, or those that have `label`.
///
/// # Errors
/// The client is missing, or the engine does not answer.
pub fn remove_containers(
    client: &Path,
    socket: &str,
    label: Option<&str>,
) -> Result<(), CommandError> {
    let filter = label.map(|label| format!("label={label}"));
    let mut list = vec!["ps", "--all", "--quiet", "--no-trunc"];
    list.extend(filter.iter().flat_map(|filter| ["--filter", filter]));
    remove(client, socket, &list, &["rm", "--force", "--volumes"])
}

/// Removes networks of the engine that listens on `socket`, other than its own:
/// all, or those whose name begins with `prefix`.
///
/// # Errors
/// The client is missing, the engine does not answer, or one is in use.
pub fn remove_networks(
    client: &Path,
    socket: &str,
    prefix: Option<&str>,
) -> Result<(), CommandError> {
    let filter = prefix.map(|prefix| format!("name=^{prefix}"));
    let mut list = vec!["network", "ls", "--quiet", "--no-trunc", "--filter", "type=custom"];
    list.extend(filter.iter().flat_map(|filter| ["--filter", filter]));
    remove(client, socket, &list, &["network", "rm"])
}

/// Gives what `list` lists to `remove`.
fn remove(client: &Path, socket: &str, list: &[&str], remove: &[&str]) -> Result<(), CommandError> {
    let listed = ask(client, socket, list)?;
    let ids: Vec<&str> = listed.split_whitespace().collect();
    if ids.is_empty() {
        return Ok(());
    }
    Command::new(client).args(["--host", socket]).args(remove).args(ids).run()
}

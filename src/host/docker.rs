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

/// What a command that only looks says, `info` for example.
///
/// # Errors
/// The client is missing, or the engine does not answer in time.
pub fn ask(client: &Path, socket: &str, arguments: &[&str]) -> Result<String, CommandError> {
    within(PATIENCE, client).args(["--host", socket]).args(arguments).read()
}

/// Removes every container of the engine that listens on `socket`, running or
/// not.
///
/// # Errors
/// The client is missing, or the engine does not answer.
pub fn remove_all_containers(client: &Path, socket: &str) -> Result<(), CommandError> {
    let all = Command::new(client)
        .args(["--host", socket, "ps", "--all", "--quiet", "--no-trunc"])
        .read()?;
    let ids: Vec<&str> = all.split_whitespace().collect();
    if ids.is_empty() {
        return Ok(());
    }
    Command::new(client).args(["--host", socket, "rm", "--force", "--volumes"]).args(ids).run()
}

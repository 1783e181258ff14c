//! Docker's command line client.

use std::path::Path;
use std::process::Command;

use super::command::{CommandError, CommandExt as _};

/// The version of the engine that listens on `socket`, for example `26.1.4`.
///
/// # Errors
/// The client is missing, or the engine does not answer.
pub fn engine_version(client: &Path, socket: &str) -> Result<String, CommandError> {
    let text = Command::new(client)
        .args(["--host", socket, "version", "--format", "{{.Server.Version}}"])
        .read()?;
    Ok(text.trim().to_owned())
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

//! rpm: which packages are installed.

use std::process::Command;

use anyhow::{Result, bail};

use super::command::CommandExt as _;

/// The version of an installed package, for example `0.1.0-1`; `None` if it is
/// not installed.
///
/// # Errors
/// rpm is missing, or its database can't be read.
pub fn installed(package: &str) -> Result<Option<String>> {
    let format = "%{VERSION}-%{RELEASE}\n";
    let output = Command::new("rpm")
        .args(["--query", "--queryformat", format, package])
        .env("LC_ALL", "C")
        .probe()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last() {
        Some(version) if output.status.success() => Ok(Some(version.to_owned())),
        Some(said) if said.ends_with("is not installed") => Ok(None),
        _ => bail!("rpm can't tell: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

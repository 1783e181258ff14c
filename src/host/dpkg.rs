//! dpkg: which packages are installed.

use std::process::Command;

use anyhow::Result;

use super::command::CommandExt as _;

/// The version of an installed package, for example `0.1.0-1`; `None` if it is
/// not installed, or only its settings are left.
///
/// # Errors
/// dpkg-query is missing.
pub fn installed(package: &str) -> Result<Option<String>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Version}\n", package])
        .probe()?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Finishes what an interrupted dpkg has left half configured.
///
/// # Errors
/// It fails.
pub fn configure_pending() -> Result<()> {
    Ok(Command::new("dpkg")
        .args(["--force-confold", "--configure", "--pending"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()?)
}

/// `ii  0.1.0-1`, `rc  0.1.0-1`.
fn parse(text: &str) -> Option<String> {
    text.trim().strip_prefix("ii").map(|version| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_left_is_not_installed() {
        assert_eq!(parse("ii  0.1.0-1\n").as_deref(), Some("0.1.0-1"));
        assert_eq!(parse("rc  0.1.0-1\n"), None);
        assert_eq!(parse(""), None);
    }
}

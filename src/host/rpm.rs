//! rpm: which packages are installed.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, bail};

pub(crate) use self::interrupted::{is_incomplete, remove_temporary_files};
use super::command::CommandExt as _;

mod interrupted;

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

/// The versions of those of these packages that are installed, by their names.
///
/// # Errors
/// rpm is missing, or its database can't be read.
pub fn installed_of(packages: &[&str]) -> Result<BTreeMap<String, String>> {
    let output = Command::new("rpm")
        .args(["--query", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n"])
        .args(packages)
        .env("LC_ALL", "C")
        .probe()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // With a database that it can't read, it also says that nothing is installed.
    if let Some(error) = stderr.lines().find(|line| line.starts_with("error:")) {
        bail!("{error}");
    }
    Ok(parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

/// All installed versions of a package, oldest first, for example
/// `scalr-agent-0.1.0-1.x86_64`: more than one after an interrupted upgrade.
///
/// # Errors
/// rpm is missing, or its database can't be read.
pub(crate) fn installed_versions(package: &str) -> Result<Vec<String>> {
    let format = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\n";
    let arguments = ["--query", "--all", "--queryformat", format, package];
    let text = Command::new("rpm").args(arguments).env("LC_ALL", "C").read()?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Removes one version of a package. The files that another version has, too, stay.
pub(crate) fn erase_command(version: &str) -> Command {
    let mut command = Command::new("rpm");
    command.args(["--erase", version]);
    command
}

/// Takes a key, such as `gpg-pubkey-0d4b6ab1-692c3f00`, from those that packages
/// are verified by.
pub fn forget_key_command(key: &str) -> Command {
    let mut command = Command::new("rpm");
    command.args(["--erase", "--allmatches", key]);
    command
}

/// Adds the key in `file` to those that packages are verified by.
pub fn import_key_command(file: &str) -> Command {
    let mut command = Command::new("rpm");
    command.args(["--import", file]);
    command
}

/// Lines of a name and a version, or `package NAME is not installed`.
pub fn parse_installed(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.ends_with("is not installed"))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_installed_and_some_are_not() {
        let found = parse_installed(
            "container-selinux 2.119.2-1.911c772.el7_8\npackage docker-ce is not installed\n",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found["container-selinux"], "2.119.2-1.911c772.el7_8");
    }
}

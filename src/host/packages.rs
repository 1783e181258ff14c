//! The packages of this host, whichever tool has them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::command::CommandExt as _;
use super::installation::Installation;
use super::os::Family;
use super::package_tool::PackageTool;
use super::{dpkg, rpm};
use cli::eprintln;

/// How long the undoing of an installation waits for the package tool's lock.
const PATIENCE: Duration = Duration::from_secs(120);

/// All packages that were installed at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    family: Family,
    /// By name.
    versions: BTreeMap<String, String>,
    /// Those that rpm verifies packages by: it lists them as packages, too.
    keys: BTreeSet<String>,
    /// Whether the settings of what is removed again stay.
    keeps_settings: bool,
}

impl Packages {
    /// Those that are installed now.
    ///
    /// # Errors
    /// dpkg-query or rpm fails.
    pub fn installed(family: Family) -> Result<Self> {
        let text = match family {
            Family::Debian => Command::new("dpkg-query")
                .args(["--show", "--showformat=${db:Status-Status} ${binary:Package} ${Version}\n"])
                .read()?,
            _ => Command::new("rpm")
                .args(["--query", "--all"])
                .args(["--queryformat", "installed %{NAME}.%{ARCH} %{VERSION}-%{RELEASE}\n"])
                .read()?,
        };
        Ok(Self::parse(family, &text))
    }

    fn parse(family: Family, text: &str) -> Self {
        let mut packages = Self {
            family,
            versions: BTreeMap::new(),
            keys: BTreeSet::new(),
            keeps_settings: false,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(status), Some(name)) = (words.next(), words.next()) else { continue };
            let version = words.next().unwrap_or_default();
            // Also those that are half there, but not those with only settings left.
            if ["not-installed", "config-files"].contains(&status) {
                continue;
            }
            if name.starts_with("gpg-pubkey.") {
                packages.keys.insert(format!("gpg-pubkey-{version}"));
            } else {
                packages.versions.insert(name.to_owned(), version.to_owned());
            }
        }
        packages
    }

    /// Those that are installed by now.
    ///
    /// # Errors
    /// As [`Self::installed`].
    pub fn now(&self) -> Result<Self> {
        Self::installed(self.family)
    }

    /// The same; [`Self::restore`] then leaves settings where they are: they were
    /// there before the packages.
    #[must_use]
    pub fn keeping_settings(self) -> Self {
        Self { keeps_settings: true, ..self }
    }

    /// Whether the package is among them, in whatever version.
    pub(crate) fn has(&self, package: &str) -> bool {
        // rpm's are named with their architecture.
        self.versions.keys().any(|name| name.split('.').next() == Some(package))
    }

    /// The packages that are here and were not at the time of `before`.
    pub fn added_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let is_new = |name: &&String| !before.versions.contains_key(*name);
        self.versions.keys().filter(is_new).map(String::as_str)
    }

    /// Whether the packages, of whatever version, are still the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.versions == other.versions
    }

    /// The keys that rpm has here and had not at the time of `before`.
    pub(crate) fn keys_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a String> {
        self.keys.difference(&before.keys)
    }

    /// Finishes `installation` where it was interrupted, and removes what is installed now
    /// and was not then, with its settings.
    ///
    /// # Errors
    /// The package tool fails.
    pub(crate) fn restore(&self, installation: &Installation) -> Result<()> {
        // What was interrupted half-way can't be removed before it is whole.
        installation.finish(self.family, self.has(installation.package()))?;
        let now = self.now()?;
        let new: Vec<&str> = now.added_since(self).collect();
        if !new.is_empty() {
            eprintln!("Removing {} …", new.join(", "));
            PackageTool::of(self.family, PATIENCE)?.remove(&new, !self.keeps_settings)?;
        }
        if !self.keeps_settings && !self.has(installation.package()) {
            installation.purge(self.family)?;
        }
        for key in now.keys_since(self) {
            rpm::forget_key_command(key).run()?;
        }
        Ok(())
    }
}

/// What removes packages, unless another package needs one of them.
pub fn removal_of_unneeded(family: Family, names: &[String]) -> Command {
    let (program, option) = match family {
        Family::Debian => ("dpkg", "--remove"),
        _ => ("rpm", "--erase"),
    };
    let mut command = Command::new(program);
    command.arg(option).args(names);
    command
}

/// The version of an installed package, for example `0.1.0-1`; `None` if it is
/// not installed.
///
/// # Errors
/// dpkg-query or rpm fails.
pub fn version(family: Family, package: &str) -> Result<Option<String>> {
    match family {
        Family::Debian => dpkg::installed(package),
        _ => rpm::installed(package),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_installed_is_there_and_left_settings_are_not() {
        let text = "installed apt 1.6.14\nhalf-configured scalr-agent 0.1.0-1\n\
                    config-files old 1.0\nnot-installed never \n";
        let packages = Packages::parse(Family::Debian, text);
        assert_eq!(packages.versions.keys().collect::<Vec<_>>(), ["apt", "scalr-agent"]);
    }

    #[test]
    fn keys_are_apart_from_packages() {
        let rpm = |text: &str| Packages::parse(Family::RedHat, text);
        let before = rpm("installed bash.x86_64 4.2-1\n\
                          installed gpg-pubkey.(none) f4a80eb5-53a7ff4b\n");
        let after = rpm("installed bash.x86_64 4.2-1\n\
                         installed gpg-pubkey.(none) f4a80eb5-53a7ff4b\n\
                         installed gpg-pubkey.(none) 0d4b6ab1-692c3f00\n");
        assert!(after.is_same(&before));
        assert_eq!(after.keys_since(&before).collect::<Vec<_>>(), ["gpg-pubkey-0d4b6ab1-692c3f00"]);
        assert!(!rpm("installed bash.x86_64 4.2-2\n").is_same(&before));
    }
}

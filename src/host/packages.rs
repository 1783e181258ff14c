//! The packages of this host, whichever tool has them.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::command::CommandExt as _;
use super::os::Family;
use super::yum::Yum;
use super::{apt, dpkg, rpm};

/// How long the undoing of an installation waits for the package tool's lock.
const PATIENCE: Duration = Duration::from_secs(120);

/// The names of all packages that were installed at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    family: Family,
    names: BTreeSet<String>,
}

impl Packages {
    /// Those that are installed now.
    ///
    /// # Errors
    /// dpkg-query or rpm fails.
    pub fn installed(family: Family) -> Result<Self> {
        let text = match family {
            Family::Debian => Command::new("dpkg-query")
                .args(["--show", "--showformat=${db:Status-Status} ${binary:Package}\n"])
                .read()?,
            _ => Command::new("rpm")
                .args(["--query", "--all", "--queryformat", "installed %{NAME}.%{ARCH}\n"])
                .read()?,
        };
        // Also those that are half there, but not those with only settings left.
        let gone = ["not-installed ", "config-files "];
        let names = text
            .lines()
            .filter(|line| !gone.iter().any(|status| line.starts_with(status)))
            .filter_map(|line| line.split_once(' '))
            // rpm lists keys, too.
            .filter(|(_, name)| !name.starts_with("gpg-pubkey"))
            .map(|(_, name)| name.to_owned())
            .collect();
        Ok(Self { family, names })
    }

    /// Removes what is installed now and was not then, with its settings.
    ///
    /// # Errors
    /// The package tool fails.
    pub fn restore(&self) -> Result<()> {
        let now = Self::installed(self.family)?;
        let new: Vec<&str> = now.names.difference(&self.names).map(String::as_str).collect();
        if new.is_empty() {
            return Ok(());
        }
        eprintln!("Removing {} …", new.join(", "));
        match self.family {
            Family::Debian => {
                // What was interrupted half-way can't be removed before it is whole.
                if let Err(error) = dpkg::configure_pending() {
                    eprintln!("{error}");
                }
                apt::remove(&new, true, PATIENCE)
            }
            _ => Yum::find()?.remove(&new, PATIENCE),
        }
    }
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

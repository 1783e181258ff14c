//! The operating system, as os-release tells it.

use anyhow::{Context as _, Result};
use os_release::OsRelease;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use cli::untrusted_file;

/// The largest os-release that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// An operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Os {
    /// `centos`, `ubuntu`, …
    pub id: String,
    /// As it stands there: `7`, `7.9`, `18.04`; empty for a rolling one.
    pub version: String,
    /// For people: `CentOS Linux 7 (Core)`.
    pub name: String,
    /// Which packages it has.
    pub family: Family,
    /// Whether the family was only guessed, from what it says it is like.
    pub guessed: bool,
}

/// Which packages an operating system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// deb, by apt.
    Debian,
    /// rpm, by yum or dnf.
    RedHat,
    /// Neither.
    Other,
}

impl Os {
    /// The machine's operating system.
    ///
    /// # Errors
    /// There is no os-release.
    pub fn of(machine: &Machine) -> Result<Self> {
        let found: Option<OsRelease> = ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .map(|path| machine.path(path))
            // The crate's own reader waits for a pipe, and never ends with a folder.
            .find_map(|file| untrusted_file::read_linked(&file, LARGEST).ok())
            .map(|text| String::from_utf8_lossy(&text).lines().map(str::to_owned).collect());
        Ok(Self::from(found.context("found no /etc/os-release, so this system is unknown")?))
    }

    /// Whether it is Enterprise Linux 7 or a relative of that age, with systemd 219.
    pub fn is_el7(&self) -> bool {
        let major = if self.id == "amzn" { 2 } else { 7 };
        self.family == Family::RedHat && self.major() == major
    }

    /// The first number of the version; 0 if it has no number. Amazon Linux 1 called
    /// itself by year and month (`2018.03`).
    pub fn major(&self) -> u32 {
        if self.id == "amzn" && self.version.contains('.') {
            return 1;
        }
        self.version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl From<OsRelease> for Os {
    fn from(release: OsRelease) -> Self {
        let known = family(&release.id);
        let like = || release.id_like.split_whitespace().find_map(family);
        Self {
            guessed: known.is_none(),
            family: known.or_else(like).unwrap_or(Family::Other),
            name: if release.pretty_name.is_empty() {
                format!("{} {}", release.name, release.version_id)
            } else {
                release.pretty_name
            },
            id: release.id,
            version: release.version_id,
        }
    }
}

fn family(id: &str) -> Option<Family> {
    match id {
        "debian" | "ubuntu" => Some(Family::Debian),
        "rhel" | "centos" | "fedora" | "rocky" | "almalinux" | "ol" | "scientific" | "amzn" => {
            Some(Family::RedHat)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(text: &str) -> Os {
        Os::from(text.lines().map(str::to_owned).collect::<OsRelease>())
    }

    #[test]
    fn centos_7_has_no_minor_version() {
        let os = os("NAME=\"CentOS Linux\"\nVERSION=\"7 (Core)\"\nID=\"centos\"\n\
                     ID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"");
        assert_eq!((os.id.as_str(), os.major(), os.family), ("centos", 7, Family::RedHat));
        assert_eq!(os.name, "CentOS Linux 7 (Core)");
    }

    #[test]
    fn relatives_of_enterprise_linux_7_are_known() {
        for (text, is_el7) in [
            ("ID=centos\nVERSION_ID=7", true),
            ("ID=rhel\nVERSION_ID=7.9", true),
            ("ID=ol\nVERSION_ID=7.9", true),
            ("ID=scientific\nVERSION_ID=7.9", true),
            ("ID=amzn\nVERSION_ID=2", true),
            ("ID=cloudlinux\nID_LIKE=\"rhel fedora centos\"\nVERSION_ID=7.9", true),
            ("ID=amzn\nVERSION_ID=2023", false),
            ("ID=rocky\nVERSION_ID=8.10", false),
            ("ID=fedora\nVERSION_ID=43", false),
            ("ID=debian\nVERSION_ID=7", false),
        ] {
            assert_eq!(os(text).is_el7(), is_el7, "{text}");
        }
    }

    #[test]
    fn an_unknown_system_is_like_another() {
        let mint = os("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"21.1\"");
        assert_eq!((mint.family, mint.guessed, mint.major()), (Family::Debian, true, 21));
        let arch = os("ID=arch\nNAME=\"Arch Linux\"");
        assert_eq!((arch.family, arch.major()), (Family::Other, 0));
    }
}

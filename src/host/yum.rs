//! yum and dnf: what repositories there are and what they offer.

use std::process::Command;

use anyhow::{Result, bail};

use super::command::{CommandError, CommandExt as _};

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yum {
    /// yum 3, or a yum that is a dnf without that name.
    Yum,
    /// dnf 4.
    Dnf,
    /// dnf 5, whose options differ.
    Dnf5,
}

/// A repository that is set up here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Without what yum adds to it.
    pub id: String,
    /// Whether packages are taken from it.
    pub enabled: bool,
}

/// A package in the enabled repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// This one has it.
    By(String),
    /// None has it.
    Nowhere,
    /// They can't be read, for this reason.
    Unreadable(String),
}

impl Yum {
    /// This host's.
    ///
    /// # Errors
    /// It has none.
    pub fn find() -> Result<Self> {
        if let Ok(dnf) = which::which("dnf") {
            let real = dnf.canonicalize().unwrap_or(dnf);
            return Ok(if real.ends_with("dnf5") { Self::Dnf5 } else { Self::Dnf });
        }
        if which::which("yum").is_ok() {
            return Ok(Self::Yum);
        }
        bail!("found neither dnf nor yum")
    }

    /// Its name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Yum => "yum",
            Self::Dnf | Self::Dnf5 => "dnf",
        }
    }

    /// Which enabled repository offers a package that is not installed.
    ///
    /// # Errors
    /// It can't be started.
    pub fn offer(self, package: &str) -> Result<Offer> {
        let available = if self == Self::Dnf5 { "--available" } else { "available" };
        let output = self.command(&["--quiet", "list", available, package]).probe()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        Ok(parse_offer(package, &stdout, &stderr))
    }

    /// All repositories, enabled or not.
    ///
    /// # Errors
    /// It fails.
    pub fn repositories(self) -> Result<Vec<Repository>> {
        let all = if self == Self::Yum { "all" } else { "--all" };
        Ok(parse_repositories(&self.command(&["repolist", all]).read()?))
    }

    /// Fetches what the repository `id` says of itself, whatever is still known of
    /// it.
    pub(crate) fn refresh_command(self, id: &str) -> Command {
        let expire = format!("--setopt={id}.metadata_expire=1");
        // Else a dnf may pass over what it can't read or verify, and be content.
        let strict = format!("--setopt={id}.skip_if_unavailable=0");
        self.command(&["--quiet", &expire, &strict, "--disablerepo=*", &enable(id), "makecache"])
    }

    /// Installs a package or a package file, and what it depends on.
    pub fn install_command(self, package: &str) -> Command {
        self.command(&["install", package])
    }

    /// The same, from the repository `id` alone.
    pub(crate) fn install_from_command(self, id: &str, package: &str) -> Command {
        self.command(&["--disablerepo=*", &enable(id), "install", package])
    }

    /// Removes packages, and nothing else.
    pub(crate) fn remove_command(self, packages: &[&str]) -> Command {
        self.command(&[&["--setopt=clean_requirements_on_remove=0", "remove"], packages].concat())
    }

    /// With `-y` always: without it, the question about a repository's key hangs
    /// for ever where nobody answers; and so would a lock that is never released.
    fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command
            .args(["-y", "--setopt=timeout=20", "--setopt=retries=2", "--setopt=exit_on_lock=1"])
            .args(arguments)
            .env("LC_ALL", "C");
        command
    }
}

fn enable(id: &str) -> String {
    format!("--enablerepo={id}")
}

/// With `exit_on_lock`, yum and dnf end with 200 where another one is at work.
pub(crate) fn is_locked(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { status, .. } if status.code() == Some(200))
}

/// Lines like `container-selinux.noarch  2:2.119.2-1.911c772.el7_8  extras`.
pub fn parse_offer(package: &str, stdout: &str, stderr: &str) -> Offer {
    let repository = |line: &str| {
        let mut columns = line.split_whitespace();
        let (name, _architecture) = columns.next()?.rsplit_once('.')?;
        (name == package).then(|| columns.nth(1).map(plain_id))?
    };
    if let Some(id) = stdout.lines().find_map(repository) {
        return Offer::By(id);
    }
    let none = ["No matching Packages to list", "No matching packages to list"];
    if stderr.trim().is_empty() || none.iter().any(|text| stderr.contains(text)) {
        Offer::Nowhere
    } else {
        Offer::Unreadable(stderr.trim().to_owned())
    }
}

/// The lines below `repo id … status`; the last column is `enabled`,
/// `enabled: 10,072` or `disabled`.
pub fn parse_repositories(text: &str) -> Vec<Repository> {
    text.lines()
        .skip_while(|line| !line.starts_with("repo id"))
        .skip(1)
        .filter_map(|line| {
            let id = plain_id(line.split_whitespace().next()?);
            let mut end = line.rsplitn(3, ' ').filter(|word| !word.is_empty());
            let (last, before) = (end.next()?, end.next().unwrap_or_default().trim());
            let enabled = last == "enabled" || before.ends_with("enabled:");
            (enabled || last == "disabled").then_some(Repository { id, enabled })
        })
        .collect()
}

/// `!rhel-7-server-rpms/7Server/x86_64` is `rhel-7-server-rpms`.
fn plain_id(id: &str) -> String {
    id.trim_start_matches(['!', '*', '@']).split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<(String, bool)> {
        parse_repositories(text).into_iter().map(|r| (r.id, r.enabled)).collect()
    }

    #[test]
    fn repositories_of_yum_3() {
        let text = "\
Loaded plugins: fastestmirror, product-id, subscription-manager
Loading mirror speeds from cached hostfile
repo id                                  repo name                  status
!base/7/x86_64                           CentOS-7 - Base            enabled: 10,072
*extras/7/x86_64                         CentOS-7 - Extras          disabled
rhel-7-server-rpms/7Server/x86_64        Red Hat (RPMs)             enabled:    526
repolist: 10,598
";
        let wanted = [("base", true), ("extras", false), ("rhel-7-server-rpms", true)];
        assert_eq!(ids(text), wanted.map(|(id, enabled)| (id.to_owned(), enabled)));
    }

    #[test]
    fn repositories_of_dnf() {
        let text = "\
repo id         repo name                     status
appstream       CentOS Linux 8 - AppStream    disabled
baseos          CentOS Linux 8 - BaseOS       enabled
";
        let wanted = [("appstream", false), ("baseos", true)];
        assert_eq!(ids(text), wanted.map(|(id, enabled)| (id.to_owned(), enabled)));
    }

    #[test]
    fn who_offers_a_package() {
        let of = |stdout, stderr| parse_offer("container-selinux", stdout, stderr);
        let yum_3 = "Available Packages\n\
                     container-selinux.noarch     2:2.119.2-1.911c772.el7_8      extras\n";
        assert_eq!(of(yum_3, ""), Offer::By("extras".to_owned()));
        assert_eq!(of("", "Error: No matching Packages to list\n"), Offer::Nowhere);
        // dnf 5
        assert_eq!(of("", "No matching packages to list\n"), Offer::Nowhere);
        let dead = "Error: Failed to download metadata for repo 'appstream': \
                    Cannot prepare internal mirrorlist: No URLs in mirrorlist\n";
        assert_eq!(of("", dead), Offer::Unreadable(dead.trim().to_owned()));
    }
}

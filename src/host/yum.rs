//! yum and dnf: what repositories there are and what they offer.

use std::process::Command;

use anyhow::{Result, bail};

use super::command::{CommandError, CommandExt as _};
use super::hold::{Hold, Operation, place};
use super::machine::Machine;
use super::rpm;
use cli::Failure;

pub(crate) mod config;
pub(crate) mod hold;
mod precedence;
mod version_lock;

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

/// A package in the enabled repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// This one has it.
    By(String),
    /// None has it.
    Nowhere,
    /// They can't be read.
    Unreadable {
        /// The repository that yum names as the cause.
        repository: Option<String>,
        /// What yum prints about it, without its advice.
        why: String,
    },
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
    /// It can't be started; another one is at work (10).
    pub fn offer(self, package: &str) -> Result<Offer> {
        let (stdout, stderr) = self.list_available(&[package])?;
        Ok(parse_offer(package, &stdout, &stderr))
    }

    /// The same, as if no repository had a priority.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub fn offer_without_priorities(self, machine: &Machine, package: &str) -> Result<Offer> {
        let (stdout, stderr) = self.list_available(&[self.no_priorities(machine), package])?;
        Ok(parse_offer(package, &stdout, &stderr))
    }

    fn list_available(self, arguments: &[&str]) -> Result<(String, String)> {
        let output = self.command(&[&self.list()[..], arguments].concat()).probe()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code().is_some_and(|status| reports_lock(status, &stderr)) {
            return Err(self.busy());
        }
        Ok((stdout, stderr))
    }

    fn list(self) -> [&'static str; 3] {
        ["--quiet", "list", if self == Self::Dnf5 { "--available" } else { "available" }]
    }

    /// The ids of the repositories that are set up and disabled. Unlike a list of all
    /// of them, it needs no network.
    ///
    /// # Errors
    /// It fails; another one is at work (10).
    pub fn disabled_repositories(self) -> Result<Vec<String>> {
        let disabled = if self == Self::Yum { "disabled" } else { "--disabled" };
        match self.command(&["repolist", disabled]).read() {
            Ok(text) => Ok(parse_repositories(&text)),
            Err(error) if is_locked(&error) => Err(self.busy()),
            Err(error) => Err(error.into()),
        }
    }

    /// What hides an offered package: an exclusion or a disabled module. The
    /// repositories are those that have it.
    pub fn filter(
        self,
        machine: &Machine,
        package: &str,
        module: &str,
        has_it: impl Fn(&str) -> bool,
    ) -> Option<Hold> {
        let settings = config::settings(machine, self);
        let mut ids: Vec<&str> = settings
            .iter()
            .map(|setting| setting.section.as_str())
            .filter(|id| has_it(id))
            .collect();
        ids.dedup();
        let hold = |id| hold::against(machine, self, package, None, Operation::Install(id));
        hold(None)
            .or_else(|| ids.into_iter().find_map(|id| hold(Some(id))))
            .or_else(|| hold::disabled_module(machine, module))
    }

    /// The priority of another repository that hides a package of the repository `id`: the
    /// plugin of yum 3 hides what a package there replaces.
    pub fn priority_filter(self, machine: &Machine, id: &str) -> Option<Hold> {
        precedence::over(&config::settings(machine, self), id)
    }

    /// Whether any repository has a priority.
    pub fn has_priorities(self, machine: &Machine) -> bool {
        config::settings(machine, self).iter().any(precedence::is_priority)
    }

    /// What makes it install another version of a package than those of the repository `id`.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub(crate) fn rival(self, machine: &Machine, package: &str, id: &str) -> Result<Option<Hold>> {
        let all = self.list_unlocked(machine, package, &[])?;
        self.rival_in(&all, machine, package, id)
    }

    /// The same, where `all` is what is available of the package, also what is locked.
    pub(crate) fn rival_in(
        self,
        all: &str,
        machine: &Machine,
        package: &str,
        id: &str,
    ) -> Result<Option<Hold>> {
        if let Some(lock) = self.lock(machine, package, id, all)? {
            return Ok(Some(lock));
        }
        // One of each architecture.
        let mut others = rows(package, all).filter(|(_, repository)| repository != id).peekable();
        if others.peek().is_none() {
            return Ok(None);
        }
        let (only, none) = (enable(id), self.no_priorities(machine));
        let of_id = ["--showduplicates", "--disablerepo=*", &only, none];
        let own = self.list_unlocked(machine, package, &of_id)?;
        // A mirror of it has the same versions.
        let is_own = |version| rows(package, &own).any(|(own, _)| own == version);
        let settings = config::settings(machine, self);
        let rival = others.find(|(version, repository)| {
            !is_own(*version) && !precedence::is_behind(&settings, repository, id)
        });
        Ok(rival.map(|(version, repository)| {
            precedence::of_rival(&settings, self, package, id, (version, &repository))
        }))
    }

    /// The version lock that refuses what the repository `id` offers. `newest` is what all list
    /// as available, which is newer than what is installed.
    fn lock(
        self,
        machine: &Machine,
        package: &str,
        id: &str,
        newest: &str,
    ) -> Result<Option<Hold>> {
        let found = hold::against_offered(machine, self, package, &versions(package, newest, id));
        if found.is_none() || rpm::installed(package)?.is_some() {
            return Ok(found);
        }
        // An older one that is locked is installed.
        let all = self.list_unlocked(machine, package, &["--showduplicates"])?;
        Ok(hold::against_offered(machine, self, package, &versions(package, &all, id)))
    }

    /// What is available, also what is locked: yum 3 leaves that out of its lists.
    fn list_unlocked(self, machine: &Machine, package: &str, options: &[&str]) -> Result<String> {
        Ok(self.list_available(&[self.no_locks(machine), options, &[package]].concat())?.0)
    }

    /// The options that make it list what is locked.
    fn no_locks(self, machine: &Machine) -> &'static [&'static str] {
        if config::is_yum_3(machine, self) { &["--disableplugin=versionlock"] } else { &[] }
    }

    /// The option that makes it ignore all priorities, which are a plugin's for yum 3.
    fn no_priorities(self, machine: &Machine) -> &'static str {
        if config::is_yum_3(machine, self) {
            "--disableplugin=priorities"
        } else {
            "--setopt=*.priority=99"
        }
    }

    /// The proxy that its configuration names for a repository, and where.
    pub fn configured_proxy(
        self,
        machine: &Machine,
        repository: Option<&str>,
    ) -> Option<(String, String)> {
        let settings = config::settings(machine, self);
        let of = |section: &str| {
            settings.iter().rfind(|setting| setting.section == section && setting.name == "proxy")
        };
        let setting = repository.and_then(of).or_else(|| of("main"))?;
        let is_one = !["", "_none_"].contains(&setting.value.as_str());
        is_one.then(|| (setting.value.clone(), place(&setting.file, setting.line)))
    }

    /// What to say about the configured proxy of the repository that could not be read.
    pub(crate) fn proxy_advice(self, machine: &Machine, output: &str) -> Option<String> {
        let id = unreadable_repository(output)?;
        let (proxy, place) = self.configured_proxy(machine, Some(&id))?;
        let host = proxy.rsplit_once('@').map_or(proxy.as_str(), |(_, host)| host);
        Some(format!(
            "{} reads the repository {id} through the proxy {host}, which {place} sets; correct it \
             there",
            self.program()
        ))
    }

    fn busy(self) -> anyhow::Error {
        let program = self.program();
        Failure::Locked
            .because(format!("another {program} is running; try again when it has ended"))
    }

    /// Fetches what the repository `id` says of itself, whatever is still known of
    /// it.
    pub(crate) fn refresh_command(self, id: &str) -> Command {
        let (expire, strict) = afresh(id);
        self.command(&["--quiet", &expire, &strict, "--disablerepo=*", &enable(id), "makecache"])
    }

    /// The same, which then lists what all repositories have of a package, also what is locked. It
    /// fails if any can't be read.
    pub(crate) fn refresh_and_list_command(
        self,
        machine: &Machine,
        id: &str,
        package: &str,
    ) -> Command {
        let (expire, strict) = afresh(id);
        let options = [&expire, &strict, package];
        self.command(&[&self.list()[..], self.no_locks(machine), &options].concat())
    }

    /// Installs a package or a package file, and what it depends on, and keeps no copy.
    pub fn install_command(self, package: &str) -> Command {
        self.command(&["--setopt=keepcache=0", "install", package])
    }

    /// The same, from the repository `id` alone.
    pub(crate) fn install_from_command(self, id: &str, package: &str) -> Command {
        self.command(&["--setopt=keepcache=0", "--disablerepo=*", &enable(id), "install", package])
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

/// The options by which the repository `id` is read again, or it is an error.
fn afresh(id: &str) -> (String, String) {
    let expire = format!("--setopt={id}.metadata_expire=1");
    // Else a dnf may pass over what it can't read or verify, and be content.
    let strict = format!("--setopt={id}.skip_if_unavailable=0");
    (expire, strict)
}

fn enable(id: &str) -> String {
    format!("--enablerepo={id}")
}

/// Whether a yum or dnf ended because another one is at work.
pub(crate) fn is_locked(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { status, stderr, .. }
        if status.code().is_some_and(|status| reports_lock(status, stderr)))
}

/// With `exit_on_lock`, dnf ends with 200 where another one is at work. So does yum 3
/// by its manual; in fact it ends with 1.
fn reports_lock(status: i32, stderr: &str) -> bool {
    status == 200 || (status == 1 && stderr.contains("currently holding the yum lock"))
}

/// Whether yum or dnf refused to install a file because that version, or a newer one,
/// is installed.
pub(crate) fn has_nothing_to_do(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { stderr, .. }
        if stderr.lines().any(|line| line.trim() == "Error: Nothing to do"))
}

/// Who offers a package, as `list available` prints it.
pub fn parse_offer(package: &str, stdout: &str, stderr: &str) -> Offer {
    if let Some((_, repository)) = rows(package, stdout).next() {
        return Offer::By(repository);
    }
    let none = ["No matching Packages to list", "No matching packages to list"];
    if stderr.trim().is_empty() || none.iter().any(|text| stderr.contains(text)) {
        Offer::Nowhere
    } else {
        Offer::Unreadable { repository: unreadable_repository(stderr), why: cause(stderr) }
    }
}

/// Whether the repository `id` is among those that `list available` names.
pub(crate) fn is_listed(package: &str, stdout: &str, id: &str) -> bool {
    rows(package, stdout).any(|(_, repository)| repository == id)
}

/// The versions and repositories of rows like
/// `container-selinux.noarch  2:2.119.2-1.911c772.el7_8  extras`. yum wraps them between
/// the columns where one is long.
fn rows<'a>(package: &str, list: &'a str) -> impl Iterator<Item = (&'a str, String)> {
    let is_package = move |word: &str| {
        word.rsplit_once('.').is_some_and(|(name, _architecture)| name == package)
    };
    let words: Vec<&str> = list.split_whitespace().collect();
    let row = move |words: &[&'a str]| match words {
        [name, version, id] if is_package(name) => Some((*version, plain_id(id))),
        _ => None,
    };
    words.windows(3).filter_map(row).collect::<Vec<_>>().into_iter()
}

/// The versions of a package that a list has of the repository `id`.
fn versions<'a>(package: &str, list: &'a str, id: &str) -> Vec<&'a str> {
    rows(package, list).filter(|(_, from)| from == id).map(|(version, _)| version).collect()
}

/// The repository that yum 3 or dnf gave up at.
fn unreadable_repository(stderr: &str) -> Option<String> {
    stderr.lines().rev().find_map(|line| {
        let id = if let Some((_, id)) = line.split_once("valid baseurl for repo: ") {
            id
        } else if let Some((_, rest)) = line.split_once("failure: ") {
            rest.split_once(" from ")?.1.split_once(": [Errno")?.0
        } else {
            let (_, rest) = line.split_once("for repo ")?;
            rest.strip_prefix(['\'', '"'])?.split(['\'', '"']).next()?
        };
        Some(plain_id(id.trim()))
    })
}

/// Without yum 3's advice, which is forty lines and indented, and without repetitions.
fn cause(stderr: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in stderr.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
        let line = line.trim_end();
        if !line.is_empty() && line != "Trying other mirror." && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The ids below `repo id … repo name`.
pub fn parse_repositories(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| !line.starts_with("repo id"))
        .skip(1)
        .take_while(|line| !line.starts_with("repolist: "))
        .filter_map(|line| line.split_whitespace().next())
        .map(plain_id)
        .collect()
}

/// `!rhel-7-server-rpms/7Server/x86_64` is `rhel-7-server-rpms`.
fn plain_id(id: &str) -> String {
    id.trim_start_matches(['!', '*', '@']).split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;

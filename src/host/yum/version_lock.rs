//! Version locks: of the plugin versionlock of yum 3 and dnf 4, and of dnf 5.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::config;
use crate::hold::matches;
use crate::machine::Machine;
use cli::untrusted_file;

/// Where dnf 5 keeps its locks (dnf5-versionlock(8)).
const OF_DNF_5: &str = "/etc/dnf/versionlock.toml";

/// What lets a version of a package not be installed.
pub(super) struct Lock {
    pub file: PathBuf,
    pub line: usize,
    /// What the command that deletes locks calls it; none: it is written as no such command
    /// does it.
    pub entry: Option<String>,
}

/// A line of the plugin's list: a pattern of a package with its version.
struct Line {
    number: usize,
    /// Without an epoch.
    pattern: String,
    /// It starts with `!`, and refuses the versions that it names instead of all others.
    is_exclusion: bool,
}

/// What locks the installed version: all that is locked of the package, and no newer one.
pub(super) fn of_plugin(
    machine: &Machine,
    is_yum_3: bool,
    package: &str,
    installed: &str,
) -> Option<Lock> {
    let file = list(machine, is_yum_3)?;
    let lines = lines(machine, &file, package);
    let locks = || lines.iter().filter(|line| !line.is_exclusion);
    let next = next(installed);
    let is_of_installed =
        |line: &Line| line.names(package, installed) && !line.names(package, &next);
    let first = locks().next()?;
    locks().all(is_of_installed).then(|| first.lock(file, package))
}

/// What refuses a version that a repository offers.
pub(super) fn refusing(
    machine: &Machine,
    is_yum_3: bool,
    package: &str,
    offered: &str,
) -> Option<Lock> {
    let file = list(machine, is_yum_3)?;
    let offered = without_epoch(offered);
    let lines = lines(machine, &file, package);
    let (exclusions, locks): (Vec<&Line>, Vec<&Line>) =
        lines.iter().partition(|line| line.is_exclusion);
    let names = |line: &&&Line| line.names(package, &offered);
    let first = match exclusions.iter().find(names) {
        Some(exclusion) => exclusion,
        None if locks.iter().any(|line| names(&line)) => return None,
        None => locks.first()?,
    };
    Some(first.lock(file, package))
}

/// The lines that are about the package.
fn lines(machine: &Machine, file: &Path, package: &str) -> Vec<Line> {
    let text = untrusted_file::read_text(machine.path(file)).unwrap_or_default();
    let line = |(at, text): (usize, &str)| {
        let text = text.trim();
        let pattern = without_epoch(text.trim_start_matches('!'));
        let is_about_it = match pattern.strip_prefix(package)?.as_bytes() {
            [] | [b'.', ..] => true,
            [b'-', first, ..] => first.is_ascii_digit() || b"*?[".contains(first),
            _ => false,
        };
        let is_exclusion = text.starts_with('!');
        is_about_it.then(|| Line { number: at + 1, pattern, is_exclusion })
    };
    text.lines().enumerate().filter_map(line).collect()
}

impl Line {
    /// Whether it names this version, as the plugins understand it: with release and
    /// architecture, or without.
    fn names(&self, package: &str, version: &str) -> bool {
        let without_release = version.split_once('-').map_or(version, |(version, _)| version);
        [
            package.to_owned(),
            format!("{package}.{ARCH}"),
            format!("{package}-{without_release}"),
            format!("{package}-{version}"),
            format!("{package}-{version}.{ARCH}"),
            format!("{package}-{version}.noarch"),
        ]
        .iter()
        .any(|name| matches(&self.pattern, name))
    }

    fn lock(&self, file: PathBuf, package: &str) -> Lock {
        let version = self.pattern.strip_suffix(".*").unwrap_or(&self.pattern);
        let is_plain = !version.contains(['*', '?', '[']) && version.rsplitn(3, '-').count() == 3;
        Lock { file, line: self.number, entry: is_plain.then(|| package.to_owned()) }
    }
}

/// The smallest version that is newer: its last number is one more.
fn next(version: &str) -> String {
    let (version, release) = version.split_once('-').unwrap_or((version, "1"));
    let last = version.rfind('.').map_or(0, |dot| dot + 1);
    match version[last..].parse::<u64>() {
        Ok(number) => format!("{}{}-{release}", &version[..last], number.saturating_add(1)),
        Err(_) => format!("{version}.1-{release}"),
    }
}

/// Entries of dnf 5: each allows versions that meet all its conditions, and the package has
/// to be allowed by one of those that name it.
pub(super) fn of_dnf5(machine: &Machine, package: &str, installed: &str) -> Option<Lock> {
    let text = untrusted_file::read_text(machine.path(OF_DNF_5)).ok()?;
    let locks: Locks = toml::from_str(&text).ok()?;
    let mut named = locks
        .packages
        .into_iter()
        .filter(|entry| matches(entry.name.get_ref(), package))
        .peekable();
    let first = named.peek()?.name.clone();
    if !named.all(|entry| entry.allows_only(installed)) {
        return None;
    }
    let line = 1 + text[..first.span().start].matches('\n').count();
    Some(Lock { file: OF_DNF_5.into(), line, entry: Some(first.into_inner()) })
}

/// The plugin's list, if it is enabled.
fn list(machine: &Machine, is_yum_3: bool) -> Option<PathBuf> {
    let folder = Path::new(if is_yum_3 { "/etc/yum/pluginconf.d" } else { "/etc/dnf/plugins" });
    let settings = config::settings_of(machine, &folder.join("versionlock.conf"));
    let value = |name: &str| settings.iter().rfind(|setting| setting.name == name);
    let is_on = value("enabled").is_some_and(|setting| {
        ["1", "true", "yes"].contains(&setting.value.to_ascii_lowercase().as_str())
    });
    let list = value("locklist").map(|setting| PathBuf::from(&setting.value));
    is_on.then(|| list.unwrap_or_else(|| folder.join("versionlock.list")))
}

#[derive(Deserialize)]
struct Locks {
    #[serde(default)]
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: Spanned<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    key: String,
    comparator: String,
    value: String,
}

impl Entry {
    /// Whether it allows the installed version, or none that is newer.
    fn allows_only(&self, installed: &str) -> bool {
        self.conditions.iter().any(|condition| {
            condition.key == "evr"
                && ["=", "==", "<="].contains(&condition.comparator.as_str())
                && without_epoch(&condition.value) == without_epoch(installed)
        })
    }
}

/// yum 3 writes it before the name, dnf before the version.
fn without_epoch(entry: &str) -> String {
    entry.split_once(':').map_or_else(
        || entry.to_owned(),
        |(before, rest)| format!("{}{rest}", before.trim_end_matches(|c: char| c.is_ascii_digit())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The line of what the plugin's list has against what is done with a version.
    fn line(
        list: &str,
        judge: fn(&Machine, bool, &str, &str) -> Option<Lock>,
        version: &str,
    ) -> Option<usize> {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let folder = machine.path("/etc/dnf/plugins");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("versionlock.conf"), "[main]\nenabled = 1\n").unwrap();
        fs::write(folder.join("versionlock.list"), list).unwrap();
        judge(&machine, false, "scalr-agent", version).map(|lock| lock.line)
    }

    #[test]
    fn a_lock_on_the_installed_version_is_found_however_it_is_written() {
        let of_installed = |list: &str| line(list, of_plugin, "1.0.0-1");
        for list in [
            "scalr-agent-0:1.0.0-1.*",
            "0:scalr-agent-1.0.0-1.x86_64",
            "scalr-agent-0:1.0.0-*",
            "scalr-agent-1.0.0",
            "scalr-agent-1.0.0*",
            "scalr-agent-0:1.0.0-1.*\n!scalr-agent-1.1.0-1.*\nbash-5.*",
        ] {
            assert_eq!(of_installed(list), Some(1), "{list}");
        }
        for list in [
            "scalr-agent",
            "scalr-agent-1.*",
            "scalr-agent-1.0.*",
            "scalr-agent-1.1.0-1.*",
            "scalr-agent-1.0.0-1.*\nscalr-agent-1.1.0-1.*",
            "!scalr-agent-1.0.0-1.*",
            "scalr-agent-tools-1.0.0-1.*",
            "#scalr-agent-1.0.0-1.*",
        ] {
            assert_eq!(of_installed(list), None, "{list}");
        }
    }

    #[test]
    fn what_refuses_an_offered_version_is_found() {
        let of_offered = |list: &str| line(list, refusing, "1.1.0-1");
        for list in [
            "scalr-agent-0:1.0.0-1.*",
            "scalr-agent-1.0.*",
            "!scalr-agent-0:1.1.0-1.*\nscalr-agent-1.*",
            "!scalr-agent",
        ] {
            assert_eq!(of_offered(list), Some(1), "{list}");
        }
        for list in [
            "",
            "scalr-agent",
            "scalr-agent-1.*",
            "scalr-agent-0:1.0.0-1.*\nscalr-agent-0:1.1.0-1.*",
            "!scalr-agent-0:1.0.0-1.*",
            "scalr-agent-tools-1.0.0-1.*",
        ] {
            assert_eq!(of_offered(list), None, "{list}");
        }
    }

    #[test]
    fn the_next_version_is_one_more_in_its_last_number() {
        for (version, next) in [("1.0.9-1", "1.0.10-1"), ("7-2", "8-2"), ("1.0~rc-1", "1.0~rc.1-1")]
        {
            assert_eq!(super::next(version), next);
        }
    }

    #[test]
    fn a_lock_of_dnf_5_on_the_installed_version_is_found_with_its_line() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path("/etc/dnf")).unwrap();
        let lock = |text: &str| {
            fs::write(machine.path(OF_DNF_5), text).unwrap();
            of_dnf5(&machine, "scalr-agent", "1.0.0-1").map(|lock| (lock.line, lock.entry.unwrap()))
        };
        let entry = |name: &str, comparator: &str, value: &str| {
            format!(
                "[[packages]]\nname = \"{name}\"\n[[packages.conditions]]\nkey = \"evr\"\n\
                 comparator = \"{comparator}\"\nvalue = \"{value}\"\n"
            )
        };
        let head = format!("version = \"1.0\"\n\n{}\n", entry("bash", "=", "0:5.2-1"));
        let named = |name: &str| Some((11, name.to_owned()));
        let installed = entry("scalr-agent", "=", "0:1.0.0-1");
        assert_eq!(lock(&format!("{head}{installed}")), named("scalr-agent"));
        let at_most = entry("scalr-*", "<=", "1.0.0-1");
        assert_eq!(lock(&format!("{head}{at_most}")), named("scalr-*"));
        let newer = entry("scalr-agent", "=", "0:1.1.0-1");
        for other in [
            &head,
            &newer,
            &format!("{installed}{newer}"),
            &entry("scalr-agent", "!=", "0:1.0.0-1"),
            &entry("scalr-agent", ">=", "0:1.0.0-1"),
            "",
            "not toml",
        ] {
            assert_eq!(lock(other), None, "{other}");
        }
    }
}

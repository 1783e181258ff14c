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

/// What lets no other version of a package be installed than the installed one.
pub(super) struct Lock {
    pub file: PathBuf,
    pub line: usize,
    /// What the lock calls the package.
    pub entry: String,
}

/// A line of the plugin's list that names the installed version. What starts with `!`
/// excludes single versions and keeps nothing.
pub(super) fn of_plugin(
    machine: &Machine,
    is_yum_3: bool,
    package: &str,
    installed: &str,
) -> Option<Lock> {
    let file = list(machine, is_yum_3)?;
    let text = untrusted_file::read_text(machine.path(&file)).ok()?;
    let locked = format!("{package}-{installed}");
    let number = text.lines().position(|line| {
        let entry = without_epoch(line.trim());
        [".*", ".noarch", &format!(".{ARCH}"), ""]
            .iter()
            .any(|architecture| entry == format!("{locked}{architecture}"))
    })?;
    Some(Lock { file, line: number + 1, entry: package.to_owned() })
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
    Some(Lock { file: OF_DNF_5.into(), line, entry: first.into_inner() })
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

    #[test]
    fn a_lock_of_dnf_5_on_the_installed_version_is_found_with_its_line() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path("/etc/dnf")).unwrap();
        let lock = |text: &str| {
            fs::write(machine.path(OF_DNF_5), text).unwrap();
            of_dnf5(&machine, "scalr-agent", "1.0.0-1").map(|lock| (lock.line, lock.entry))
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

//! dpkg: which packages are installed.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::command::{CommandError, CommandExt as _};
use super::machine::Machine;

/// Where dpkg notes what it has begun and not yet merged into its database: files named
/// by numbers.
const UPDATES: &str = "/var/lib/dpkg/updates";

/// The version of an installed package, for example `0.1.0-1`, also of one that an
/// interrupted dpkg has left half there; `None` if it is not installed, or only its settings
/// are left.
///
/// # Errors
/// dpkg-query is missing.
pub fn installed(package: &str) -> Result<Option<String>> {
    Ok(parse(&status(package)?))
}

/// The three letters of `dpkg --list` and the version; nothing for a package that dpkg has
/// never seen.
fn status(package: &str) -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Version}\n", package])
        .probe()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the version `one` is older than `other`, as dpkg sees it.
pub fn is_older(one: &str, other: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", one, "lt", other])
        .probe()
        .is_ok_and(|output| output.status.success())
}

/// Finishes what an interrupted dpkg has left half configured.
pub(crate) fn configure_pending_command() -> Command {
    let mut command = Command::new("dpkg");
    command
        .args(["--force-confold", "--configure", "--pending"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

/// Whether it has left nothing half done, of any package.
///
/// # Errors
/// dpkg-query is missing.
pub(crate) fn is_whole() -> Result<bool> {
    let all = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev}\n"])
        .probe()?;
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    Ok(!was_interrupted(&Machine::at("/")) && all.lines().all(is_whole_status))
}

/// `ii `: what is wanted, what is there, and whether it needs a reinstallation.
fn is_whole_status(status: &str) -> bool {
    let mut letters = status.chars().skip(1);
    letters.next().is_none_or(|there| ['n', 'c', 'i'].contains(&there))
        && letters.next() != Some('R')
}

/// Whether it was interrupted while it unpacked or removed the package.
///
/// # Errors
/// dpkg-query is missing.
pub(crate) fn is_half_installed(package: &str) -> Result<bool> {
    Ok(status(package)?.chars().nth(1) == Some('H'))
}

/// Whether it was interrupted while it unpacked the package: then apt does nothing at all as
/// long as it can't fetch that again.
///
/// # Errors
/// dpkg-query is missing.
pub(crate) fn needs_reinstallation(package: &str) -> Result<bool> {
    Ok(status(package)?.chars().nth(2) == Some('R'))
}

/// Removes a package that needs a reinstallation; with `purge` its settings as well.
pub(crate) fn remove_unfinished_command(package: &str, purge: bool) -> Command {
    let mut command = Command::new("dpkg");
    command
        .args(["--force-remove-reinstreq", if purge { "--purge" } else { "--remove" }, package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

/// Whether it failed because another dpkg is at work.
pub(crate) fn is_locked(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed { stderr, .. } if stderr.contains("locked by another process"))
}

/// A package that an interrupted or failed dpkg has left half there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name, with the architecture where dpkg names it.
    pub package: String,
    /// What finishes it.
    pub by: Finish,
}

/// What finishes what dpkg has begun (dpkg(1), "PACKAGE STATES").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is unpacked, or waits for a trigger.
    Configuration,
    /// Its files are not all there: dpkg does not configure it, and without its archive apt
    /// does nothing at all.
    Reinstallation,
    /// It was being removed.
    Removal,
}

/// The packages whose installation or removal was begun and never finished.
///
/// # Errors
/// dpkg is missing, or its records can't be read.
pub fn unfinished() -> Result<Vec<Unfinished>> {
    let format = "--showformat=${db:Status-Abbrev} ${binary:Package}\n";
    let text = Command::new("dpkg-query").args(["--show", format]).env("LC_ALL", "C").read()?;
    Ok(text.lines().filter_map(parse_unfinished).collect())
}

/// Whether a dpkg was interrupted before it had written down what it did; apt refuses
/// to work then, and `dpkg --audit` reports nothing.
pub fn was_interrupted(machine: &Machine) -> bool {
    let Ok(entries) = fs::read_dir(machine.path(UPDATES)) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    })
}

/// `iHR postfix`: [`is_whole_status`], and the package.
fn parse_unfinished(line: &str) -> Option<Unfinished> {
    let (status, package) = line.split_at_checked(3)?;
    let mut letters = status.chars();
    let (wanted, there) = (letters.next()?, letters.next()?);
    let by = match (wanted, there, letters.next()?) {
        _ if is_whole_status(status) => return None,
        ('r' | 'p', ..) => Finish::Removal,
        (_, 'H', _) | (.., 'R') => Finish::Reinstallation,
        _ => Finish::Configuration,
    };
    Some(Unfinished { package: package.trim().to_owned(), by })
}

/// `ii  0.1.0-1`, `rc  0.1.0-1`: what is wanted (`h` of a held one) and what is there.
fn parse(text: &str) -> Option<String> {
    let (status, version) = text.trim().split_once(char::is_whitespace)?;
    let is_there = !['n', 'c'].contains(&status.chars().nth(1)?);
    is_there.then(|| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_what_finishes_it() {
        for (status, by) in [
            ("iF ", Finish::Configuration),
            ("iU ", Finish::Configuration),
            ("hF ", Finish::Configuration),
            ("iW ", Finish::Configuration),
            ("it ", Finish::Configuration),
            ("iH ", Finish::Reinstallation),
            ("iHR", Finish::Reinstallation),
            ("iUR", Finish::Reinstallation),
            ("iiR", Finish::Reinstallation),
            ("rH ", Finish::Removal),
            ("pHR", Finish::Removal),
        ] {
            let expected = Unfinished { package: "libc6:amd64".to_owned(), by };
            let found = parse_unfinished(&format!("{status} libc6:amd64"));
            assert_eq!(found, Some(expected), "{status}");
        }
        for whole in ["ii  tar", "ri  tar", "pc  tar", ""] {
            assert_eq!(parse_unfinished(whole), None, "{whole}");
        }
    }

    #[test]
    fn a_package_is_whole_when_it_is_installed_or_gone() {
        for whole in ["ii ", "hi ", "rc ", "un ", "pn ", ""] {
            assert!(is_whole_status(whole), "{whole}");
        }
        for half in ["iU ", "iF ", "iH ", "rH ", "iHR", "iiR", "iW ", "it "] {
            assert!(!is_whole_status(half), "{half}");
        }
    }

    #[test]
    fn an_interrupted_dpkg_leaves_numbered_files() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        assert!(!was_interrupted(&machine));
        let updates = machine.path(UPDATES);
        fs::create_dir_all(&updates).unwrap();
        fs::write(updates.join("tmp.i"), "").unwrap();
        assert!(!was_interrupted(&machine));
        fs::write(updates.join("0003"), "").unwrap();
        assert!(was_interrupted(&machine));
    }

    #[test]
    fn only_settings_left_is_not_installed() {
        assert_eq!(parse("ii  0.1.0-1\n").as_deref(), Some("0.1.0-1"));
        assert_eq!(parse("hi  0.1.0-1\n").as_deref(), Some("0.1.0-1"), "it is held");
        assert_eq!(parse("rH  0.1.0-1\n").as_deref(), Some("0.1.0-1"), "half removed");
        assert_eq!(parse("iHR 0.1.0-1\n").as_deref(), Some("0.1.0-1"), "half unpacked");
        assert_eq!(parse("rc  0.1.0-1\n"), None);
        assert_eq!(parse("un  \n"), None);
        assert_eq!(parse(""), None);
    }
}

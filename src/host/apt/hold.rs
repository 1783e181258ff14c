//! What keeps apt from changing a package: a hold, or a preference that never takes it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::CommandExt as _;
use crate::hold::{Hold, Operation, edit, matches, place};
use crate::machine::Machine;

pub(crate) fn against(
    machine: &Machine,
    package: &str,
    operation: Operation<'_>,
) -> Result<Option<Hold>> {
    let held = Command::new("apt-mark").args(["showhold", package]).env("LC_ALL", "C").read()?;
    if !held.trim().is_empty() {
        return Ok(Some(Hold {
            by: format!("`apt-mark hold` keeps {package} as it is"),
            release: format!("apt-mark unhold {package}"),
        }));
    }
    // A preference chooses what is installed; a package's removal is none of its business.
    // Nor is a file's installation.
    Ok(match operation {
        Operation::Install(Some(_)) => refusing_preference(machine, package),
        _ => None,
    })
}

/// A paragraph of apt_preferences(5) that gives every version of a package a negative
/// priority.
fn refusing_preference(machine: &Machine, package: &str) -> Option<Hold> {
    for file in files(machine) {
        let text = fs::read_to_string(machine.path(&file)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let mut start = 0;
        for paragraph in lines.split(|line| line.trim().is_empty()) {
            let (first, last) = (start + 1, start + paragraph.len());
            start = last + 1;
            let field = |name: &str| {
                paragraph.iter().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            let (Some(names), Some(pin)) = (field("Package"), field("Pin")) else { continue };
            let is_negative = field("Pin-Priority")
                .and_then(|priority| priority.parse::<i32>().ok())
                .is_some_and(|priority| priority < 0);
            let is_named = names.split_whitespace().any(|name| matches(name, package));
            if is_negative && is_named && ["version *", "release *", "release a=*"].contains(&pin) {
                return Some(Hold {
                    by: format!("{} keeps apt from installing {package}", place(&file, first)),
                    release: edit(&file, &format!("{first},{last}d")),
                });
            }
        }
    }
    None
}

fn files(machine: &Machine) -> Vec<PathBuf> {
    let folder = PathBuf::from("/etc/apt/preferences.d");
    let mut parts: Vec<PathBuf> = fs::read_dir(machine.path(&folder))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| folder.join(entry.file_name()))
        .filter(|file| file.extension().is_none_or(|extension| extension == "pref"))
        .collect();
    parts.sort();
    parts.insert(0, PathBuf::from("/etc/apt/preferences"));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_that_refuses_every_version_is_found_with_its_lines() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let folder = machine.path("/etc/apt/preferences.d");
        fs::create_dir_all(&folder).unwrap();
        let refused = |text: &str| {
            fs::write(folder.join("agents"), text).unwrap();
            refusing_preference(&machine, "scalr-agent").map(|hold| hold.release)
        };
        let found = refused(
            "# Not here\nPackage: vim\nPin: version *\nPin-Priority: -1\n\n\
             Package: vim scalr-*\nPin: release *\nPin-Priority: -10\n",
        );
        assert_eq!(found.as_deref(), Some("sed -E -i 6,8d /etc/apt/preferences.d/agents"));
        for other in [
            "Package: scalr-agent\nPin: version *\nPin-Priority: 990\n",
            "Package: *\nPin: origin other.example.com\nPin-Priority: -1\n",
            "Package: scalr-agent\nPin: version 1.*\nPin-Priority: -1\n",
        ] {
            assert_eq!(refused(other), None, "{other}");
        }
    }
}

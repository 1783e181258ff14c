//! What keeps apt from changing a package: a hold, or a preference that never takes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use url::Url;

use super::policy::Policy;
use crate::command::CommandExt as _;
use crate::hold::{Hold, Operation, edit, matches, place};
use crate::machine::Machine;

const FOLDER: &str = "/etc/apt/preferences.d";

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

/// What makes apt install another version of a package than those of the source at `uri`,
/// or none.
pub(crate) fn rival(machine: &Machine, package: &str, uri: &str) -> Result<Option<Hold>> {
    let text = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").read()?;
    Ok(judge(machine, package, uri, &Policy::parse(&text)))
}

fn judge(machine: &Machine, package: &str, uri: &str, policy: &Policy<'_>) -> Option<Hold> {
    let own = policy.newest_at(uri)?;
    let candidate =
        policy.versions.iter().find(|version| Some(version.version) == policy.candidate);
    match candidate {
        // The source has that version, too.
        Some(candidate) if candidate.is_at(uri) => None,
        Some(candidate) if !candidate.is_installed() => Some(Hold {
            by: format!(
                "apt prefers {package} {} of {}",
                candidate.version,
                candidate.places.first().unwrap_or(&"another source")
            ),
            release: prefer(package, uri),
        }),
        _ if own.priority >= 0 => None,
        _ => {
            let refused = preferences(machine)
                .into_iter()
                .filter(Preference::is_negative)
                // apt has matched the rest.
                .find(|found| found.may_name(package) && found.may_be_at(uri));
            Some(refused.map_or_else(
                || Hold {
                    by: format!("a preference (apt_preferences(5)) refuses {package} of {uri}"),
                    release: prefer(package, uri),
                },
                |found| found.hold(package),
            ))
        }
    }
}

/// The command that has apt take a package from the host of `uri` alone.
fn prefer(package: &str, uri: &str) -> String {
    let host = Url::parse(uri).ok().and_then(|url| url.host_str().map(str::to_owned));
    format!(
        "printf '%s\\n' 'Package: {package}' 'Pin: origin \"{}\"' 'Pin-Priority: 1000' \
         >{FOLDER}/00{package}",
        host.unwrap_or_default()
    )
}

/// A paragraph that gives every version of a package a negative priority.
fn refusing_preference(machine: &Machine, package: &str) -> Option<Hold> {
    let every = ["version *", "release *", "release a=*"];
    preferences(machine)
        .into_iter()
        .filter(Preference::is_negative)
        .find(|found| found.names(package) && every.contains(&found.pin.as_str()))
        .map(|found| found.hold(package))
}

/// A paragraph of apt_preferences(5).
struct Preference {
    file: PathBuf,
    /// Its lines, from 1.
    first: usize,
    last: usize,
    packages: String,
    pin: String,
    priority: i32,
}

impl Preference {
    fn is_negative(&self) -> bool {
        self.priority < 0
    }

    fn names(&self, package: &str) -> bool {
        self.packages.split_whitespace().any(|name| matches(name, package))
    }

    /// A name between slashes is a regular expression.
    fn may_name(&self, package: &str) -> bool {
        self.names(package) || self.packages.contains('/')
    }

    fn may_be_at(&self, uri: &str) -> bool {
        let Some(origin) = self.pin.strip_prefix("origin") else { return true };
        let host = Url::parse(uri).ok().and_then(|url| url.host_str().map(str::to_owned));
        origin.trim().trim_matches('"') == host.unwrap_or_default()
    }

    fn hold(&self, package: &str) -> Hold {
        Hold {
            by: format!("{} keeps apt from installing {package}", place(&self.file, self.first)),
            release: edit(&self.file, &format!("{},{}d", self.first, self.last)),
        }
    }
}

fn preferences(machine: &Machine) -> Vec<Preference> {
    files(machine)
        .into_iter()
        .flat_map(|file| {
            let text = fs::read_to_string(machine.path(&file)).unwrap_or_default();
            paragraphs(&file, &text)
        })
        .collect()
}

fn paragraphs(file: &Path, text: &str) -> Vec<Preference> {
    let lines: Vec<&str> = text.lines().collect();
    let mut next = 1;
    let mut found = Vec::new();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let first = next;
        next += paragraph.len() + 1;
        let field = |name: &str| {
            paragraph.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let (Some(packages), Some(pin)) = (field("Package"), field("Pin")) else { continue };
        let priority = field("Pin-Priority").and_then(|text| text.parse().ok());
        found.push(Preference {
            file: file.to_owned(),
            first,
            last: first + paragraph.len() - 1,
            packages: packages.to_owned(),
            pin: pin.to_owned(),
            priority: priority.unwrap_or_default(),
        });
    }
    found
}

fn files(machine: &Machine) -> Vec<PathBuf> {
    let folder = Path::new(FOLDER);
    let mut parts: Vec<PathBuf> = fs::read_dir(machine.path(folder))
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

    const URI: &str = "https://pools.test:8443/packages/apt";

    /// What apt 2.6.2 prints, and how the version is held that the server has.
    #[test]
    fn what_apt_takes_instead_of_the_servers_package_is_found() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path(FOLDER)).unwrap();
        let table = |installed: &str, candidate: &str, versions: &str| {
            format!(
                "scalr-agent:\n  Installed: {installed}\n  Candidate: {candidate}\n  \
                 Version table:\n{versions}"
            )
        };
        let held = |preferences: &str, text: &str| {
            fs::write(machine.path(FOLDER).join("x"), preferences).unwrap();
            judge(&machine, "scalr-agent", URI, &Policy::parse(text))
        };
        let rival = "     0.40.0 500\n        500 https://v.test/apt stable/main amd64 Packages\n";
        let ours = format!("     0.1.0-1 500\n        500 {URI} stable/main amd64 Packages\n");
        let found = held("", &table("(none)", "0.40.0", &format!("{rival}{ours}"))).unwrap();
        assert_eq!(found.by, "apt prefers scalr-agent 0.40.0 of https://v.test/apt");
        assert!(found.release.contains("origin \"pools.test\""), "{}", found.release);
        for text in [
            table("(none)", "0.1.0-1", &format!("{rival}{ours}")),
            table("(none)", "0.1.0-1", &ours),
            table(
                "0.40.0",
                "0.40.0",
                &format!(" *** 0.40.0 100\n        100 /var/lib/dpkg/status\n{ours}"),
            ),
            table("(none)", "0.40.0", rival),
            String::new(),
        ] {
            assert_eq!(held("", &text), None, "{text}");
        }

        let refused = ours.replace(" 500", " -1");
        let status = " *** 0.0.9-1 100\n        100 /var/lib/dpkg/status\n";
        for (preference, release) in [
            ("Package: *\nPin: origin \"pools.test\"\nPin-Priority: -1\n", "1,3d"),
            ("Package: /^scalr/\nPin: version 0.*\nPin-Priority: -5\n", "1,3d"),
            (
                "Package: *\nPin: origin v.test\nPin-Priority: -1\n\n\
                 Package: scalr-*\nPin: release o=Agents\nPin-Priority: -1\n",
                "5,7d",
            ),
        ] {
            for text in [
                table("(none)", "(none)", &refused),
                table("0.0.9-1", "0.0.9-1", &format!("{refused}{status}")),
            ] {
                let found = held(preference, &text).unwrap();
                assert!(found.release.contains(release), "{preference}: {}", found.release);
            }
        }
    }
}

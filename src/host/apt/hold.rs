//! What keeps apt from changing a package: a hold, or a preference that never takes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use url::Url;

use super::policy::{Policy, Version};
use crate::command::CommandExt as _;
use crate::dpkg;
use crate::hold::{Hold, Operation, edit, matches, place};
use crate::machine::Machine;
use cli::untrusted_file;

const FOLDER: &str = "/etc/apt/preferences.d";

/// What `Release` of our repositories calls them.
const ORIGIN: &str = "scalr-agent";

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
    match policy.candidate() {
        Some(kept)
            if own.priority >= 0
                && kept.is_installed()
                && dpkg::is_older(kept.version, own.version) =>
        {
            let by = format!("apt keeps {package} {} and refuses {}", kept.version, own.version);
            Some(preferring(machine, package, uri, own, kept, by))
        }
        // The source has that version, too.
        Some(candidate) if candidate.is_at(uri) => None,
        Some(candidate) if !candidate.is_installed() => {
            let place = candidate.places.first().unwrap_or(&"another source");
            let by = format!("apt prefers {package} {} of {place}", candidate.version);
            Some(preferring(machine, package, uri, own, candidate, by))
        }
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
                    release: prefer(package, uri, own, None),
                },
                |found| found.hold(package),
            ))
        }
    }
}

/// What has apt take `own` instead of `candidate`: one more preference, or one less where apt
/// would read that first.
fn preferring(
    machine: &Machine,
    package: &str,
    uri: &str,
    own: &Version<'_>,
    candidate: &Version<'_>,
    by: String,
) -> Hold {
    let file = Path::new(FOLDER).join(format!("00{package}"));
    let pinned = |priority| {
        [own, candidate].iter().any(|found| found.is_pinned() && found.priority == priority)
    };
    let first = preferences(machine)
        .into_iter()
        .find(|found| found.file < file && found.is_specific(package) && pinned(found.priority));
    match first {
        Some(first) => Hold {
            by: format!(
                "{by}: {} sets the priority {}",
                place(&first.file, first.first),
                first.priority
            ),
            release: first.deletion(),
        },
        None => Hold { by, release: prefer(package, uri, own, Some(candidate)) },
    }
}

/// The command that has apt take a package of `uri` rather than the candidate.
fn prefer(package: &str, uri: &str, own: &Version<'_>, candidate: Option<&Version<'_>>) -> String {
    let host = |uri: &str| Some(Url::parse(uri).ok()?.host_str()?.to_owned());
    let server = host(uri);
    let is_on_server = |other: &Version<'_>| other.places.iter().any(|place| host(place) == server);
    let pin = if candidate.is_some_and(is_on_server) {
        format!("release o={ORIGIN}")
    } else {
        format!("origin \"{}\"", server.as_deref().unwrap_or_default())
    };
    // From 1000 on, also to an older version.
    let highest = candidate.map_or(own.priority, |other| other.priority.max(own.priority));
    let priority = highest.saturating_add(1).max(1000);
    format!(
        "printf '%s\\n' 'Package: {package}' 'Pin: {pin}' 'Pin-Priority: {priority}' \
         >{FOLDER}/00{package}"
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

    /// A name may have an architecture after it, such as `:amd64`.
    fn names(&self, package: &str) -> bool {
        let is_named = |name: &str| matches(name.split(':').next().unwrap_or_default(), package);
        self.packages.split_whitespace().any(is_named)
    }

    /// A name between slashes is a regular expression.
    fn may_name(&self, package: &str) -> bool {
        self.names(package) || self.packages.contains('/')
    }

    /// Whether it takes precedence over those for all packages, and over each later one of the
    /// package.
    fn is_specific(&self, package: &str) -> bool {
        self.packages != "*" && self.may_name(package)
    }

    fn may_be_at(&self, uri: &str) -> bool {
        let Some(origin) = self.pin.strip_prefix("origin") else { return true };
        let host = Url::parse(uri).ok().and_then(|url| url.host_str().map(str::to_owned));
        origin.trim().trim_matches('"') == host.unwrap_or_default()
    }

    fn hold(&self, package: &str) -> Hold {
        Hold {
            by: format!("{} keeps apt from installing {package}", place(&self.file, self.first)),
            release: self.deletion(),
        }
    }

    fn deletion(&self) -> String {
        edit(&self.file, &format!("{},{}d", self.first, self.last))
    }
}

fn preferences(machine: &Machine) -> Vec<Preference> {
    files(machine)
        .into_iter()
        .flat_map(|file| {
            let text = untrusted_file::read_text(machine.path(&file)).unwrap_or_default();
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

        // Pinned for all packages, and two packages with one version.
        let pinned = rival.replace("500", "1001");
        let found = held("", &table("(none)", "0.40.0", &format!("{pinned}{ours}"))).unwrap();
        assert!(found.release.contains("'Pin-Priority: 1002'"), "{}", found.release);
        let same = ours.replace("500", "990").replace("pools.test:8443", "v.test");
        for both in [format!("{ours}{same}"), format!("{same}{ours}")] {
            let found = held("", &table("(none)", "0.1.0-1", &both)).unwrap();
            assert!(found.by.ends_with("0.1.0-1 of https://v.test/packages/apt"), "{}", found.by);
        }
        let neighbour = rival.replace("v.test/apt", "pools.test/vendor");
        let found = held("", &table("(none)", "0.40.0", &format!("{neighbour}{ours}"))).unwrap();
        assert!(found.release.contains("'Pin: release o=scalr-agent'"), "{}", found.release);

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
    #[test]
    fn a_preference_of_the_package_that_apt_reads_first_is_deleted() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path(FOLDER)).unwrap();
        let source = format!("        500 {URI} stable/main amd64 Packages\n");
        let kept = format!(
            "scalr-agent:\n  Installed: 0.1.0-1\n  Candidate: 0.1.0-1\n  Version table:\n     \
             0.1.0-2 500\n{source} *** 0.1.0-1 1001\n{source}        100 /var/lib/dpkg/status\n"
        );
        let vendor = "        500 https://v.test/apt stable/main amd64 Packages\n";
        let taken = format!(
            "scalr-agent:\n  Installed: (none)\n  Candidate: 0.40.0\n  Version table:\n     \
             0.40.0 1001\n{vendor}     0.1.0-2 500\n{source}"
        );
        let held = |file: &str, packages: &str, text: &str| {
            let path = machine.path(file);
            let pin = "Pin: version 0.*\nPin-Priority: 1001\n";
            fs::write(&path, format!("Package: {packages}\n{pin}")).unwrap();
            let hold = judge(&machine, "scalr-agent", URI, &Policy::parse(text));
            fs::remove_file(path).unwrap();
            hold.unwrap()
        };
        for text in [&kept, &taken] {
            for file in ["/etc/apt/preferences", "/etc/apt/preferences.d/00-agents"] {
                for packages in ["scalr-agent", "vim scalr-*", "scalr-agent:amd64", "/^scalr/"] {
                    let found = held(file, packages, text);
                    assert_eq!(found.release, format!("sed -E -i 1,3d {file}"), "{packages}");
                    assert!(found.by.ends_with(&format!("{file}:1 sets the priority 1001")));
                }
            }
            for (file, packages) in [
                ("/etc/apt/preferences.d/agents", "scalr-agent"),
                ("/etc/apt/preferences", "vim"),
                ("/etc/apt/preferences", "*"),
            ] {
                let found = held(file, packages, text);
                assert!(found.release.contains("'Pin-Priority: 1002'"), "{}", found.release);
            }
        }
        assert!(
            held("/etc/apt/preferences", "vim", &kept).by.contains("keeps scalr-agent 0.1.0-1")
        );
    }
}

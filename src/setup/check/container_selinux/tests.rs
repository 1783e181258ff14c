//! Every row of the table, as recorded in `tests/fixtures/repositories`.

use std::path::Path;

use os_release::OsRelease;
use serde::Deserialize;

use super::*;
use host::rpm::parse_installed;
use host::yum::{parse_offer, parse_repositories};

/// The expected outcome of a host's answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    tool: String,
    has_config_manager: bool,
    /// The exact command that fixes it, and the only one.
    command: Option<String>,
    /// A problem that no single command fixes, with this in its message.
    told: Option<String>,
    /// It is on offer, with this in the message.
    passed: Option<String>,
    /// It is installed, in this version.
    installed: Option<String>,
}

/// A host, as its folder has it.
struct Host {
    folder: PathBuf,
}

impl Host {
    /// A missing file is a question that must not be asked.
    fn said(&self, file: &str) -> String {
        let path = self.folder.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn said_or_nothing(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    fn os(&self) -> Os {
        Os::from(OsRelease::new_from(self.folder.join("os-release")).unwrap())
    }

    fn judged(&self, tools: Tools) -> Outcome {
        let questions = Questions {
            offer: || {
                let stdout = self.said_or_nothing("yum-list-available.stdout");
                let stderr = self.said_or_nothing("yum-list-available.stderr");
                Ok(parse_offer(PACKAGE, &stdout, &stderr))
            },
            unprioritized: || {
                Ok(parse_offer(PACKAGE, &self.said("yum-list-without-priorities.stdout"), ""))
            },
            disabled: || Ok(parse_repositories(&self.said("yum-repolist-disabled"))),
            subscribed: || subscription::parse(&self.said("subscription-manager-repos-list")),
        };
        judge(&Machine::at(&self.folder), &self.os(), tools, questions).unwrap()
    }

    fn check(&self) {
        let name = self.folder.file_name().unwrap().to_string_lossy();
        let expected: Expected = toml::from_str(&self.said("expected.toml")).unwrap();
        let rpms = parse_installed(&self.said("rpm-query"));
        assert_eq!(rpms.get(PACKAGE), expected.installed.as_ref(), "{name}");
        if expected.installed.is_some() {
            return;
        }
        let yum = match expected.tool.as_str() {
            "yum3" => Yum::Yum,
            "dnf4" => Yum::Dnf,
            "dnf5" => Yum::Dnf5,
            other => panic!("{name}: {other}"),
        };
        let tools = Tools { yum, has_config_manager: expected.has_config_manager };
        match self.judged(tools) {
            Outcome::Passed(text) => {
                assert!(text.contains(&expected.passed.expect(&name)), "{name}: {text}");
            }
            Outcome::Problem(text, fix) if fix.is_empty() => {
                assert!(text.contains(&expected.told.expect(&name)), "{name}: {text}");
            }
            Outcome::Problem(_, fix) => {
                let here = self.folder.display().to_string();
                let fix: Vec<String> = fix.iter().map(|line| line.replace(&here, "")).collect();
                assert_eq!(fix, [expected.command.expect(&name)], "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn hosts() -> Vec<Host> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repositories");
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| path.is_dir()).map(|folder| Host { folder }).collect()
}

#[test]
fn every_host_gets_the_one_command() {
    let hosts = hosts();
    assert!(hosts.len() > 30, "only {} hosts", hosts.len());
    hosts.iter().for_each(Host::check);
}

#[test]
fn every_row_of_the_table_has_a_host() {
    let commands: String = hosts().iter().map(|host| host.said("expected.toml")).collect();
    for row in ROWS {
        assert!(commands.contains(row.repository), "{} is not tried", row.repository);
    }
}

//! container-selinux: installed, on offer, or in a repository that is off.
//!
//! Which repository has it, and how it is switched on, differs by distribution.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::vault::{self, VAULT};
use super::{Outcome, Subject};
use config::proxy::masked;
use host::clock;
use host::hold::Hold;
use host::machine::Machine;
use host::os::{Family, Os};
use host::subscription;
use host::yum::{Offer, Yum};

const PACKAGE: &str = "container-selinux";

/// The module of Enterprise Linux 8 that it is in.
const MODULE: &str = "container-tools";

pub(super) fn container_selinux(subject: &Subject) -> Outcome {
    let os = match subject.os() {
        Ok(os) if os.family == Family::RedHat => os,
        Ok(os) => {
            return Outcome::Skipped(format!("{} has no rpm packages, so it needs none", os.name));
        }
        Err(error) => return Outcome::unknown(error),
    };
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match subject.rpm(PACKAGE) {
        Ok(Some(version)) => {
            return Outcome::Passed(format!("container-selinux {version} is installed"));
        }
        Ok(None) => {}
        Err(error) => return Outcome::unknown(error),
    }
    match look(&subject.machine, &os) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::unknown(format!("{error:#}")),
    }
}

fn look(machine: &Machine, os: &Os) -> Result<Outcome> {
    let yum = Yum::find()?;
    let tools = Tools { yum, has_config_manager: has_config_manager(yum) };
    let questions = Questions {
        offer: || yum.offer(PACKAGE),
        unprioritized: || yum.offer_without_priorities(machine, PACKAGE),
        disabled: || yum.disabled_repositories(),
        subscribed,
    };
    judge(machine, os, tools, questions)
}

/// Who has no subscription gets an error here, and loses nothing by that.
fn subscribed() -> Vec<String> {
    if which::which("subscription-manager").is_err() {
        return Vec::new();
    }
    subscription::disabled_repositories().unwrap_or_default()
}

/// What repositories are switched on with.
#[derive(Clone, Copy, Debug)]
struct Tools {
    yum: Yum,
    /// yum-utils is installed.
    has_config_manager: bool,
}

/// How a repository is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// yum-config-manager or dnf config-manager.
    ConfigManager,
    /// subscription-manager, which writes the repository's file itself.
    Subscription,
}

/// A distribution's repository that has container-selinux.
struct Row {
    ids: &'static [&'static str],
    majors: std::ops::RangeInclusive<u32>,
    /// The repository's id, or a part of it.
    repository: &'static str,
    switch: Switch,
}

const EL: &[&str] = &["rhel", "centos", "rocky", "almalinux", "ol"];

const ROWS: &[Row] = &[
    row(&["centos"], 7, "extras", Switch::ConfigManager),
    row(&["scientific"], 7, "sl-extras", Switch::ConfigManager),
    row(&["rhel"], 7, "rhel-7-server-extras-rpms", Switch::Subscription),
    row(&["rhel"], 7, "rhel-7-for-power-le-extras-rpms", Switch::Subscription),
    // On AWS; the word REGION is literal.
    row(&["rhel"], 7, "rhui-REGION-rhel-server-extras", Switch::ConfigManager),
    row(&["rhel"], 7, "rhel-7-server-rhui-extras-rpms", Switch::ConfigManager),
    // On Azure, and on arm64.
    row(&["rhel"], 7, "rhui-rhel-7-server-rhui-extras-rpms", Switch::ConfigManager),
    row(&["rhel"], 7, "rhui-rhel-7-for-arm-64-extras-rhui-rpms", Switch::ConfigManager),
    row(&["ol"], 7, "ol7_addons", Switch::ConfigManager),
    Row { ids: EL, majors: 8..=99, repository: "appstream", switch: Switch::ConfigManager },
    row(&["amzn"], 2023, "amazonlinux", Switch::ConfigManager),
    Row { ids: &["fedora"], majors: 1..=999, repository: "fedora", switch: Switch::ConfigManager },
];

const fn row(
    ids: &'static [&'static str],
    major: u32,
    repository: &'static str,
    switch: Switch,
) -> Row {
    Row { ids, majors: major..=major, repository, switch }
}

/// Each is asked only where the answers before it will not do, for it takes a
/// second or two.
struct Questions<O, U, D, S> {
    offer: O,
    unprioritized: U,
    disabled: D,
    subscribed: S,
}

fn judge(
    machine: &Machine,
    os: &Os,
    tools: Tools,
    questions: Questions<
        impl FnOnce() -> Result<Offer>,
        impl FnOnce() -> Result<Offer>,
        impl FnOnce() -> Result<Vec<String>>,
        impl FnOnce() -> Vec<String>,
    >,
) -> Result<Outcome> {
    let offer = (questions.offer)()?;
    if let Offer::By(repository) = &offer {
        return Ok(Outcome::Passed(format!(
            "the repository {repository} has it; it is installed with the agent"
        )));
    }
    let dead = match (os.id.as_str(), os.major()) {
        ("centos", 7 | 8) => vault::dead_repositories(machine)?,
        _ => Vec::new(),
    };
    if let Offer::Unreadable { repository: Some(unreadable), .. } = &offer
        && dead.iter().any(|repository| repository.id == *unreadable)
    {
        return Ok(Outcome::Problem(
            format!(
                "{} is past its end of life, and the list of its mirrors is gone, so yum can \
                 install nothing at all; {VAULT} keeps its last packages",
                os.name
            ),
            vault::move_to_the_vault(os, &dead),
        ));
    }
    if os.id == "amzn" && os.major() == 2 {
        return Ok(Outcome::Problem(
            format!("{PACKAGE} is in the topic selinux-ng, which is off"),
            vec!["amazon-linux-extras enable selinux-ng".to_owned()],
        ));
    }
    let has_it = |id: &str| row_for(os, id).is_some();
    if offer == Offer::Nowhere {
        if let Some(filter) = tools.yum.filter(machine, PACKAGE, MODULE, has_it) {
            return Ok(is_hidden(filter));
        }
        if tools.yum.has_priorities(machine)
            && let Offer::By(id) = (questions.unprioritized)()?
            && let Some(filter) = tools.yum.priority_filter(machine, &id)
        {
            return Ok(is_hidden(filter));
        }
    }
    if let Some((id, row)) = switched_off(os, &(questions.disabled)()?) {
        let mut commands = Vec::new();
        if dead.iter().any(|repository| repository.id == id) {
            commands = vault::move_to_the_vault(os, &dead);
        }
        commands.push(enable(&id, row.switch, tools));
        return Ok(is_off(&id, commands));
    }
    if os.id == "rhel"
        && let Some((id, _)) = switched_off(os, &(questions.subscribed)())
    {
        return Ok(is_off(&id, vec![subscribe(&id)]));
    }
    Ok(match offer {
        Offer::Unreadable { repository, why } => {
            let proxy = tools.yum.configured_proxy(machine, repository.as_deref());
            let way = proxy.map_or_else(String::new, |(proxy, place)| {
                format!(" through the proxy {}, which {place} sets", masked(&proxy))
            });
            let which = repository.map_or_else(
                || "its repositories".to_owned(),
                |id| format!("the repository {id}, which is enabled"),
            );
            let program = tools.yum.program();
            let clock =
                clock::advice(&why).map_or_else(String::new, |advice| format!("\n{advice}"));
            Outcome::problem(format!(
                "{program} cannot read {which}{way}; fix that first:\n{why}{clock}"
            ))
        }
        _ => Outcome::Problem(
            format!("no repository that is set up here has {PACKAGE}{}", where_else(os)),
            vault::put_back(machine, os)?.into_iter().collect(),
        ),
    })
}

fn is_hidden(filter: Hold) -> Outcome {
    Outcome::Problem(format!("{PACKAGE} is hidden: {}", filter.by), vec![filter.release])
}

fn is_off(id: &str, commands: Vec<String>) -> Outcome {
    Outcome::Problem(format!("{PACKAGE} is in the repository {id}, which is off"), commands)
}

/// The id of the table's repository that is off, and its row; the shortest id
/// where there are several, for the longer ones are of its kin.
fn switched_off(os: &Os, disabled: &[String]) -> Option<(String, &'static Row)> {
    disabled
        .iter()
        .filter_map(|id| Some((id.clone(), row_for(os, id)?)))
        .min_by_key(|(id, _)| id.len())
}

fn row_for(os: &Os, id: &str) -> Option<&'static Row> {
    let side = ["debug", "source", "src"].iter().any(|word| id.contains(word));
    ROWS.iter().find(|row| {
        let whole = row.repository != "appstream";
        let same = if whole { id == row.repository } else { id.contains(row.repository) };
        row.ids.contains(&distribution(os)) && row.majors.contains(&os.major()) && same && !side
    })
}

/// What a system that says it is like another counts as.
fn distribution(os: &Os) -> &str {
    if os.guessed { "rhel" } else { &os.id }
}

fn enable(id: &str, switch: Switch, tools: Tools) -> String {
    match switch {
        Switch::Subscription => subscribe(id),
        Switch::ConfigManager if tools.yum == Yum::Dnf5 => {
            format!("dnf config-manager setopt {id}.enabled=1")
        }
        Switch::ConfigManager if tools.yum == Yum::Dnf && tools.has_config_manager => {
            format!("dnf config-manager --set-enabled {id}")
        }
        Switch::ConfigManager if tools.yum == Yum::Dnf => {
            format!("dnf -y install dnf-plugins-core && dnf config-manager --set-enabled {id}")
        }
        Switch::ConfigManager if tools.has_config_manager => {
            format!("yum-config-manager --enable {id}")
        }
        Switch::ConfigManager => {
            format!("yum -y install yum-utils && yum-config-manager --enable {id}")
        }
    }
}

fn subscribe(id: &str) -> String {
    format!("subscription-manager repos --enable={id}")
}

/// Whether what switches repositories on is installed: of yum 3 a program of its
/// own, of dnf 4 a plugin.
fn has_config_manager(yum: Yum) -> bool {
    match yum {
        Yum::Yum => which::which("yum-config-manager").is_ok(),
        Yum::Dnf => dnf_plugins().any(|folder| folder.join("config_manager.py").exists()),
        Yum::Dnf5 => true,
    }
}

/// /usr/lib/python3.6/site-packages/dnf-plugins and the like; Debian's dnf has it
/// below python3/dist-packages.
fn dnf_plugins() -> impl Iterator<Item = PathBuf> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    libraries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name)))
        .map(|packages| packages.join("dnf-plugins"))
}

fn where_else(os: &Os) -> &'static str {
    match (os.id.as_str(), os.major()) {
        ("rhel", 7) => {
            "; on a registered system `subscription-manager repos \
             --enable=rhel-7-server-extras-rpms` adds it"
        }
        ("centos", 7) => "; its repository `extras` is missing from /etc/yum.repos.d",
        ("centos", 8) => "; its repository `appstream` is missing from /etc/yum.repos.d",
        ("amzn", _) => "; the repository `amazonlinux` has it",
        ("fedora", _) => "; the repository `fedora` has it",
        ("rhel", _) => "; is this system registered? AppStream has it",
        _ => "; AppStream has it on systems like this one",
    }
}

#[cfg(test)]
mod tests;

//! container-selinux: installed, on offer, or in a repository that is off.
//!
//! Which repository has it, and how it is switched on, differs by distribution.

use super::{Outcome, Subject};
use crate::host::os::{Family, Os};
use crate::host::rpm;
use crate::host::yum::{Offer, Repository, Yum};

const PACKAGE: &str = "container-selinux";

pub fn container_selinux(subject: &Subject) -> Outcome {
    let os = match subject.os() {
        Ok(os) if os.family == Family::RedHat => os,
        Ok(os) => {
            return Outcome::Skipped(format!("{} has no rpm packages, so it needs none", os.name));
        }
        Err(error) => return Outcome::could_not_look(error),
    };
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match rpm::installed(PACKAGE) {
        Ok(Some(version)) => return Outcome::Passed(format!("{version} is installed")),
        Ok(None) => {}
        Err(error) => return Outcome::could_not_look(error),
    }
    let found = Yum::find().and_then(|yum| {
        let tools = Tools { yum, has_config_manager: which::which("yum-config-manager").is_ok() };
        Ok((yum.offer(PACKAGE)?, yum.repositories()?, tools))
    });
    match found {
        Ok((offer, repositories, tools)) => judge(&os, &offer, &repositories, tools),
        Err(error) => Outcome::could_not_look(error),
    }
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
];

const fn row(
    ids: &'static [&'static str],
    major: u32,
    repository: &'static str,
    switch: Switch,
) -> Row {
    Row { ids, majors: major..=major, repository, switch }
}

/// CentOS 7 and 8 are past their end of life: what their mirror lists named has
/// moved to the vault for good.
const VAULT: &str = "vault.centos.org";

fn judge(os: &Os, offer: &Offer, repositories: &[Repository], tools: Tools) -> Outcome {
    match offer {
        Offer::By(repository) => {
            return Outcome::Passed(format!(
                "the repository {repository} has it; it is installed with the agent"
            ));
        }
        Offer::Unreadable(why) if lost_its_mirrors(os, why) => {
            return Outcome::Problem(
                format!(
                    "{} is past its end of life, and the list of its mirrors is gone, so yum can \
                     install nothing at all; {VAULT} keeps its last packages",
                    os.name
                ),
                vec![to_the_vault(os)],
            );
        }
        _ => {}
    }
    if os.id == "amzn" && os.major() == 2 {
        return Outcome::Problem(
            format!("{PACKAGE} is in the topic selinux-ng, which is off"),
            vec!["amazon-linux-extras enable selinux-ng".to_owned()],
        );
    }
    let off = repositories.iter().filter(|repository| !repository.enabled);
    let matching = off.filter_map(|repository| Some((repository, row_for(os, repository)?)));
    if let Some((repository, row)) = matching.min_by_key(|(repository, _)| repository.id.len()) {
        return Outcome::Problem(
            format!("{PACKAGE} is in the repository {}, which is off", repository.id),
            vec![enable(&repository.id, row.switch, os, tools)],
        );
    }
    match offer {
        Offer::Unreadable(why) => {
            let yum = tools.yum.program();
            Outcome::problem(format!("{yum} can't read its repositories; mend that first:\n{why}"))
        }
        _ => Outcome::problem(format!(
            "no repository that is set up here has {PACKAGE}{}",
            where_else(os)
        )),
    }
}

fn row_for(os: &Os, repository: &Repository) -> Option<&'static Row> {
    let id = &repository.id;
    let side = ["debug", "source", "src"].iter().any(|word| id.contains(word));
    ROWS.iter().find(|row| {
        let whole = row.repository != "appstream";
        let same = if whole { *id == row.repository } else { id.contains(row.repository) };
        row.ids.contains(&distribution(os)) && row.majors.contains(&os.major()) && same && !side
    })
}

/// What a system that says it is like another counts as.
fn distribution(os: &Os) -> &str {
    if os.guessed { "rhel" } else { &os.id }
}

fn enable(id: &str, switch: Switch, os: &Os, tools: Tools) -> String {
    match switch {
        Switch::Subscription => format!("subscription-manager repos --enable={id}"),
        Switch::ConfigManager if tools.yum == Yum::Dnf5 => {
            format!("dnf config-manager setopt {id}.enabled=1")
        }
        Switch::ConfigManager if os.major() >= 8 => {
            format!("dnf config-manager --set-enabled {id}")
        }
        Switch::ConfigManager if tools.has_config_manager => {
            format!("yum-config-manager --enable {id}")
        }
        Switch::ConfigManager => {
            format!("yum -y install yum-utils && yum-config-manager --enable {id}")
        }
    }
}

fn lost_its_mirrors(os: &Os, why: &str) -> bool {
    // yum 3 and dnf 4, each for a list that answers with nothing and for a name
    // that is not known any more.
    let lost = ["mirrorlist.centos.org", "Cannot find a valid baseurl", "No URLs in mirrorlist"];
    os.id == "centos" && os.major() <= 8 && lost.iter().any(|text| why.contains(text))
}

fn to_the_vault(os: &Os) -> String {
    let release = if os.major() == 7 { "7.9.2009" } else { "8.5.2111" };
    let old = if os.major() == 7 { "centos/\\$releasever" } else { "\\$contentdir/\\$releasever" };
    format!(
        "sed -i -e 's|^mirrorlist=|#mirrorlist=|' \
         -e 's|^#* *baseurl=http://mirror.centos.org/{old}|baseurl=http://{VAULT}/{release}|' \
         /etc/yum.repos.d/CentOS-*.repo"
    )
}

fn where_else(os: &Os) -> &'static str {
    match (os.id.as_str(), os.major()) {
        ("rhel", 7) => {
            "; on a registered system `subscription-manager repos \
             --enable=rhel-7-server-extras-rpms` brings it"
        }
        ("centos", 7) => "; its repository `extras` is missing from /etc/yum.repos.d",
        ("rhel", _) => "; is this system registered? AppStream has it",
        _ => "; AppStream has it on systems like this one",
    }
}

#[cfg(test)]
mod tests;

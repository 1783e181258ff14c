//! The operating system, the processor and systemd.

use super::{Outcome, Subject};
use crate::host::os::{Family, Os};
use crate::host::systemd as services;

/// The oldest systemd that the units are valid on: that of CentOS 7.
const OLDEST_SYSTEMD: u32 = 219;

pub fn os(subject: &Subject) -> Outcome {
    match subject.os() {
        Ok(os) => judge_os(&os),
        Err(error) => Outcome::problem(format!("{error:#}")),
    }
}

pub fn architecture(_: &Subject) -> Outcome {
    match std::env::consts::ARCH {
        known @ ("x86_64" | "aarch64") => Outcome::Passed(known.to_owned()),
        other => {
            Outcome::problem(format!("there are packages for x86_64 and aarch64, not {other}"))
        }
    }
}

pub fn systemd(subject: &Subject) -> Outcome {
    let machine = &subject.machine;
    match services::version(machine) {
        None => Outcome::problem("there is no systemd, which runs the agent and its engine"),
        Some(version) if version < OLDEST_SYSTEMD => Outcome::problem(format!(
            "systemd {version} is too old; the units need {OLDEST_SYSTEMD} or newer"
        )),
        Some(_) if machine.is_this_one() && !machine.has_running_systemd() => Outcome::problem(
            "systemd is installed, but is not what started this host (a container?); \
             run the agent's container image instead",
        ),
        Some(version) => Outcome::Passed(format!("systemd {version}")),
    }
}

fn judge_os(os: &Os) -> Outcome {
    let oldest = match os.id.as_str() {
        "debian" => 10,
        "ubuntu" => 18,
        "amzn" => 2,
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "scientific" => 7,
        _ => 0,
    };
    match os.family {
        Family::Other => Outcome::problem(format!("{} has neither apt nor yum or dnf", os.name)),
        _ if !os.version.is_empty() && os.major() < oldest => {
            Outcome::problem(format!("{} is too old; {} {oldest} is the oldest", os.name, os.id))
        }
        _ if os.guessed => Outcome::Warning(format!(
            "{} was not tried; it says that it is like one that was",
            os.name
        )),
        _ => Outcome::Passed(os.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use os_release::OsRelease;

    use super::*;

    fn judge(text: &str) -> Outcome {
        judge_os(&Os::from(text.split(' ').map(str::to_owned).collect::<OsRelease>()))
    }

    #[test]
    fn which_systems_will_do() {
        for known in [
            "ID=centos VERSION_ID=7",
            "ID=rhel VERSION_ID=7.9",
            "ID=ol VERSION_ID=8.10",
            "ID=ubuntu VERSION_ID=18.04",
            "ID=debian VERSION_ID=13",
            "ID=debian",
            "ID=amzn VERSION_ID=2",
            "ID=amzn VERSION_ID=2023",
            "ID=fedora VERSION_ID=42",
        ] {
            assert!(matches!(judge(known), Outcome::Passed(_)), "{known}");
        }
        for bad in ["ID=centos VERSION_ID=6.10", "ID=ubuntu VERSION_ID=16.04", "ID=alpine"] {
            assert!(matches!(judge(bad), Outcome::Problem(..)), "{bad}");
        }
        let mint = judge("ID=linuxmint ID_LIKE=ubuntu VERSION_ID=21");
        assert!(matches!(mint, Outcome::Warning(_)));
    }
}

//! The Docker engine that runs use, and their networks.

use std::path::{Path, PathBuf};

use super::{Outcome, Subject};
use crate::config::ENGINE;
use crate::host::{docker, iptables as firewall};
use crate::setup::network;

/// Where the package puts the private engine.
pub const BUNDLE: &str = "/usr/lib/scalr-agent/engine";

/// The programs that dockerd starts, besides itself.
const PROGRAMS: [&str; 5] =
    ["dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-init"];

/// The oldest engine of the host's own that will do.
const OLDEST_DOCKER: u32 = 18;

pub fn engine(subject: &Subject) -> Outcome {
    if subject.engine == ENGINE {
        private_engine(subject)
    } else {
        hosts_engine(subject, &subject.engine)
    }
}

pub fn iptables(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match firewall::find() {
        Some(file) => Outcome::Passed(file.display().to_string()),
        None if subject.before_install => {
            Outcome::Skipped("it comes with the package scalr-agent".to_owned())
        }
        None => Outcome::problem(
            "iptables is not installed; the package scalr-agent brings it, or install it",
        ),
    }
}

pub fn addresses(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match network::range(&subject.machine) {
        Ok(ranges) => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            Outcome::Passed(format!("{} is free", ranges.join(", ")))
        }
        Err(error) => Outcome::problem(format!("{error:#}")),
    }
}

fn private_engine(subject: &Subject) -> Outcome {
    let bundle = subject.machine.path(BUNDLE);
    if !bundle.exists() {
        return Outcome::Skipped("the private engine comes with the package".to_owned());
    }
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|program| !bundle.join(program).exists()).collect();
    if !missing.is_empty() {
        return Outcome::problem(format!(
            "{BUNDLE} lacks {}; install the package scalr-agent again",
            missing.join(", ")
        ));
    }
    let socket = ENGINE.trim_start_matches("unix://");
    if !subject.machine.is_this_one() || !Path::new(socket).exists() {
        return Outcome::Passed(format!("the private engine is in {BUNDLE}"));
    }
    match docker::engine_version(&bundle.join("docker"), ENGINE) {
        Ok(version) => Outcome::Passed(format!("the private engine {version} answers")),
        Err(error) => Outcome::could_not_look(error),
    }
}

fn hosts_engine(subject: &Subject, socket: &str) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let Ok(client) = which::which("docker").or_else(|_| bundled_client(subject)) else {
        return Outcome::problem(format!(
            "runs are to use the engine at {socket}, but Docker is not installed"
        ));
    };
    match docker::engine_version(&client, socket) {
        Err(error) => Outcome::problem(format!("the engine at {socket} does not answer: {error}")),
        Ok(version) => judge_docker(&version),
    }
}

fn bundled_client(subject: &Subject) -> Result<PathBuf, which::Error> {
    which::which(subject.machine.path(BUNDLE).join("docker"))
}

fn judge_docker(version: &str) -> Outcome {
    let major = version.split('.').next().and_then(|number| number.parse::<u32>().ok());
    match major {
        Some(major) if major < OLDEST_DOCKER => Outcome::problem(format!(
            "the host's Docker {version} is too old; {OLDEST_DOCKER} is the oldest that will do"
        )),
        Some(_) => Outcome::Passed(format!("the host's Docker {version} answers")),
        None => Outcome::CouldNotLook(format!("Docker says that its version is `{version}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_docker_will_not_do() {
        assert!(matches!(judge_docker("1.13.1"), Outcome::Problem(..)));
        assert!(matches!(judge_docker("17.12.1-ce"), Outcome::Problem(..)));
        assert!(matches!(judge_docker("18.09.1"), Outcome::Passed(_)));
        assert!(matches!(judge_docker("20.10.24+dfsg1"), Outcome::Passed(_)));
        assert!(matches!(judge_docker(""), Outcome::CouldNotLook(_)));
    }
}

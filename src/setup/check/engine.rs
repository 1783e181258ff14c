//! The Docker engine that runs use, and the host's own.

use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Outcome, Subject};
use config::ENGINE;
use config::layout::{self, ENGINE_PROGRAMS};
use host::docker;
use host::engine::{self, Identity};

/// The programs that dockerd starts, besides itself.
const PROGRAMS: [&str; 5] =
    ["dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-init"];

/// The oldest engine of the host's own that will do.
const OLDEST_DOCKER: u32 = 18;

pub(super) fn engine(subject: &Subject) -> Outcome {
    if subject.is_bundled() {
        private_engine(subject)
    } else {
        hosts_engine(subject, &subject.engine)
    }
}

/// One that runs do not use: whatever it is, the private one lives beside it.
pub(super) fn host_engine(subject: &Subject) -> Outcome {
    if !subject.is_bundled() {
        return Outcome::Skipped("runs use it; see the check engine".to_owned());
    }
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let Ok(client) = which::which("docker") else {
        return Outcome::Skipped("this host has no Docker of its own".to_owned());
    };
    match docker::client_version(&client) {
        Ok(said) => judge_host_engine(&said),
        Err(error) => Outcome::unknown(error),
    }
}

/// dockerd refuses to start where one is listening already.
pub(super) fn sockets(subject: &Subject) -> Outcome {
    if !subject.is_bundled() {
        return Outcome::Skipped("the private engine is not used".to_owned());
    }
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    if subject.is_active(layout::ENGINE_UNIT) {
        return Outcome::Passed("scalr-docker listens; the agent listens on no port".to_owned());
    }
    // scalr-containerd outlives scalr-docker.
    let ours = [
        (layout::ENGINE_UNIT, ENGINE.trim_start_matches("unix://")),
        (layout::CONTAINERD_UNIT, layout::CONTAINERD_SOCKET),
    ];
    for (_, socket) in ours.into_iter().filter(|(unit, _)| !subject.is_active(unit)) {
        match UnixStream::connect(socket) {
            Ok(_) => {
                return Outcome::problem(format!(
                    "something else than the private engine listens on {socket}; \
                     `fuser -v {socket}` names it: stop it"
                ));
            }
            // Nothing there, or what one that has ended left behind.
            Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => {}
            Err(error) => return Outcome::Unknown(format!("{socket}: {error}")),
        }
    }
    Outcome::Passed(
        "the private engine's sockets are free; the agent listens on no port".to_owned(),
    )
}

fn private_engine(subject: &Subject) -> Outcome {
    let bundle = subject.machine.path(ENGINE_PROGRAMS);
    if !bundle.exists() {
        return Outcome::Skipped("the private engine comes with the package".to_owned());
    }
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|program| !bundle.join(program).exists()).collect();
    if !missing.is_empty() {
        return Outcome::problem(format!(
            "{ENGINE_PROGRAMS} lacks {}; install the package scalr-agent again",
            missing.join(", ")
        ));
    }
    let socket = ENGINE.trim_start_matches("unix://");
    if !subject.machine.is_this_one() || !Path::new(socket).exists() {
        return Outcome::Passed(format!("the private engine is in {ENGINE_PROGRAMS}"));
    }
    match docker::engine_version(&bundle.join("docker"), ENGINE) {
        Ok(version) => Outcome::Passed(format!("the private engine {version} answers")),
        Err(error) => Outcome::unknown(error),
    }
}

fn hosts_engine(subject: &Subject, address: &str) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let socket = Path::new(address.trim_start_matches("unix://"));
    if !socket.exists() {
        return Outcome::problem(format!(
            "no engine listens at {address}; install and start Docker, or leave runs to the \
             private engine with --engine bundled"
        ));
    }
    let identity = match Identity::at(socket) {
        Err(error) if is_forbidden(&error) => {
            return Outcome::Unknown(format!("only root and its group may use {address}"));
        }
        Err(error) => {
            return Outcome::problem(format!("the engine at {address} does not answer: {error:#}"));
        }
        Ok(identity) => identity,
    };
    if let Some(refusal) = identity.refusal() {
        return Outcome::problem(format!("runs cannot use the engine at {address}: {refusal}"));
    }
    match engine::socket_group(socket) {
        Err(error) => {
            Outcome::problem(format!("the agent may not use the host's Docker: {error:#}"))
        }
        Ok(group) => {
            let whose = group.map_or("everybody".to_owned(), |group| format!("the group {group}"));
            let version = identity.version();
            Outcome::Passed(format!("the host's Docker {version} answers; {whose} may use it"))
        }
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(PermissionDenied)
}

/// `Docker version 1.13.1, build 7f2769b/1.13.1`, or Podman under that name.
fn judge_host_engine(said: &str) -> Outcome {
    let Some(rest) = said.strip_prefix("Docker version ") else {
        return Outcome::Passed(format!(
            "the program docker is not Docker ({}), and is left alone: runs use the private engine",
            said.lines().next().unwrap_or_default()
        ));
    };
    let version = rest.split([',', ' ']).next().unwrap_or_default();
    let age = match major(version) {
        Some(major) if major < OLDEST_DOCKER => {
            format!(", too old for runs ({OLDEST_DOCKER} is the oldest supported version),")
        }
        _ => String::new(),
    };
    Outcome::Passed(format!(
        "the host's own Docker {version}{age} is left alone: runs use the private engine"
    ))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use host::machine::Machine;

    /// A socket where an engine answers as it was recorded.
    fn engine_at(socket: &Path, recorded: &'static str) {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            for question in ["version", "info"] {
                let file = format!("../host/recorded/engines/{recorded}-{question}.json");
                let answer = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]);
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
    }

    #[test]
    fn an_unsupported_engine_is_refused_by_name() {
        for (recorded, name) in
            [("podman-4.3.1", "Podman 4.3.1"), ("docker-20.10.24-rootless", "rootless Docker")]
        {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("docker.sock");
            engine_at(&socket, recorded);
            let mut subject = Subject::of(&Machine::at("/")).unwrap();
            subject.engine = format!("unix://{}", socket.display());
            let Outcome::Problem(text, _) = engine(&subject) else { panic!("{recorded}") };
            assert!(text.contains(name) && text.contains("--engine bundled"), "{text}");
        }
    }

    #[test]
    fn the_hosts_own_is_named() {
        for (said, message) in [
            ("Docker version 1.13.1, build 7f2769b/1.13.1", "Docker 1.13.1, too old for runs"),
            ("Docker version 26.1.4, build 5650f9b", "Docker 26.1.4 is left alone"),
            ("podman version 4.9.4-rhel", "not Docker (podman version 4.9.4-rhel)"),
        ] {
            let Outcome::Passed(text) = judge_host_engine(said) else { panic!() };
            assert!(text.contains(message), "{text}");
        }
    }
}

//! A container engine on a local socket: what it is, and which group may use it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// How long an engine may take for a part of its answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Far more than an engine says of itself.
const LONGEST_ANSWER: u64 = 4 * 1024 * 1024;

/// The API of Docker 18.03.
const OLDEST_API: (u32, u32) = (1, 37);

const WHAT_TO_DO: &str = "Runs need a Docker 18.03 or newer whose dockerd runs as root. Name its \
    socket, or use the private engine (`scalr-agent-setup install --engine bundled`, or \
    `scalr-agent configure --unset engine`).";

/// What an engine says of itself.
#[derive(Debug)]
pub struct Identity {
    version: Version,
    info: Info,
}

/// The answer to `GET /version`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Version {
    version: String,
    api_version: String,
    components: Option<Vec<Component>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

/// The answer to `GET /info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    security_options: Option<Vec<String>>,
}

impl Identity {
    /// Asks the engine that listens on `socket`.
    ///
    /// # Errors
    /// Nothing answers there, or not like an engine.
    pub fn at(socket: &Path) -> Result<Self> {
        Self::of(&get(socket, "/version")?, &get(socket, "/info")?)
    }

    /// As an engine answers to `GET /version` and `GET /info`.
    ///
    /// # Errors
    /// The answers are not those of an engine.
    pub fn of(version: &[u8], info: &[u8]) -> Result<Self> {
        let version =
            serde_json::from_slice(version).context("the engine's version cannot be read")?;
        let info = serde_json::from_slice(info).context("the engine's answer cannot be read")?;
        Ok(Self { version, info })
    }

    /// For example `26.1.4`.
    pub fn version(&self) -> &str {
        &self.version.version
    }

    /// Why runs cannot use this engine, and what to do; `None` if they can.
    pub fn refusal(&self) -> Option<String> {
        let version = self.version();
        let why = if self.is_podman() {
            format!("it is Podman {version}, not Docker")
        } else if self.is_rootless() {
            format!(
                "it is a rootless Docker ({version}), whose networks the firewall rules of runs \
                 do not reach"
            )
        } else if api(&self.version.api_version).is_some_and(|api| api < OLDEST_API) {
            format!("Docker {version} is too old")
        } else {
            return None;
        };
        Some(format!("{why}\n{WHAT_TO_DO}"))
    }

    fn is_podman(&self) -> bool {
        self.version.components.iter().flatten().any(|part| part.name == "Podman Engine")
    }

    fn is_rootless(&self) -> bool {
        self.info.security_options.iter().flatten().any(|option| option == "name=rootless")
    }
}

/// The group whose members may use the engine's socket; `None` if everybody may.
///
/// # Errors
/// No socket is there, or membership in a group does not suffice or gives too much.
pub fn socket_group(socket: &Path) -> Result<Option<String>> {
    let shown = socket.display();
    let metadata = fs::metadata(socket).with_context(|| format!("cannot look at {shown}"))?;
    if !metadata.file_type().is_socket() {
        bail!("{shown} is not a socket");
    }
    group_of(metadata.mode(), metadata.gid()).with_context(|| format!("cannot use {shown}"))
}

fn group_of(mode: u32, gid: u32) -> Result<Option<String>> {
    let may = |bits: u32| mode & bits == bits;
    if may(0o006) {
        return Ok(None);
    }
    if gid == 0 {
        bail!(
            "its group is root, which the agent must not be in\n\
             Make a group for it and restart Docker: `groupadd --system docker`, then \
             `systemctl restart docker.socket docker`."
        );
    }
    if !may(0o060) {
        bail!("its group may not write to it (mode {:03o})", mode & 0o777);
    }
    // systemd takes no number that has no name.
    let Some(group) = users::get_group_by_gid(gid) else {
        bail!(
            "its group {gid} has no name on this host\n\
             Give it one: `groupadd --system --gid {gid} docker-socket`."
        );
    };
    Ok(Some(group.name().to_string_lossy().into_owned()))
}

/// The body of the answer to a request. By HTTP/1.0, so that it ends with the connection.
fn get(socket: &Path, path: &str) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: an engine may answer before it has read the rest.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(&answer)? else {
        bail!("the answer to GET {path} was cut off");
    };
    match head.code {
        Some(200) => Ok(answer.split_off(end)),
        status => bail!(
            "GET {path} was answered by {} {}",
            status.unwrap_or_default(),
            head.reason.unwrap_or_default()
        ),
    }
}

/// `1.41` as a pair of numbers.
fn api(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn recorded(engine: &str, question: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded/engines");
        fs::read(format!("{folder}/{engine}-{question}.json")).unwrap()
    }

    fn refusal(engine: &str) -> Option<String> {
        let (version, info) = (recorded(engine, "version"), recorded(engine, "info"));
        Identity::of(&version, &info).unwrap().refusal()
    }

    fn refusal_of_version(version: &str, api: &str) -> Option<String> {
        let version = format!(r#"{{"Version": "{version}", "ApiVersion": "{api}"}}"#);
        Identity::of(version.as_bytes(), b"{}").unwrap().refusal()
    }

    #[test]
    fn podman_and_rootless_docker_are_refused_by_name() {
        let podman = refusal("podman-4.3.1").unwrap();
        assert!(podman.starts_with("it is Podman 4.3.1, not Docker\n"), "{podman}");
        assert!(podman.contains("--unset engine"), "{podman}");
        let rootless = refusal("docker-20.10.24-rootless").unwrap();
        assert!(rootless.starts_with("it is a rootless Docker (20.10.24+dfsg1)"), "{rootless}");
    }

    #[test]
    fn the_api_of_docker_18_03_is_the_oldest_that_will_do() {
        for (version, api) in [("1.13.1", "1.26"), ("17.12.1-ce", "1.35"), ("18.02.0-ce", "1.36")] {
            let said = refusal_of_version(version, api).unwrap();
            assert!(said.starts_with(&format!("Docker {version} is too old\n")), "{said}");
        }
        for (version, api) in [("18.03.1-ce", "1.37"), ("26.1.4", "1.45"), ("", "")] {
            assert_eq!(refusal_of_version(version, api), None, "{version}");
        }
    }

    #[test]
    fn an_engine_is_asked_over_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        assert!(Identity::at(&socket).is_err(), "nothing listens");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            for question in ["version", "info"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]);
                stream.write_all(b"HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n").unwrap();
                stream.write_all(&recorded("podman-4.3.1", question)).unwrap();
            }
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap();
        });
        let engine = Identity::at(&socket).unwrap();
        assert_eq!(engine.version(), "4.3.1");
        assert!(engine.refusal().is_some());
        let error = Identity::at(&socket).unwrap_err();
        assert!(error.to_string().contains("404 Not Found"), "{error}");
    }

    #[test]
    fn the_sockets_own_group_counts() {
        let group = (1..1000).find_map(users::get_group_by_gid).unwrap();
        let name = group.name().to_str().unwrap().to_owned();
        assert_eq!(group_of(0o660, group.gid()).unwrap(), Some(name));
        assert_eq!(group_of(0o666, 0).unwrap(), None);
        let refused = |mode, gid| group_of(mode, gid).unwrap_err().to_string();
        assert!(refused(0o660, 0).contains("groupadd --system docker"));
        assert!(refused(0o600, group.gid()).contains("mode 600"));
        assert!(refused(0o660, 3_999_999_999).contains("groupadd --system --gid 3999999999"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(socket_group(file.path()).unwrap_err().to_string().ends_with("is not a socket"));
    }
}

//! The agent of the trial: its program, and the engine that it uses.

use std::env;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use protocol::Secret;

/// The agent's program.
const PROGRAM: &str = "scalr-agent";

/// The sockets of Docker and of the engine in the agent's package.
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/run/scalr-docker/docker.sock"];

/// What an agent needs on this machine.
pub(super) struct Needs {
    pub(super) program: PathBuf,
    pub(super) engine: PathBuf,
}

impl Needs {
    /// Looks for them, but for what is given.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(super) fn find(program: Option<&Path>, engine: Option<&Path>) -> Result<Self, String> {
        Ok(Self { engine: find_engine(engine)?, program: find_program(program)? })
    }

    /// The command that runs an agent with its data in `folder`.
    pub(super) fn command(&self, url: &str, token: &Secret, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["run", "--config"])
            .arg(folder.join("agent.toml"))
            .env("SCALR_URL", url)
            .env("SCALR_AGENT_TOKEN", token.expose())
            .env("SCALR_AGENT_NAME", "trial")
            .env("SCALR_AGENT_CONCURRENCY", "1")
            .env("SCALR_AGENT_DATA_DIR", folder.join("agent"))
            .env("SCALR_AGENT_ENGINE", format!("unix://{}", self.engine.display()))
            // The rules are those of an installed agent.
            .env("SCALR_AGENT_FIREWALL", "none")
            .env("SCALR_AGENT_WORKER_GRACE_SHUTDOWN_TIMEOUT", "10");
        command
    }
}

fn find_engine(given: Option<&Path>) -> Result<PathBuf, String> {
    let engine = match given {
        Some(given) => given.to_owned(),
        None => {
            SOCKETS.iter().map(PathBuf::from).find(|path| is_socket(path)).ok_or_else(|| {
                format!(
                    "there is no Docker socket ({})\n\
                 Install and start Docker, or name its socket with --engine",
                    SOCKETS.join(", ")
                )
            })?
        }
    };
    match UnixStream::connect(&engine) {
        Ok(_) => Ok(engine),
        Err(error) => Err(format!(
            "cannot connect to the Docker socket {}: {error}\n\
             Start Docker, and run the trial as a user who may use it (group docker, or sudo)",
            engine.display()
        )),
    }
}

fn find_program(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(given) = given {
        return match is_program(given) {
            true => Ok(given.to_owned()),
            false => Err(format!(
                "{} is not a program\nName the agent's program with --agent",
                given.display()
            )),
        };
    }
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(env::split_paths(&path));
    let mut programs = folders.map(|folder| folder.join(PROGRAM));
    programs.find(|program| is_program(program)).ok_or_else(|| {
        format!(
            "there is no {PROGRAM} beside this program or on PATH\n\
             Install the package {PROGRAM}, or name the program with --agent"
        )
    })
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

//! `scalr-server trial`: what it starts, and that nothing is left of it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{install_provider, program};
use tests::programs;

/// How long each step of a trial may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running trial, with its temporary folder in a folder of its own.
struct Trial {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// What it printed until it was up.
    said: String,
    link: String,
    temporary: PathBuf,
}

impl Trial {
    async fn start(folder: &TempDir, options: &[&str]) -> Self {
        Self::of(program(), folder, options).await
    }

    async fn of(mut program: Command, folder: &TempDir, options: &[&str]) -> Self {
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let mut process = program
            .args(["trial", "--listen", "127.0.0.1:0"])
            .args(options)
            .env("TMPDIR", &temporary)
            // Those of an installed server are not for it.
            .env("SCALR_SERVER_PACKAGES", "/nowhere")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let up = async {
            while !said.contains("Press Ctrl-C") {
                let line = output.next_line().await.unwrap();
                said.push_str(&line.expect("the trial ends before it is up"));
                said.push('\n');
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("a trial starts in time");
        let link = said.lines().map(str::trim).find(|line| line.starts_with("http://127.0.0.1:"));
        let link = link.expect("there is a link").to_owned();
        Self { process, output, said, link, temporary }
    }

    fn address(&self) -> &str {
        self.link.strip_prefix("http://").unwrap().split('/').next().unwrap()
    }

    /// Sends a signal, and checks that everything ends and goes.
    async fn ends_without_a_trace(mut self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        assert!(ended.expect("it ends in time").unwrap().success());
        assert!(is_empty(&self.temporary), "{:?}", entries(&self.temporary));
        TcpStream::connect(self.address()).unwrap_err();
        let mut said = String::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            said.push_str(&line);
        }
        assert!(said.contains("Removed the trial."), "{said}");
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn is_empty(folder: &Path) -> bool {
    entries(folder).is_empty()
}

/// A program that stands for the agent: it writes down its settings, and that it was stopped.
fn agent(folder: &Path) -> PathBuf {
    let path = folder.join("scalr-agent");
    let script = format!(
        "#!/bin/sh\nexport -p >{0}/settings.new\nmv {0}/settings.new {0}/settings\n\
         trap 'echo stopped >{0}/stopped; exit 0' TERM\nwhile :; do sleep 0.1; done\n",
        folder.display()
    );
    programs::write(&path, &script);
    path
}

async fn until_there(path: &Path) -> String {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, there).await;
    waited.unwrap_or_else(|_| panic!("there is no {}", path.display()));
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn a_trial_has_a_link_a_workspace_and_an_agent_and_ctrl_c_removes_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("docker.sock");
    let _engine = UnixListener::bind(&engine).unwrap();
    let program = agent(folder.path());
    let (engine, program) = (engine.to_str().unwrap(), program.to_str().unwrap());
    let trial = Trial::start(&folder, &["--engine", engine, "--agent", program]).await;

    install_provider();
    let http = reqwest::Client::new();
    let page = http.get(&trial.link).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("Sign in"));
    let settings = until_there(&folder.path().join("settings")).await;
    assert!(settings.contains(&format!("SCALR_URL='http://{}'", trial.address())), "{settings}");
    assert!(settings.contains(&format!("SCALR_AGENT_ENGINE='unix://{engine}'")), "{settings}");
    assert!(!settings.contains("SCALR_SERVER"), "{settings}");
    let token = settings.lines().find_map(|line| line.split_once("SCALR_AGENT_TOKEN='"));
    let token = token.unwrap().1.trim_end_matches('\'');
    let register = serde_json::json!({
        "name": "trial", "version": "0.1.0", "os": "debian_12", "driver": "docker",
        "platform": "linux_amd64", "concurrency": 1,
    });
    let url = format!("http://{}/api/agent/v1/register", trial.address());
    let registered = http.post(url).bearer_auth(token).json(&register);
    assert_eq!(registered.send().await.unwrap().status(), 201);

    trial.ends_without_a_trace(Signal::SIGINT).await;
    assert_eq!(until_there(&folder.path().join("stopped")).await, "stopped\n");
}

#[tokio::test]
async fn a_trial_without_docker_or_without_the_agents_program_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("docker.sock");
    let engine = engine.to_str().unwrap();
    let trial = Trial::start(&folder, &["--engine", engine]).await;
    let said = &trial.said;
    assert!(said.contains("Agent: none, so runs wait"), "{said}");
    assert!(said.contains(&format!("cannot connect to the Docker socket {engine}")), "{said}");
    trial.ends_without_a_trace(Signal::SIGTERM).await;

    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("docker.sock");
    let _engine = UnixListener::bind(&engine).unwrap();
    // Where it was built, the agent's program may lie beside it.
    let alone = folder.path().join("scalr-server");
    programs::copy(Path::new(program().as_std().get_program()), &alone);
    let mut alone = Command::new(alone);
    alone.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let trial = Trial::of(alone, &folder, &["--engine", engine.to_str().unwrap()]).await;
    let said = &trial.said;
    assert!(said.contains("there is no scalr-agent beside this program or on PATH"), "{said}");
    trial.ends_without_a_trace(Signal::SIGHUP).await;
}

#[tokio::test]
async fn a_trial_listens_on_this_machine_alone_and_says_why_its_server_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (listen, code, why) in [
        ("0.0.0.0:8480", 2, "a trial is for this machine alone"),
        (taken.as_str(), 1, "cannot listen on 127.0.0.1"),
    ] {
        let output =
            program().args(["trial", "--listen", listen]).env("TMPDIR", folder.path()).output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(is_empty(folder.path()), "{:?}", entries(folder.path()));
    }
}

#[tokio::test]
async fn the_server_of_a_killed_trial_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::start(&folder, &["--engine", "/nowhere"]).await;
    TcpStream::connect(trial.address()).unwrap();
    trial.process.kill().await.unwrap();
    let ended = async {
        while TcpStream::connect(trial.address()).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the server ends");
}

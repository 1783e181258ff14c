//! An agent that runs `terraform` in a folder of its own, as the real one does in a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flate2::read::GzDecoder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::{Category, Event, Finish, Kind, Operation, Outcome, PlanSummary, Refresh, Task};
use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::harness::{Agent, Job, Server, Site};

/// The state's file in a run's folder.
const STATE: &str = "run.tfstate";

/// Ends with the test.
pub(crate) struct Working(JoinHandle<()>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts an agent that does one task after the other.
pub(crate) async fn start(server: &Server, site: &Site, name: &str) -> Working {
    let agent = server.agent(site, name).await;
    // All agents have one: another one may apply than has planned.
    let folder = server.data.with_extension("runs");
    let known = Known {
        // As `server` of cli.rs names it.
        host: server.url.replace("https://127.0.0.1", "localhost"),
        ca: server.data.join("tls/ca.pem"),
    };
    Working(tokio::spawn(async move {
        loop {
            let events = agent.events(&[]).await;
            if let [Event::Offer { .. }] = events[..] {
                let job = agent.claim_offer(&events).await;
                work(&agent, &job, &folder, &known).await;
            }
        }
    }))
}

/// What a run knows of the server.
struct Known {
    host: String,
    ca: PathBuf,
}

async fn work(agent: &Agent, job: &Job, folder: &Path, known: &Known) {
    assert_eq!(job.start().await, StatusCode::NO_CONTENT);
    let task = &job.task;
    // A plan has to be applied where it was made.
    let top = folder.join(&task.run_id);
    let folder = match &task.working_directory {
        Some(directory) => top.join(directory),
        None => top.clone(),
    };
    if task.kind == Kind::Plan {
        unpack(&job.get("configuration").await.1, &top);
        prepare(task, &folder);
    }
    let (status, state) = job.get("state").await;
    if status == StatusCode::OK {
        fs::write(folder.join(STATE), state).unwrap();
    }
    let credentials =
        format!("credentials \"{}\" {{\n  token = \"{}\"\n}}\n", known.host, job.run_token);
    fs::write(top.with_extension("tfrc"), credentials).unwrap();
    let environment =
        [("TF_CLI_CONFIG_FILE", top.with_extension("tfrc")), ("SSL_CERT_FILE", known.ca.clone())];
    let mut run = Running { agent, job, folder, environment, log: Vec::new(), is_canceled: false };
    let mut code = run.terraform(&["init", "-input=false"]).await;
    if code == Some(0) {
        code = run.terraform(&arguments(task)).await;
    }
    run.end(code).await;
}

fn unpack(archive: &[u8], folder: &Path) {
    tar::Archive::new(GzDecoder::new(archive)).unpack(folder).unwrap();
}

/// Has the folder keep its state beside it, and gives it the run's variables.
fn prepare(task: &Task, folder: &Path) {
    let backend =
        format!("terraform {{\n  backend \"local\" {{\n    path = \"{STATE}\"\n  }}\n}}\n");
    fs::write(folder.join("zz_override.tf"), backend).unwrap();
    let mut variables = String::new();
    for variable in &task.variables {
        if variable.category == Category::Terraform {
            let value = variable.value.expose();
            let value =
                if variable.hcl { value.to_owned() } else { serde_json::to_string(value).unwrap() };
            variables.push_str(&format!("{} = {value}\n", variable.key));
        }
    }
    fs::write(folder.join("zz.auto.tfvars"), variables).unwrap();
}

fn arguments(task: &Task) -> Vec<String> {
    if task.kind == Kind::Apply {
        return ["apply", "-input=false", "run.plan"].map(str::to_owned).into();
    }
    let mut arguments =
        ["plan", "-input=false", "-detailed-exitcode", "-out=run.plan"].map(str::to_owned).to_vec();
    if task.operation == Operation::Destroy {
        arguments.push("-destroy".to_owned());
    }
    match task.options.refresh {
        Refresh::First => {}
        Refresh::Only => arguments.push("-refresh-only".to_owned()),
        Refresh::Skip => arguments.push("-refresh=false".to_owned()),
    }
    arguments.extend(task.options.targets.iter().map(|target| format!("-target={target}")));
    arguments.extend(task.options.replace.iter().map(|one| format!("-replace={one}")));
    arguments
}

struct Running<'a> {
    agent: &'a Agent,
    job: &'a Job,
    folder: PathBuf,
    environment: [(&'static str, PathBuf); 2],
    log: Vec<u8>,
    is_canceled: bool,
}

impl Running<'_> {
    /// Runs terraform, with its output in the log; interrupts it when the server wants that.
    async fn terraform(&mut self, arguments: &[impl AsRef<str>]) -> Option<i32> {
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec terraform \"$@\" 2>&1", "sh"])
            .args(arguments.iter().map(AsRef::as_ref))
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            // Without a home it reads no credentials.
            .env("HOME", &self.folder)
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut piece = [0; 4096];
        let tasks = [self.job.status()];
        let agent = self.agent.clone();
        let cancel = async {
            while !agent
                .events(&tasks)
                .await
                .iter()
                .any(|event| matches!(event, Event::Cancel { .. }))
            {}
        };
        let mut cancel = std::pin::pin!(cancel);
        loop {
            tokio::select! {
                read = output.read(&mut piece) => match read.unwrap() {
                    0 => break,
                    length => {
                        let text = String::from_utf8_lossy(&piece[..length]).into_owned();
                        let (status, _) = self.job.log(self.log.len() as u64, &text).await;
                        assert_eq!(status, StatusCode::OK);
                        self.log.extend(text.bytes());
                    }
                },
                () = &mut cancel, if !self.is_canceled => {
                    self.is_canceled = true;
                    kill(Pid::from_raw(child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
                }
            }
        }
        child.wait().await.unwrap().code()
    }

    async fn plan_json(&self) -> Vec<u8> {
        let mut command = Command::new("terraform");
        command.args(["show", "-json", "run.plan"]).current_dir(&self.folder);
        let output = command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output();
        output.await.unwrap().stdout
    }

    /// Gives the server what terraform left, and says how it ended.
    async fn end(&mut self, code: Option<i32>) {
        let (job, kind) = (self.job, self.job.task.kind);
        let is_done = code == Some(0) || (kind == Kind::Plan && code == Some(2));
        let outcome = match (is_done, self.is_canceled) {
            (true, _) => Outcome::Finished,
            (false, true) => Outcome::Canceled,
            (false, false) => Outcome::Errored,
        };
        let file = |name: &str| fs::read(self.folder.join(name)).ok();
        let mut summary = None;
        if kind == Kind::Apply {
            if let Some(state) = file(STATE) {
                let (status, text) = job.put_bytes("state", state).await;
                assert!(status.is_success(), "{status} {text}");
            }
        } else if outcome == Outcome::Finished {
            let (status, text) = job.put_bytes("plan", file("run.plan").unwrap()).await;
            assert!(status.is_success(), "{status} {text}");
            let json = self.plan_json().await;
            summary = Some(summary_of(&serde_json::from_slice(&json).unwrap()));
            let (status, text) = job.put_bytes("plan-json", json).await;
            assert!(status.is_success(), "{status} {text}");
        }
        let finish = Finish {
            log_bytes: self.log.len() as u64,
            log_sha256: hex::encode(Sha256::digest(&self.log)),
            exit_code: code.map(i64::from),
            summary,
            ..job.ended(outcome, (kind == Kind::Plan).then_some(code == Some(2)), "")
        };
        let (status, text) = job.say_finish(&finish).await;
        assert_eq!(status, StatusCode::OK, "{text}");
    }
}

/// What a plan does, in numbers; a replacement counts as both.
fn summary_of(plan: &Value) -> PlanSummary {
    let changes = plan["resource_changes"].as_array().into_iter().flatten();
    let actions: Vec<&Value> = changes
        .flat_map(|resource| resource["change"]["actions"].as_array().into_iter().flatten())
        .collect();
    let count = |name: &str| {
        u32::try_from(actions.iter().filter(|action| **action == name).count()).unwrap()
    };
    PlanSummary {
        additions: count("create"),
        changes: count("update"),
        destructions: count("delete"),
        ..PlanSummary::default()
    }
}

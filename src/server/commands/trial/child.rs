//! A program that runs beside the trial, with its output in a file.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cli::eprintln;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child as Process, Command};

/// How many lines of its log an error shows.
const LINES: usize = 10;

/// A running program.
pub(super) struct Child {
    /// What it is, for people.
    name: &'static str,
    process: Process,
    log: PathBuf,
}

impl Child {
    /// Starts a program without the settings of an installed one. It ends with this process.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        for (variable, _) in std::env::vars_os() {
            let is_given = command.as_std().get_envs().any(|(given, _)| given == variable);
            if variable.to_string_lossy().starts_with("SCALR_") && !is_given {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Ctrl-C is for this process, which ends the others in order.
        command.process_group(0).kill_on_drop(true);
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
        }
        let program = command.as_std().get_program().to_owned();
        let process = command
            .spawn()
            .with_context(|| format!("cannot start the {name}, {}", program.display()))?;
        Ok(Self { name, process, log })
    }

    /// Waits for its end, which nobody has asked for; what to say about it.
    pub(super) async fn ended(&mut self) -> String {
        let how = self.process.wait().await;
        self.report(&how.map_or_else(|error| error.to_string(), |status| status.to_string()))
    }

    /// What to say about it if it has ended.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok()??;
        Some(self.report(&status.to_string()))
    }

    /// Asks it to end, and kills it when it takes longer than `patience`.
    pub(super) async fn stop(mut self, patience: Duration) {
        if let Some(id) = self.process.id().and_then(|id| i32::try_from(id).ok()) {
            // An error means that it has just ended.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        if tokio::time::timeout(patience, self.process.wait()).await.is_err() {
            eprintln!("The {} did not end within {} s: killed.", self.name, patience.as_secs());
            let _ = self.process.kill().await;
        }
    }

    fn report(&self, how: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        format!("the {} has ended ({how})\nThe end of its log:\n{}", self.name, last.join("\n"))
    }
}

//! The two programs in the packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::checkout::Checkout;
use super::progress;
use super::symbols::Processor;
use crate::exit::Failure;
use crate::host::command::CommandExt as _;

/// Where the two programs are.
pub struct Programs {
    agent: PathBuf,
    /// scalr-agent-setup.
    pub setup: PathBuf,
}

impl Programs {
    /// Both.
    pub fn both(&self) -> [&Path; 2] {
        [&self.agent, &self.setup]
    }

    fn in_folder(folder: &Path) -> Self {
        Self { agent: folder.join("scalr-agent"), setup: folder.join("scalr-agent-setup") }
    }
}

/// The programs in the folder of `agent`.
///
/// # Errors
/// One of them is not there.
pub fn beside(agent: &Path) -> Result<Programs> {
    let folder = match agent.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let programs = Programs::in_folder(folder);
    if agent.file_name() != programs.agent.file_name() {
        return Err(Failure::Usage.because(format!(
            "--agent should name a file scalr-agent, with scalr-agent-setup beside it, not {}",
            agent.display()
        )));
    }
    for program in programs.both() {
        if !program.is_file() {
            return Err(Failure::Usage.because(format!("there is no {}", program.display())));
        }
    }
    Ok(programs)
}

/// Builds the programs for glibc 2.17, whatever this machine's is.
///
/// # Errors
/// cargo-zigbuild or zig is missing, or building fails.
pub fn build(checkout: &Checkout, processor: Processor) -> Result<Programs> {
    if which::which("cargo-zigbuild").is_err() {
        return Err(Failure::NotInstalled.because(
            "cargo-zigbuild links the programs for old hosts and is not on PATH; install it \
             with zig: pip install cargo-zigbuild ziglang (in a venv whose bin is on PATH)",
        ));
    }
    progress("Building scalr-agent and scalr-agent-setup for glibc 2.17 (some minutes)");
    let mut command = Command::new("cargo");
    command
        .args(["zigbuild", "--release", "--locked", "--no-default-features"])
        .args(["--features", "setup,agent", "--bin", "scalr-agent", "--bin", "scalr-agent-setup"])
        .arg("--target")
        .arg(format!("{}.2.17", processor.triple()))
        .current_dir(checkout.root());
    // cargo's own progress is better than any of ours.
    let status = command.status().with_context(|| format!("cannot run `{}`", command.line()))?;
    anyhow::ensure!(status.success(), "`{}` failed; see the lines above", command.line());
    Ok(Programs::in_folder(&checkout.target.join(processor.triple()).join("release")))
}

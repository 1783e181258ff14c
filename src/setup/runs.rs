//! The active runs of this host.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::settings;
use crate::status::docker_client;
use cli::untrusted_file;
use config::layout::{data, label};
use config::{DATA_DIR, ENGINE};
use host::docker;
use host::machine::Machine;
use protocol::Task;
use protocol::journal::{self, Line};

/// Where the agent keeps its data and which engine it uses.
pub(crate) struct Places {
    /// The agent's data.
    pub data_dir: PathBuf,
    /// The engine's socket, `unix:///…`.
    pub engine: String,
}

impl Places {
    /// As the settings and the unit have it; the usual ones where they can't be
    /// used.
    pub(crate) fn of(machine: &Machine) -> Self {
        let settings = settings::of_service(machine).unwrap_or_default();
        Self {
            data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            engine: settings.engine.unwrap_or_else(|| ENGINE.to_owned()),
        }
    }
}

/// The runs whose outcome the server does not have yet, and those whose container
/// runs: a line for people each.
///
/// # Errors
/// The agent's data can't be read.
pub(crate) fn active(machine: &Machine, places: &Places) -> Result<Vec<String>> {
    let tasks = machine.path(places.data_dir.join(data::TASKS));
    let mut known = BTreeSet::new();
    let mut lines = Vec::new();
    let entries = match fs::read_dir(&tasks) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        result => Some(result.with_context(|| format!("cannot read {}", tasks.display()))?),
    };
    for entry in entries.into_iter().flatten() {
        let directory = entry?.path();
        if let Some((task, line)) = recorded(&directory) {
            known.insert(task);
            lines.push(line);
        }
    }
    lines.sort();
    if machine.is_this_one() {
        for (id, task, run) in running(&places.engine) {
            if !known.contains(&task) {
                lines.push(format!("{run}: {task} in the container {id}"));
            }
        }
    }
    Ok(lines)
}

/// The task's id and a line about it; `None` for one whose claim was not written
/// whole, so that nothing was done.
fn recorded(directory: &Path) -> Option<(String, String)> {
    let name = directory.file_name()?.to_string_lossy().into_owned();
    let text = match untrusted_file::read(&directory.join(journal::FILE), journal::LARGEST) {
        Ok(text) => text,
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return None;
        }
        // It counts as active all the same.
        Err(error) => {
            return Some((name.clone(), format!("{name}: cannot read its journal: {error}")));
        }
    };
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let Ok(Line::Claimed { claim, .. }) = serde_json::from_slice(&text[..end]) else {
        // It counts as active all the same.
        return Some((name.clone(), format!("{name}: its journal cannot be read")));
    };
    let Task { id, kind, run_id, workspace, environment, .. } = claim.task;
    let line = format!("{run_id}: {kind} in {}/{} ({id})", environment.name, workspace.name);
    Some((id, line))
}

/// The id, the task and the run of each container of ours that runs. An engine
/// that does not answer runs none that could be named.
fn running(socket: &str) -> Vec<(String, String, String)> {
    let format =
        format!(r#"{{{{.ID}}}} {{{{.Label "{}"}}}} {{{{.Label "{}"}}}}"#, label::TASK, label::RUN);
    let filter = format!("label={}", label::TASK);
    let Ok(client) = docker_client() else { return Vec::new() };
    let said = docker::ask(&client, socket, &["ps", "--filter", &filter, "--format", &format]);
    let said = said.unwrap_or_default();
    let container = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?, words.next().unwrap_or_else(|| "a run".to_owned())))
    };
    said.lines().filter_map(container).collect()
}

//! The active runs of this host.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::settings;
use crate::status::docker_client;
use cli::untrusted_file::Folder;
use config::layout::{AHEAD_PREFIX, data, label};
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
    let mut known = BTreeSet::new();
    let mut lines = Vec::new();
    for (task, line) in journals(&machine.path(&places.data_dir).join(data::TASKS))? {
        known.insert(task);
        lines.push(line);
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

/// What the journals below a folder say. The agent's account can put links there.
fn journals(tasks: &Path) -> Result<Vec<(String, String)>> {
    let cannot_read = || format!("cannot read {}", tasks.display());
    let folder = match Folder::open(tasks) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => bail!(
            "{}: it is a link or a file, and not the agent's folder\nLook at it, then remove it.",
            cannot_read()
        ),
        folder => folder.with_context(cannot_read)?,
    };
    let names = folder.names().with_context(cannot_read)?;
    Ok(names.into_iter().filter_map(|name| recorded(&folder, &name)).collect())
}

/// The task's id and a line about it; `None` for one whose claim was not written
/// whole, so that nothing was done, and for what is no task's folder.
fn recorded(tasks: &Folder, name: &OsStr) -> Option<(String, String)> {
    let text = tasks.folder(name).and_then(|task| task.read(journal::FILE, journal::LARGEST));
    let name = name.to_string_lossy().into_owned();
    let text = match text {
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
    let format = format!(r#"{{{{.ID}}}} {{{{.Names}}}} {{{{.Label "{}"}}}}"#, label::RUN);
    let filter = format!("label={}", label::AGENT);
    let Ok(client) = docker_client() else { return Vec::new() };
    let said = docker::ask(&client, socket, &["ps", "--filter", &filter, "--format", &format]);
    said.unwrap_or_default().lines().filter_map(container).collect()
}

/// Of a line with id, name and run; none for a container that waits for a run. One that was
/// started ahead does not tell its run.
fn container(line: &str) -> Option<(String, String, String)> {
    let mut words = line.split_whitespace();
    let (id, name, run) = (words.next()?, words.next()?, words.next());
    let (task, _attempt) = name.rsplit_once('-').filter(|_| !name.starts_with(AHEAD_PREFIX))?;
    Some((id.to_owned(), task.to_owned(), run.unwrap_or("a run").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_waits_is_no_run() {
        for (line, task, run) in
            [("c1 task-0a-2 run-1", "task-0a", "run-1"), ("c1 task-0a-2 ", "task-0a", "a run")]
        {
            let expected = ("c1".to_owned(), task.to_owned(), run.to_owned());
            assert_eq!(container(line), Some(expected));
        }
        assert_eq!(container("c1 scalr-ahead-0a-0-1b "), None);
    }
}

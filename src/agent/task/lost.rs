//! Containers of this agent whose task is no longer its own: what the server gave
//! to somebody else, and what nobody remembers.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use tokio::sync::watch;
use tracing::{error, warn};

use super::interrupt::{self, Interrupt};
use super::paths;
use crate::context::Context;
use crate::engine::{self, LARGE_FILE};
use crate::sum;
use cli::whole_file::WholeFile;
use config::layout::{AHEAD_PREFIX, label};
use protocol::Kind;

/// How long to wait after something on this host failed.
const BEFORE_RETRY: Duration = Duration::from_secs(30);

/// A container whose task is no longer this agent's.
pub(crate) struct Lost<'a> {
    /// The task's id.
    pub task_id: &'a str,
    /// Which attempt at it this was.
    pub attempt: u32,
    /// Whether it may have changed the state.
    pub is_apply: bool,
    /// The engine's id of the container.
    pub container: &'a str,
    /// Where in the container Terraform leaves a state that it could not write to its
    /// usual place, where that is known.
    pub errored_state: Option<String>,
    /// The SHA-256 of the state that it was given, which is not lost.
    pub state_sha256: Option<&'a str>,
}

impl Lost<'_> {
    /// Interrupts the container and waits for its end. The state that an apply leaves
    /// is kept here, since the server does not take it.
    ///
    /// # Errors
    /// The engine doesn't answer, or the state can't be copied or written.
    pub(crate) async fn end(&self, context: &Context) -> Result<()> {
        let (_keep, orders) = watch::channel(Some(Interrupt::Lost));
        let (engine, grace) = (&context.engine, context.config.grace);
        tokio::select! {
            _ = engine.ended(self.container) => {}
            error = interrupt::when_told(
                engine, self.container, orders, std::future::pending(), grace,
            ) => error?,
        }
        if !self.is_apply {
            return Ok(());
        }
        let directory = context.journal.lost(self.task_id, self.attempt)?;
        for path in [Some(paths::STATE), self.errored_state.as_deref()].into_iter().flatten() {
            let state = WholeFile::at(&kept_as(&directory, path)).draft()?;
            let there = engine.copy_out(self.container, path, LARGE_FILE, state.reopen()?).await?;
            if there && Some(sum::sha256(state.path())?.as_str()) != self.state_sha256 {
                keep_state(context, self.task_id, self.attempt, path, state)?;
            }
        }
        // Nothing is lost, unless there is a state in it.
        let _ = fs::remove_dir(&directory);
        Ok(())
    }
}

/// Keeps a state here that the server does not take, under the name that it had at `path`
/// in the container, and gives where it is.
///
/// # Errors
/// It can't be written.
pub(crate) fn keep_state(
    context: &Context,
    task_id: &str,
    attempt: u32,
    path: &str,
    state: NamedTempFile,
) -> Result<PathBuf> {
    let file = kept_as(&context.journal.lost(task_id, attempt)?, path);
    WholeFile::at(&file).put(state)?;
    warn!(task = task_id, "a state that the server does not take is in {}", file.display());
    Ok(file)
}

fn kept_as(directory: &Path, path: &str) -> PathBuf {
    directory.join(Path::new(path).file_name().unwrap_or(OsStr::new("terraform.tfstate")))
}

/// Whether an error passes by itself: the engine is away, or a disk is full. Everything
/// else may be the run's doing, and is not tried for ever.
pub(super) fn is_waited_for(error: &anyhow::Error) -> bool {
    engine::is_away(error) || engine::is_disk_full(error)
}

/// What the agent's log says of a container whose state can't be taken.
pub(super) fn kept(error: &anyhow::Error) -> String {
    format!("the container is kept, since its state cannot be taken out of it: {error:#}")
}

/// Ends and removes the containers that this agent made, under the id that the
/// server knows it by, and of whose task it knows nothing any more: its data was
/// lost. Tries until it can.
pub(crate) async fn end_forgotten(context: &Context) {
    while let Err(error) = end_forgotten_once(context).await {
        error!("cannot end the containers of forgotten tasks, trying again: {error:#}");
        tokio::time::sleep(BEFORE_RETRY).await;
    }
}

async fn end_forgotten_once(context: &Context) -> Result<()> {
    let agent = &context.registered.get().context("not registered yet")?.agent_id;
    for found in context.engine.with_label(label::AGENT, agent).await? {
        if found.name.starts_with(AHEAD_PREFIX) {
            if !context.ahead.is_own(&found.name) {
                context.engine.remove(&found.id).await?;
            }
            continue;
        }
        let label = |name: &str| found.labels.get(name).map(String::as_str);
        // One that was started ahead has no other label of its task than its name.
        let of_name = || found.name.rsplit_once('-');
        let Some((task_id, attempt)) =
            label(label::TASK).zip(label(label::ATTEMPT)).or_else(of_name)
        else {
            continue;
        };
        let Ok(attempt) = attempt.parse() else { continue };
        if context.journal.has(task_id, attempt) {
            continue;
        }
        warn!(task = task_id, attempt, "ending a container whose task is not known here any more");
        let lost = Lost {
            task_id,
            attempt,
            is_apply: label(label::KIND) != Some(&Kind::Plan.to_string()),
            container: &found.id,
            errored_state: None,
            state_sha256: None,
        };
        match lost.end(context).await {
            Ok(()) => context.engine.remove(&found.id).await?,
            Err(error) if is_waited_for(&error) => return Err(error),
            Err(error) => warn!(task = task_id, attempt, "{}", kept(&error)),
        }
    }
    Ok(())
}

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
use cli::whole_file::WholeFile;
use config::layout::label;
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
}

impl Lost<'_> {
    /// Interrupts the container and waits for its end. The state that an apply leaves
    /// is kept here, since the server does not take it.
    ///
    /// # Errors
    /// The engine doesn't answer, or the state can't be written.
    pub(crate) async fn end(&self, context: &Context) -> Result<()> {
        let (_keep, orders) = watch::channel(Some(Interrupt::Lost));
        let (engine, grace) = (&context.engine, context.config.grace);
        tokio::select! {
            _ = engine.ended(self.container) => {}
            _ = interrupt::when_told(
                engine, self.container, orders, std::future::pending(), grace,
            ) => {}
        }
        if !self.is_apply {
            return Ok(());
        }
        let directory = context.journal.lost(self.task_id, self.attempt)?;
        for path in [Some(paths::STATE), self.errored_state.as_deref()].into_iter().flatten() {
            let state = NamedTempFile::new_in(&directory)
                .with_context(|| format!("cannot write in {}", directory.display()))?;
            if engine.copy_out(self.container, path, state.reopen()?).await? {
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
    let name = Path::new(path).file_name().unwrap_or(OsStr::new("terraform.tfstate"));
    let file = context.journal.lost(task_id, attempt)?.join(name);
    WholeFile::at(&file).put(state)?;
    warn!(task = task_id, "a state that the server does not take is in {}", file.display());
    Ok(file)
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
        let label = |name: &str| found.labels.get(name).map(String::as_str).unwrap_or_default();
        let (task_id, attempt) = (label(label::TASK), label(label::ATTEMPT));
        let Ok(attempt) = attempt.parse() else { continue };
        if context.journal.has(task_id, attempt) {
            continue;
        }
        warn!(task = task_id, attempt, "ending a container whose task is not known here any more");
        let is_apply = label(label::KIND) == Kind::Apply.to_string();
        let container = &found.id;
        Lost { task_id, attempt, is_apply, container, errored_state: None }.end(context).await?;
        context.engine.remove(&found.id).await?;
    }
    Ok(())
}

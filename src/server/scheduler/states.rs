//! States: every one that comes is kept as a version.

use std::io::Read;

use anyhow::{Context as _, Result};
use struson::reader::{JsonReader as _, ReaderError};
use tracing::{info, warn};

use super::tasks::{check_attempt, over};
use super::{Change, Error, Scheduler};
use crate::bounded::StateReader;
use crate::objects::{self, Draft};
use crate::store::Connection;
use crate::store::run::{self, Run};
use crate::store::state_version::{self, StateVersion};
use crate::store::task::{self, Phase};
use crate::token::new_id;
use protocol::limits::MAX_NAME;

/// What came of a state.
#[derive(Debug)]
pub(crate) enum Saved {
    /// It is a new version.
    New(StateVersion),
    /// It is what the workspace has already.
    Same(StateVersion),
}

/// A state that has come.
#[derive(Debug)]
pub(crate) struct NewState {
    content: Draft,
    /// Terraform's own counter.
    pub serial: i64,
    /// What Terraform tells states of different origin apart by.
    pub lineage: String,
    /// How many resources it manages.
    pub resources: i64,
}

impl NewState {
    /// How long it is, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.content.length()
    }

    /// Reads what a state says of itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no state of Terraform's format 4.
    pub(crate) async fn read(content: Draft) -> Result<Self, Error> {
        let reader = content.reader()?;
        let header = tokio::task::spawn_blocking(move || Header::read(reader));
        let header = header.await.map_err(anyhow::Error::from)?;
        let header = header
            .map_err(|error| Error::Invalid(format!("this is not a Terraform state: {error:#}")))?;
        let missing = |name| Error::Invalid(format!("this is not a Terraform state: no {name}"));
        let version = header.version.ok_or_else(|| missing("version"))?;
        if version != 4 {
            return Err(Error::Invalid(format!(
                "states of format {version} are not supported, only those of format 4"
            )));
        }
        let lineage = header.lineage.ok_or_else(|| missing("lineage"))?;
        if lineage.chars().nth(MAX_NAME).is_some() {
            return Err(Error::Invalid(format!(
                "this is not a Terraform state: its lineage has more than {MAX_NAME} characters"
            )));
        }
        Ok(Self {
            content,
            serial: header.serial.ok_or_else(|| missing("serial"))?,
            lineage,
            resources: header.resources,
        })
    }
}

/// What the server reads of a state. The rest may be anything of any length.
#[derive(Debug, Default)]
struct Header {
    version: Option<u64>,
    serial: Option<i64>,
    lineage: Option<String>,
    resources: i64,
}

impl Header {
    fn read(state: impl Read) -> Result<Self> {
        let mut state = StateReader::new(state, "a name or a value in it is too long");
        let mut header = Self::default();
        state.json.begin_object()?;
        while let Some(name) = state.next_name()? {
            match name.as_str() {
                "version" => header.version = state.json.deserialize_next().context("version")?,
                "serial" => header.serial = state.json.deserialize_next().context("serial")?,
                "lineage" => header.lineage = state.json.deserialize_next().context("lineage")?,
                "resources" => {
                    header.resources = count_managed(&mut state).context("resources")?;
                }
                _ => state.skip()?,
            }
        }
        state.json.end_object()?;
        state.json.consume_trailing_whitespace()?;
        Ok(header)
    }
}

/// How many of a state's resources are managed.
fn count_managed<R: Read>(state: &mut StateReader<R>) -> Result<i64, ReaderError> {
    let mut count = 0;
    state.json.begin_array()?;
    while state.json.has_next()? {
        state.json.begin_object()?;
        while let Some(name) = state.next_name()? {
            match name.as_str() {
                "mode" => count += i64::from(state.json.next_str()? == "managed"),
                _ => state.skip()?,
            }
        }
        state.json.end_object()?;
    }
    state.json.end_array()?;
    Ok(count)
}

impl Scheduler {
    /// Keeps a state that a running apply has written.
    ///
    /// # Errors
    /// [`Error::AttemptOver`], [`Error::Conflict`] when the state does not follow the
    /// workspace's.
    pub(crate) async fn save_apply_state(
        &self,
        task_id: &str,
        attempt: i64,
        state: NewState,
    ) -> Result<Saved, Error> {
        let mut db = self.store.read().await?;
        let run = running_apply(&mut db, task_id, attempt).await?;
        drop(db);
        let stored = self.store_state(&run.workspace_id, Some(&run.id), state).await?;
        let recorded = async {
            let mut change = self.change().await?;
            // It may have ended in the meantime.
            running_apply(&mut change.tx, task_id, attempt).await?;
            let saved = change.record_state(stored.clone(), false).await?;
            self.commit(change).await?;
            Ok(saved)
        };
        let recorded = recorded.await;
        self.delete_unless_recorded(&stored, &recorded).await;
        recorded
    }

    /// Keeps a state that somebody uploads, unless a run applies; with `force` whatever
    /// its serial and lineage are.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a run applies or the state does not follow the workspace's.
    pub(crate) async fn save_uploaded_state(
        &self,
        workspace_id: &str,
        state: NewState,
        force: bool,
    ) -> Result<Saved, Error> {
        let stored = self.store_state(workspace_id, None, state).await?;
        let recorded = async {
            let mut change = self.change().await?;
            change.check_no_apply(workspace_id).await?;
            let saved = change.record_state(stored.clone(), force).await?;
            self.commit(change).await?;
            Ok(saved)
        };
        let recorded = recorded.await;
        self.delete_unless_recorded(&stored, &recorded).await;
        recorded
    }

    /// Stores the content of a state; the version has no number yet.
    ///
    /// That comes before the database is locked: a slow disk must not keep other writers
    /// waiting. And a version without its content would be a lost state, but content
    /// without its version is only unused.
    async fn store_state(
        &self,
        workspace_id: &str,
        run_id: Option<&str>,
        state: NewState,
    ) -> Result<StateVersion, Error> {
        let version = StateVersion {
            id: new_id("sv"),
            workspace_id: workspace_id.to_owned(),
            run_id: run_id.map(str::to_owned),
            number: 0,
            serial: state.serial,
            lineage: state.lineage,
            sha256: state.content.sha256(),
            size: i64::try_from(state.content.length()).unwrap_or(i64::MAX),
            resources: state.resources,
            created_at: self.clock.now(),
            removed_at: None,
        };
        self.objects.put(&objects::state(workspace_id, &version.id), state.content).await?;
        Ok(version)
    }

    /// Deletes the content of a state that did not become a version.
    async fn delete_unless_recorded(&self, stored: &StateVersion, saved: &Result<Saved, Error>) {
        // After a failure, the version may be in the database.
        if matches!(saved, Ok(Saved::New(_)) | Err(Error::Failed(_))) {
            return;
        }
        let key = objects::state(&stored.workspace_id, &stored.id);
        if let Err(error) = self.objects.delete(&key).await {
            warn!("{error:#}");
        }
    }
}

/// The run of an apply that its agent may write a state for.
async fn running_apply(db: &mut Connection, task_id: &str, attempt: i64) -> Result<Run, Error> {
    let no_task = || Error::NotFound(format!("there is no task {task_id}"));
    let task = task::find(db, task_id).await?.ok_or_else(no_task)?;
    check_attempt(&task, attempt)?;
    if !task.state.is_with_agent() {
        return Err(over(&task));
    }
    if task.phase != Phase::Apply {
        return Err(Error::Conflict("only a running apply writes a state".to_owned()));
    }
    run::find(db, &task.run_id).await?.ok_or_else(no_task)
}

impl Change {
    async fn record_state(
        &mut self,
        mut version: StateVersion,
        force: bool,
    ) -> Result<Saved, Error> {
        let current = state_version::current(&mut self.tx, &version.workspace_id).await?;
        if let Some(current) = &current {
            if current.sha256 == version.sha256 {
                return Ok(Saved::Same(current.clone()));
            }
            if !force {
                follows(current, &version)?;
            }
        }
        version.number = current.map_or(1, |current| current.number + 1);
        version.created_at = self.now;
        state_version::insert(&mut self.tx, &version).await?;
        info!(
            state = version.id,
            workspace = version.workspace_id,
            serial = version.serial,
            "state version made"
        );
        self.discard_all_stale(&version).await?;
        Ok(Saved::New(version))
    }
}

/// Whether a state may come after the one that the workspace has.
fn follows(current: &StateVersion, new: &StateVersion) -> Result<(), Error> {
    if new.lineage != current.lineage {
        return Err(Error::Conflict(format!(
            "the state's lineage is {}, but the workspace's is {}: it is the state of something \
             else, or it was replaced",
            new.lineage, current.lineage
        )));
    }
    // An apply that begins with a state may write it again with the same serial: a new
    // version of Terraform writes it in its own way, and a failed destroy what it knows
    // by then. Nobody else writes while a run applies.
    let is_apply = new.run_id.is_some();
    if new.serial > current.serial || (is_apply && new.serial == current.serial) {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "the state's serial is {}, but the workspace's is {} already",
        new.serial, current.serial
    )))
}

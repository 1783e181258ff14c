//! States: every one that comes is kept as a version.

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tracing::info;

use super::tasks::{check_attempt, over};
use super::{Change, Error, Scheduler};
use crate::objects::{self, Objects};
use crate::store::state_version::{self, StateVersion};
use crate::store::task::Phase;
use crate::token::new_id;

/// What came of a state.
#[derive(Debug)]
pub(crate) enum Saved {
    /// It is a new version.
    New(StateVersion),
    /// It is what the workspace has already.
    Same(StateVersion),
}

/// What the server reads of a state, which is Terraform's format 4.
#[derive(Debug, Deserialize)]
struct Header {
    version: u64,
    serial: i64,
    lineage: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    mode: String,
}

impl Scheduler {
    /// Keeps a state that a running apply has written.
    ///
    /// # Errors
    /// [`Error::AttemptOver`], [`Error::Conflict`] when the state does not follow the
    /// workspace's, [`Error::Invalid`] when it is no state.
    pub(crate) async fn save_apply_state(
        &self,
        task_id: &str,
        attempt: i64,
        content: Bytes,
    ) -> Result<Saved, Error> {
        let mut change = self.change().await?;
        let task = change.task(task_id).await?;
        check_attempt(&task, attempt)?;
        if !task.state.is_with_agent() {
            return Err(over(&task));
        }
        if task.phase != Phase::Apply {
            return Err(Error::Conflict("only a running apply writes a state".to_owned()));
        }
        let run = change.run(&task.run_id).await?;
        let saved =
            change.save_state(&self.objects, &run.workspace_id, Some(&run.id), content).await?;
        self.commit(change).await?;
        Ok(saved)
    }

    /// Keeps a state that somebody uploads, unless a run applies.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the workspace is locked or the state does not
    /// follow the workspace's, [`Error::Invalid`] when it is no state.
    pub(crate) async fn save_uploaded_state(
        &self,
        workspace_id: &str,
        content: Bytes,
    ) -> Result<Saved, Error> {
        let mut change = self.change().await?;
        change.check_no_apply(workspace_id).await?;
        let saved = change.save_state(&self.objects, workspace_id, None, content).await?;
        self.commit(change).await?;
        Ok(saved)
    }
}

impl Change {
    async fn save_state(
        &mut self,
        objects: &Objects,
        workspace_id: &str,
        run_id: Option<&str>,
        content: Bytes,
    ) -> Result<Saved, Error> {
        let header: Header = serde_json::from_slice(&content)
            .map_err(|error| Error::Invalid(format!("this is not a Terraform state: {error}")))?;
        if header.version != 4 {
            return Err(Error::Invalid(format!(
                "states of format {} are not supported, only those of format 4",
                header.version
            )));
        }
        let sha256 = hex::encode(Sha256::digest(&content));
        let current = state_version::current(&mut self.tx, workspace_id).await?;
        if let Some(current) = &current {
            if current.sha256 == sha256 {
                return Ok(Saved::Same(current.clone()));
            }
            follows(current, &header, run_id)?;
        }
        let version = StateVersion {
            id: new_id("sv"),
            workspace_id: workspace_id.to_owned(),
            run_id: run_id.map(str::to_owned),
            number: current.map_or(1, |current| current.number + 1),
            serial: header.serial,
            lineage: header.lineage,
            sha256,
            size: i64::try_from(content.len()).unwrap_or(i64::MAX),
            resources: header.resources.iter().filter(|r| r.mode == "managed").count() as i64,
            created_at: self.now,
        };
        // The object first: a version without its content would be a lost
        // state, an object without its version is only unused.
        objects.put(&objects::state(workspace_id, &version.id), content).await?;
        state_version::insert(&mut self.tx, &version).await?;
        info!(
            state = version.id,
            workspace = workspace_id,
            serial = version.serial,
            "state version made"
        );
        Ok(Saved::New(version))
    }
}

/// Whether a state may come after the one that the workspace has.
fn follows(current: &StateVersion, new: &Header, run_id: Option<&str>) -> Result<(), Error> {
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
    let is_apply = run_id.is_some();
    if new.serial > current.serial || (is_apply && new.serial == current.serial) {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "the state's serial is {}, but the workspace's is {} already",
        new.serial, current.serial
    )))
}

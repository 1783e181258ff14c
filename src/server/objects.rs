//! Configurations, plans, their files, lock files and states: written once, read whole.
//!
//! Keys start with the workspace's id, so that a workspace's objects go with
//! it.

use std::path::Path as FilePath;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

/// The objects' store: a folder.
#[derive(Debug)]
pub(crate) struct Objects(LocalFileSystem);

impl Objects {
    /// Opens the store in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder can't be made.
    pub(crate) fn open(folder: &FilePath) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        // Renamed into place and synced: what was acknowledged survives a
        // power cut.
        Ok(Self(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)))
    }

    /// Stores `content` under `key`, in the place of what was there.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) async fn put(&self, key: &str, content: Bytes) -> Result<()> {
        let put = self.0.put(&Path::from(key), content.into()).await;
        put.map(drop).with_context(|| format!("cannot store {key}"))
    }

    /// What is stored under `key`, if anything.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.0.get(&Path::from(key)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {key}")),
        }
    }

    /// Deletes everything of a workspace.
    ///
    /// # Errors
    /// Something can't be deleted.
    pub(crate) async fn delete_workspace(&self, workspace_id: &str) -> Result<()> {
        let keys = self.0.list(Some(&Path::from(workspace_id))).map_ok(|object| object.location);
        keys.try_for_each(async |key| self.0.delete(&key).await)
            .await
            .with_context(|| format!("cannot delete the objects of {workspace_id}"))
    }
}

/// Where a configuration's archive is. Its digest is a part of that, so that two uploads
/// at once don't overwrite each other; older ones have none.
pub(crate) fn configuration(
    workspace_id: &str,
    configuration_version_id: &str,
    sha256: Option<&str>,
) -> String {
    let digest = sha256.map(|sha256| format!(".{sha256}")).unwrap_or_default();
    format!("{workspace_id}/configurations/{configuration_version_id}{digest}.tar.gz")
}

/// Where the plan file of an attempt at a plan is.
pub(crate) fn plan(workspace_id: &str, task_id: &str, attempt: i64) -> String {
    format!("{workspace_id}/plans/{task_id}.{attempt}")
}

/// Where the lock file that an attempt at a plan left is.
pub(crate) fn lock_file(workspace_id: &str, task_id: &str, attempt: i64) -> String {
    format!("{workspace_id}/lock-files/{task_id}.{attempt}")
}

/// Where the files are that an attempt at a plan made in its working directory.
pub(crate) fn plan_files(workspace_id: &str, task_id: &str, attempt: i64) -> String {
    format!("{workspace_id}/plan-files/{task_id}.{attempt}.tar.gz")
}

/// Where a state version is.
pub(crate) fn state(workspace_id: &str, state_version_id: &str) -> String {
    format!("{workspace_id}/states/{state_version_id}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_workspaces_objects_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        for key in [state("ws-1", "sv-1"), plan("ws-1", "task-1", 1), state("ws-2", "sv-2")] {
            objects.put(&key, Bytes::from_static(b"x")).await.unwrap();
        }
        objects.delete_workspace("ws-1").await.unwrap();
        assert_eq!(objects.get(&state("ws-1", "sv-1")).await.unwrap(), None);
        assert_eq!(objects.get(&plan("ws-1", "task-1", 1)).await.unwrap(), None);
        assert!(objects.get(&state("ws-2", "sv-2")).await.unwrap().is_some());
    }
}

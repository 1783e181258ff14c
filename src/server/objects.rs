//! Configurations, plans, their files, lock files and states: files, below the folder of their
//! workspace, so that they go with it.
//!
//! They are written once and may be large: what comes is written down as it comes, in a
//! folder of its own, and is moved to its place when it is whole and good.

use std::fs;
use std::io::{self, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;

use crate::disk::Reserve;
use crate::usage::Usage;
use cli::whole_file::WholeFile;

/// The largest object but states, in bytes. It holds for every way in.
pub(crate) const MAX_OBJECT: u64 = protocol::limits::MAX_FILE;

/// After how many bytes the free space is looked at again.
const CHECK: u64 = 1024 * 1024;

/// The objects' store: a folder.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
    drafts: PathBuf,
    reserve: Reserve,
    usage: Usage,
    max_state: u64,
}

impl Objects {
    /// Opens the store in `folder`, which is made if it is missing. What was not whole
    /// when the server ended is removed. States have at most `max_state` bytes.
    ///
    /// # Errors
    /// The folder can't be made.
    pub(crate) fn open(
        folder: &Path,
        reserve: Reserve,
        usage: Usage,
        max_state: u64,
    ) -> Result<Self> {
        let drafts = folder.join("drafts");
        match fs::remove_dir_all(&drafts) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
        .and_then(|()| fs::create_dir_all(&drafts))
        .with_context(|| format!("cannot empty {}", drafts.display()))?;
        Ok(Self { folder: folder.to_owned(), drafts, reserve, usage, max_state })
    }

    /// Where the objects are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The largest state, in bytes. It holds for every way in.
    pub(crate) fn max_state(&self) -> u64 {
        self.max_state
    }

    /// An object to be, of at most `limit` bytes; it is gone if it is dropped.
    ///
    /// # Errors
    /// The disk is full, or its file can't be made.
    pub(crate) fn draft(&self, limit: u64) -> Result<Draft> {
        self.reserve.check()?;
        let file = NamedTempFile::new_in(&self.drafts)
            .with_context(|| format!("cannot write in {}", self.drafts.display()))?;
        Ok(Draft { file, length: 0, limit, hash: Sha256::new(), reserve: self.reserve.clone() })
    }

    /// Stores an object under `key`, in the place of what was there. It survives a power
    /// cut from then on.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) async fn put(&self, key: &str, draft: Draft) -> Result<()> {
        let (path, root) = (self.folder.join(key), self.folder.clone());
        let put = tokio::task::spawn_blocking(move || {
            let folder = path.parent().unwrap_or(&root);
            fs::create_dir_all(folder)?;
            WholeFile::at(&path).put(draft.file)?;
            // So that the folders that are new survive, too.
            for folder in folder.ancestors().skip(1).take_while(|folder| folder.starts_with(&root))
            {
                fs::File::open(folder)?.sync_all()?;
            }
            anyhow::Ok(())
        });
        let put = put.await?.with_context(|| format!("cannot store {key}"));
        self.usage.changed(workspace_of(key));
        put
    }

    /// What is stored under `key`, if anything.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn get(&self, key: &str) -> Result<Option<fs::File>> {
        match fs::File::open(self.folder.join(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map(Some).with_context(|| format!("cannot read {key}")),
        }
    }

    /// Deletes what is stored under `key`, if anything.
    ///
    /// # Errors
    /// It can't be deleted.
    pub(crate) async fn delete(&self, key: &str) -> Result<()> {
        let removed = tokio::fs::remove_file(self.folder.join(key)).await;
        self.usage.changed(workspace_of(key));
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.with_context(|| format!("cannot delete {key}")),
        }
    }

    /// Deletes everything of a workspace.
    ///
    /// # Errors
    /// Something can't be deleted.
    pub(crate) async fn delete_workspace(&self, workspace_id: &str) -> Result<()> {
        let removed = tokio::fs::remove_dir_all(self.folder.join(workspace_id)).await;
        self.usage.changed(workspace_id);
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => {
                result.with_context(|| format!("cannot delete the objects of {workspace_id}"))
            }
        }
    }
}

/// An object to be, while it is written.
#[derive(Debug)]
pub(crate) struct Draft {
    file: NamedTempFile,
    length: u64,
    limit: u64,
    hash: Sha256,
    reserve: Reserve,
}

impl Draft {
    /// How long it is, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The SHA-256 of its content, in hex.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Its content from the beginning.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn reader(&self) -> io::Result<BufReader<fs::File>> {
        self.file.reopen().map(BufReader::new)
    }
}

impl Write for Draft {
    /// # Errors
    /// [`ErrorKind::FileTooLarge`] for more than its limit, [`ErrorKind::StorageFull`].
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        if self.length + content.len() as u64 > self.limit {
            return Err(too_large(self.limit));
        }
        // Others write at the same time.
        if self.length / CHECK < (self.length + content.len() as u64) / CHECK {
            self.reserve.check()?;
        }
        let written = self.file.write(content)?;
        self.hash.update(&content[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Something is larger than `limit` in bytes.
pub(crate) fn too_large(limit: u64) -> io::Error {
    let mib = limit / (1024 * 1024);
    let why = format!("it is larger than the {limit} bytes ({mib} MiB) that the server takes");
    io::Error::new(ErrorKind::FileTooLarge, why)
}

/// An answer with the content of an object.
///
/// # Errors
/// Its file can't be looked at.
pub(crate) fn answer(content: fs::File) -> Result<Response> {
    let length = content.metadata().context("cannot look at an object")?.len();
    let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(content)));
    Ok(([(CONTENT_LENGTH, length)], body).into_response())
}

/// The workspace that an object belongs to.
fn workspace_of(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
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
pub(crate) fn plan_json(workspace_id: &str, task_id: &str, attempt: i64) -> String {
    format!("{workspace_id}/plan-json/{task_id}.{attempt}.json")
}

/// The key of what a plan made.
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

    fn open(folder: &Path) -> Objects {
        Objects::open(folder, Reserve::new(folder, 0), Usage::default(), MAX_OBJECT).unwrap()
    }

    #[tokio::test]
    async fn a_workspaces_objects_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let objects = open(folder.path());
        for key in [state("ws-1", "sv-1"), plan("ws-1", "task-1", 1), state("ws-2", "sv-2")] {
            let mut draft = objects.draft(MAX_OBJECT).unwrap();
            draft.write_all(b"x").unwrap();
            objects.put(&key, draft).await.unwrap();
        }
        objects.delete_workspace("ws-1").await.unwrap();
        objects.delete_workspace("ws-1").await.unwrap();
        assert!(objects.get(&state("ws-1", "sv-1")).unwrap().is_none());
        assert!(objects.get(&plan("ws-1", "task-1", 1)).unwrap().is_none());
        assert!(objects.get(&state("ws-2", "sv-2")).unwrap().is_some());
    }

    #[test]
    fn what_was_not_whole_is_gone_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let objects = open(folder.path());
        let draft = objects.draft(MAX_OBJECT).unwrap();
        let path = draft.file.path().to_owned();
        std::mem::forget(draft);
        assert!(path.exists());
        open(folder.path());
        assert!(!path.exists());
    }
}

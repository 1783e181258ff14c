//! The free space that uploads leave, so that the database can always be written.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Error;
use nix::sys::statvfs::statvfs;

/// What has to stay free on the disk of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Reserve {
    folder: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// A reserve of `bytes`.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Self {
        Self { folder: folder.to_owned(), bytes }
    }

    /// Checks that more can be written.
    ///
    /// # Errors
    /// [`ErrorKind::StorageFull`], or the disk can't be looked at.
    pub(crate) fn check(&self) -> io::Result<()> {
        let disk = statvfs(&self.folder)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        match free > self.bytes {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::StorageFull,
                format!(
                    "the server's disk has {} MiB free, and {} MiB are reserved (--reserve)",
                    free >> 20,
                    self.bytes >> 20
                ),
            )),
        }
    }
}

/// What a client gets when its upload does not fit on the disk; none if that is not why it
/// failed.
pub(crate) fn full(error: &Error) -> Option<String> {
    let full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let full = full
        .into_iter()
        .find(|error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))?;
    Some(format!("cannot store the upload: {full}. Try again when the server has more space"))
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;
    use protocol::BASE;

    #[tokio::test]
    async fn a_full_disk_refuses_uploads_and_nothing_else() {
        let server = InProcess::with_reserve(u64::MAX).await;
        let working = server.working().await;
        let (_, configuration) = server.configuration_version().await;
        let of_task = |what: &str| format!("{BASE}/tasks/{}/{what}", working.task);
        let (put, post) = (Method::PUT, Method::POST);
        let state = json!({ "version": 4, "serial": 1, "lineage": "x" }).to_string();
        let workspace = json!({ "data": { "type": "workspaces", "id": server.workspace } });
        let document = json!({
            "data": {
                "attributes": { "state": STANDARD.encode(&state) },
                "relationships": { "workspace": workspace },
            }
        });
        for (method, path, token, body) in [
            (put.clone(), of_task("plan?attempt=1"), &working.task_token, "plan".to_owned()),
            (put.clone(), of_task("state?attempt=1"), &working.task_token, state),
            (put.clone(), of_task("log?attempt=1&offset=0"), &working.task_token, "x".to_owned()),
            (put, configuration, &String::new(), "archive".to_owned()),
            (post, "/api/iacp/v3/state-versions".into(), &server.admin, document.to_string()),
        ] {
            let (status, answer) = server.call(method, &path, token, &[], body).await;
            assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{path}: {answer:?}");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("are reserved (--reserve)"), "{path}: {answer}");
        }
        // An empty piece asks where the log ends.
        let path = of_task("log?attempt=1&offset=0");
        let (status, _) = server.call(Method::PUT, &path, &working.task_token, &[], "").await;
        assert_eq!(status, StatusCode::OK);
        let beat = json!({ "status": "busy", "error_message": null, "tasks": [] });
        let (status, _) = server.tell("heartbeat", &working.session, &beat).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        let finish = json!({
            "attempt": 1, "outcome": "errored", "message": null, "exit_code": 1,
            "oom_killed": false, "has_changes": null, "log_bytes": 0,
            "log_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "unsaved_state": null,
        });
        let call = format!("tasks/{}/finish", working.task);
        assert_eq!(server.tell(&call, &working.task_token, &finish).await.0, StatusCode::OK);
        let runs = server.api(Method::GET, "/runs", Value::Null).await;
        assert_eq!(runs["data"][0]["attributes"]["status"], "errored");
    }

    #[test]
    fn a_write_that_the_system_refuses_for_space_is_a_full_disk() {
        let system = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let error = Error::from(system).context("cannot store ws-1/states/sv-1.json");
        assert!(full(&error).unwrap().contains("No space left"));
        assert_eq!(full(&Error::msg("another")), None);
    }
}

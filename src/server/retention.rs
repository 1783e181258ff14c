//! What is kept for how long: old states, and the files of runs that ended long ago, would
//! fill the disk.
//!
//! First the database says that something is not kept any more, in small transactions; its
//! row stays, so that a request for it gets the reason. Then every file that no row needs is
//! deleted. A crash between the two leaves files that the next sweep finds, and so does one
//! between a file and its row; a row without its file can't be.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use anyhow::{Context as _, Result};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::app::Parts;
use crate::clock::Millis;
use crate::objects;
use crate::scheduler::millis;
use crate::store::{configuration_version, run, state_version, task, webhook_delivery};

/// How often old content is removed.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// How long an upload link can be used.
const UPLOAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long what became of the calls of webhooks is kept.
const DELIVERIES: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How old a file is at least before it is deleted: its row may be about to be written.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// How many rows a transaction changes.
const BATCH: i64 = 100;

/// How long content is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// How many state versions of a workspace have content; at least 1, so that the current
    /// one has.
    pub states: u32,
    /// How long the logs and plan files of a run are kept after its end, and a
    /// configuration version after its upload.
    pub runs: Duration,
}

/// A kind of content.
#[derive(Clone, Copy)]
enum Kind {
    State,
    Run,
    Configuration,
}

impl Parts {
    /// Removes old content from time to time until the server stops.
    pub(crate) async fn remove_old_content(&self, retention: Retention) {
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.scheduler.wake.stopped() => return,
            }
            if let Err(error) = self.sweep_content(retention, GRACE).await {
                error!("cannot remove old content: {error:#}");
            }
        }
    }

    async fn sweep_content(&self, retention: Retention, grace: Duration) -> Result<()> {
        for kind in [Kind::State, Kind::Run, Kind::Configuration] {
            while self.remove_some(kind, retention).await? {}
        }
        let folders = [self.scheduler.objects.folder().to_owned(), self.logs.folder().to_owned()];
        let workspaces = blocking(move || workspaces(&folders)).await?;
        let mut deleted = 0;
        for (workspace_id, folder) in workspaces {
            // The files first: a row that is written in the meantime is among those read.
            let files = blocking(move || old_files(&folder, grace)).await?;
            let needed = self.needed(&workspace_id).await?;
            let unneeded: Vec<PathBuf> =
                files.into_iter().filter(|file| !is_needed(file, &needed)).collect();
            deleted += unneeded.len();
            let removed = blocking(move || unneeded.iter().try_for_each(fs::remove_file)).await;
            self.usage.changed(&workspace_id);
            removed?;
        }
        let before = self.scheduler.clock.now() - millis(DELIVERIES);
        let mut tx = self.scheduler.store.write().await?;
        let deliveries = webhook_delivery::delete_old(&mut tx, before).await?;
        tx.commit().await?;
        if deliveries > 0 {
            info!(deliveries, "old deliveries of webhooks were deleted");
        }
        if deleted > 0 {
            info!(files = deleted, "files that nothing needs any more were deleted");
        }
        Ok(())
    }

    /// Says of some of what is old that it is not kept any more; false: there is none.
    async fn remove_some(&self, kind: Kind, retention: Retention) -> Result<bool> {
        let now = self.scheduler.clock.now();
        let before = now.saturating_sub(millis(retention.runs));
        let mut db = self.scheduler.store.read().await?;
        let found = match kind {
            Kind::State => state_version::removable(&mut db, retention.states, BATCH).await,
            Kind::Run => run::removable(&mut db, before, BATCH).await,
            Kind::Configuration => {
                let unfinished: Millis = now - millis(UPLOAD);
                configuration_version::removable(&mut db, before, unfinished, BATCH).await
            }
        };
        drop(db);
        let found = found?;
        if found.is_empty() {
            return Ok(false);
        }
        let mut tx = self.scheduler.store.write().await?;
        for id in &found {
            match kind {
                Kind::State => state_version::set_removed(&mut tx, id, now).await?,
                Kind::Run => run::set_files_removed(&mut tx, id, now).await?,
                Kind::Configuration => {
                    configuration_version::set_removed(&mut tx, id, now).await?;
                }
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// The beginnings of the names of the files that a workspace needs, with their folder.
    async fn needed(&self, workspace_id: &str) -> sqlx::Result<HashSet<String>> {
        let mut db = self.scheduler.store.read().await?;
        let mut needed = HashSet::new();
        for id in state_version::kept(&mut db, workspace_id).await? {
            needed.insert(objects::state(workspace_id, &id));
        }
        for version in configuration_version::kept(&mut db, workspace_id).await? {
            let sha256 = version.archive_sha256.as_deref();
            needed.insert(objects::configuration(workspace_id, &version.id, sha256));
        }
        // Of every attempt.
        needed.extend(task::kept(&mut db, workspace_id).await?);
        Ok(needed)
    }
}

/// Whether a file is one of those needed: by its path, or a task's, whose name begins with
/// the task's id.
fn is_needed(file: &Path, needed: &HashSet<String>) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let task_id = name.split('.').next().unwrap_or_default();
    let mut parts: Vec<_> = file.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
    parts.reverse();
    needed.contains(task_id) || needed.contains(&parts.join("/"))
}

/// The folders of workspaces, each with its workspace.
fn workspaces(folders: &[PathBuf]) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("ws-") {
                found.push((name, entry.path()));
            }
        }
    }
    Ok(found)
}

/// The files below a folder that were written longer ago than `grace`.
fn old_files(folder: &Path, grace: Duration) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let now = SystemTime::now();
    let entries = match fs::read_dir(folder) {
        // Its workspace was deleted.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(old_files(&path, grace)?);
            continue;
        }
        let written = path.metadata().and_then(|metadata| metadata.modified());
        let is_old = |written| now.duration_since(written).is_ok_and(|age| age >= grace);
        if written.is_ok_and(is_old) {
            found.push(path);
        }
    }
    Ok(found)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.context("cannot look after the files")
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::{InProcess, Working};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const RETENTION: Retention = Retention { states: 2, runs: Duration::from_secs(90 * 86_400) };

    async fn server() -> InProcess {
        InProcess::with_clock(Clock::standing()).await
    }

    async fn sweep(server: &InProcess) {
        server.app.sweep_content(RETENTION, Duration::ZERO).await.unwrap();
    }

    /// Each file that the server keeps for a workspace.
    fn files(server: &InProcess, workspace: &str) -> Vec<PathBuf> {
        let folders = [server.app.scheduler.objects.folder(), server.app.logs.folder()];
        folders
            .iter()
            .flat_map(|folder| old_files(&folder.join(workspace), Duration::ZERO).unwrap())
            .collect()
    }

    async fn upload_state(server: &InProcess, serial: u32) -> String {
        let state = json!({ "version": 4, "serial": serial, "lineage": "x" }).to_string();
        let related = [("workspace", server.workspace.as_str())];
        server.create("/state-versions", json!({ "state": STANDARD.encode(state) }), &related).await
    }

    async fn get(server: &InProcess, path: &str) -> (StatusCode, String) {
        let path = format!("/api/iacp/v3{path}");
        let (status, answer) = server.call(Method::GET, &path, &server.admin, &[], "").await;
        (status, String::from_utf8_lossy(&answer).into_owned())
    }

    async fn put(server: &InProcess, working: &Working, what: &str) {
        let path = format!("{}/tasks/{}/{what}", protocol::BASE, working.task);
        let (status, _) =
            server.call(Method::PUT, &path, &working.task_token, &[], "content").await;
        assert!(status.is_success(), "{what}: {status}");
    }

    async fn finish(server: &InProcess, working: &Working, log: &str) {
        use sha2::Digest as _;
        let finish = json!({
            "attempt": 1, "outcome": "errored", "message": null, "exit_code": 1,
            "oom_killed": false, "has_changes": null, "log_bytes": log.len(),
            "log_sha256": hex::encode(sha2::Sha256::digest(log)), "unsaved_state": null,
        });
        let call = format!("tasks/{}/finish", working.task);
        assert_eq!(server.tell(&call, &working.task_token, &finish).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_newest_states_of_a_workspace_are_kept() {
        let server = server().await;
        let mut states = Vec::new();
        for serial in 1..=4 {
            states.push(upload_state(&server, serial).await);
        }
        sweep(&server).await;
        for (state, is_kept) in states.iter().zip([false, false, true, true]) {
            let (status, answer) = get(&server, &format!("/state-versions/{state}/download")).await;
            assert_eq!(status == StatusCode::OK, is_kept, "{answer}");
            if !is_kept {
                assert_eq!(status, StatusCode::GONE);
                assert!(answer.contains("retention removed it"), "{answer}");
            }
            assert_eq!(get(&server, &format!("/state-versions/{state}")).await.0, StatusCode::OK);
        }
        assert_eq!(files(&server, &server.workspace).len(), 2);
        upload_state(&server, 5).await;
        sweep(&server).await;
        assert_eq!(files(&server, &server.workspace).len(), 2);
    }

    #[tokio::test]
    async fn a_run_under_way_keeps_all_states_of_its_workspace() {
        let mut server = server().await;
        let working = server.working().await;
        server.workspace.clone_from(&working.workspace);
        for serial in 1..=4 {
            upload_state(&server, serial).await;
        }
        sweep(&server).await;
        assert_eq!(files(&server, &server.workspace).len(), 4);
        finish(&server, &working, "").await;
        sweep(&server).await;
        let kept = files(&server, &server.workspace);
        assert_eq!(kept.iter().filter(|file| file.to_string_lossy().contains("states")).count(), 2);
    }

    #[tokio::test]
    async fn the_files_of_a_run_are_kept_for_a_time_after_its_end() {
        let server = server().await;
        let working = server.working().await;
        // The log has its times beside it.
        let kept = 4;
        for file in ["plan?attempt=1", "lock-file?attempt=1", "log?attempt=1&offset=0"] {
            put(&server, &working, file).await;
        }
        let runs = server.api(Method::GET, "/runs", Value::Null).await;
        let plan = &runs["data"][0]["relationships"]["plan"]["data"]["id"];
        let output = format!("/plans/{}/output", plan.as_str().unwrap());
        // However long it takes.
        server.app.scheduler.clock.advance(100 * DAY);
        sweep(&server).await;
        assert_eq!(files(&server, &working.workspace).len(), kept);
        finish(&server, &working, "content").await;
        server.app.scheduler.clock.advance(89 * DAY);
        sweep(&server).await;
        assert_eq!(files(&server, &working.workspace).len(), kept);
        assert_eq!(get(&server, &output).await, (StatusCode::OK, "content".to_owned()));

        server.app.scheduler.clock.advance(2 * DAY);
        sweep(&server).await;
        assert_eq!(files(&server, &working.workspace), Vec::<PathBuf>::new());
        let (status, answer) = get(&server, &output).await;
        assert_eq!(status, StatusCode::GONE);
        assert!(answer.contains("retention removed it"), "{answer}");
    }

    /// A configuration version with an archive.
    async fn uploaded(server: &InProcess) -> (String, String) {
        let (id, path) = server.configuration_version().await;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, "main.tf", io::empty()).unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut packed, &tar.into_inner().unwrap()).unwrap();
        let archive = packed.finish().unwrap();
        let (status, answer) = server.call(Method::PUT, &path, "", &[], archive).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        (id, path)
    }

    #[tokio::test]
    async fn configurations_that_no_kept_run_needs_are_removed_but_for_the_latest() {
        let server = server().await;
        let (unused, path) = uploaded(&server).await;
        server.app.scheduler.clock.advance(Duration::from_secs(1));
        let (used, _) = uploaded(&server).await;
        let run = |version: &str| {
            let of = |kind: &str, id: &str| json!({ "data": { "type": kind, "id": id } });
            let relationships = json!({
                "workspace": of("workspaces", &server.workspace),
                "configuration-version": of("configuration-versions", version),
            });
            json!({ "data": { "relationships": relationships } })
        };
        server.api(Method::POST, "/runs", run(&used)).await;
        server.app.scheduler.clock.advance(Duration::from_secs(1));
        uploaded(&server).await;
        server.app.scheduler.clock.advance(91 * DAY);
        sweep(&server).await;
        assert_eq!(files(&server, &server.workspace).len(), 2);
        for (version, status) in [(&unused, "removed"), (&used, "uploaded")] {
            let path = format!("/configuration-versions/{version}");
            let found = server.api(Method::GET, &path, Value::Null).await;
            assert_eq!(found["data"]["attributes"]["status"], status);
        }
        let body = run(&unused).to_string();
        let runs = "/api/iacp/v3/runs";
        let (status, answer) = server.call(Method::POST, runs, &server.admin, &[], body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(String::from_utf8_lossy(&answer).contains("retention removed it"), "{answer:?}");
        let (status, _) = server.call(Method::PUT, &path, "", &[], "x").await;
        assert_eq!(status, StatusCode::GONE);
    }

    #[tokio::test]
    async fn an_upload_that_was_never_finished_is_closed_after_a_day() {
        let server = server().await;
        let (_, path) = server.configuration_version().await;
        server.app.scheduler.clock.advance(DAY + Duration::from_secs(1));
        sweep(&server).await;
        let (status, answer) = server.call(Method::PUT, &path, "", &[], "x").await;
        assert_eq!(status, StatusCode::GONE);
        assert!(String::from_utf8_lossy(&answer).contains("retention removed it"), "{answer:?}");
    }

    #[tokio::test]
    async fn files_that_a_crash_left_are_deleted_when_they_are_old() {
        let server = server().await;
        upload_state(&server, 1).await;
        let objects = server.app.scheduler.objects.folder();
        for left in [
            format!("{}/states/sv-1.json", server.workspace),
            format!("{}/plans/task-1.1", server.workspace),
            "ws-gone/configurations/cv-1.tar.gz".to_owned(),
        ] {
            let path = objects.join(left);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        server.app.sweep_content(RETENTION, GRACE).await.unwrap();
        assert_eq!(files(&server, &server.workspace).len(), 3, "they may be about to be used");
        sweep(&server).await;
        assert_eq!(files(&server, &server.workspace).len(), 1);
        assert_eq!(files(&server, "ws-gone").len(), 0);
    }
}

//! How much a workspace and the account may store.
//!
//! A quota refuses what begins: an upload by a client, and a new run. What a run under way
//! writes is always taken: without its state, plan or log, it would have been in vain, and a
//! lost state is worse than a disk that fills up. Its own limits bound it.

use std::fmt::Display;

use anyhow::Context as _;
use axum::http::StatusCode;

use crate::api::json_api::ApiError;
use crate::app::{App, Parts};
use crate::store::workspace::{self, Workspace};
use crate::usage::{Quotas, Sizes};

/// How many of the largest workspaces an answer names.
const NAMED: usize = 3;

/// Checks that a workspace may store `new` bytes more.
///
/// # Errors
/// It or the account has a quota that does not allow it.
pub(in crate::api) async fn check(
    app: &App,
    workspace: &Workspace,
    new: u64,
) -> Result<(), ApiError> {
    let Quotas { workspace: of_workspace, account: of_account } = app.quotas;
    if let Some(quota) = of_workspace {
        let ids = vec![workspace.id.clone()];
        let sizes = sizes(app, ids).await?.into_iter().next().unwrap_or_default();
        let whose = format!("workspace {}", workspace.name);
        let advice = "or delete the workspace if nobody needs it";
        fits(&whose, quota, "--workspace-quota", sizes, new, advice)?;
    }
    let Some(quota) = of_account else { return Ok(()) };
    let mut db = app.scheduler.store.read().await?;
    let (ids, names): (Vec<_>, Vec<_>) = workspace::names(&mut db).await?.into_iter().unzip();
    drop(db);
    let sizes = sizes(app, ids).await?;
    let mut all = Sizes::default();
    sizes.iter().for_each(|sizes| all += *sizes);
    let mut largest: Vec<_> = names.iter().zip(&sizes).collect();
    largest.sort_by_key(|(_, sizes)| std::cmp::Reverse(sizes.total()));
    let largest: Vec<String> = largest
        .into_iter()
        .take(NAMED)
        .map(|(name, sizes)| format!("{name} ({})", mib(sizes.total())))
        .collect();
    let advice = format!(
        "or delete workspaces that nobody needs. The largest ones are {}",
        largest.join(", ")
    );
    fits("account", quota, "--account-quota", all, new, advice)
}

fn fits(
    whose: &str,
    quota: u64,
    option: &str,
    sizes: Sizes,
    new: u64,
    advice: impl Display,
) -> Result<(), ApiError> {
    if sizes.total().saturating_add(new) <= quota {
        return Ok(());
    }
    let upload = if new > 0 { format!("the upload has {}, and ", mib(new)) } else { String::new() };
    let detail = format!(
        "The quota of the {whose} is {} ({option}): {upload}it stores {} already: {} of states, {} \
         of configurations, {} of logs and plans. Let the server keep less (--keep-states, \
         --keep-runs) or raise the quota, {advice}.",
        mib(quota),
        mib(sizes.total()),
        mib(sizes.states),
        mib(sizes.configurations),
        mib(sizes.runs),
    );
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Quota Exceeded").detail(detail))
}

async fn sizes(app: &App, workspaces: Vec<String>) -> anyhow::Result<Vec<Sizes>> {
    let app = App::clone(app);
    let measured = tokio::task::spawn_blocking(move || {
        let Parts { scheduler, logs, usage, .. } = &*app;
        workspaces
            .iter()
            .map(|id| usage.of(id, scheduler.objects.folder(), logs.folder()))
            .collect::<std::io::Result<Vec<Sizes>>>()
    });
    measured.await?.context("cannot measure what the workspaces store")
}

/// Rounded up, so that no quota looks as if there were space left.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use md5::{Digest as _, Md5};
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::{InProcess, Working};
    use protocol::BASE;

    const MIB: u64 = 1024 * 1024;

    async fn put(server: &InProcess, working: &Working, what: &str, content: Vec<u8>) {
        let path = format!("{BASE}/tasks/{}/{what}", working.task);
        let (status, answer) =
            server.call(Method::PUT, &path, &working.task_token, &[], content).await;
        assert!(status.is_success(), "{what}: {status} {answer:?}");
    }

    async fn post(server: &InProcess, path: &str, workspace: &str, attributes: Value) -> Value {
        let related = json!({ "workspace": { "data": { "type": "workspaces", "id": workspace } } });
        let document = json!({ "data": { "attributes": attributes, "relationships": related } });
        let path = format!("/api/iacp/v3{path}");
        let body = document.to_string();
        let (status, answer) = server.call(Method::POST, &path, &server.admin, &[], body).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["errors"].is_null(), status.is_success(), "{status}: {answer}");
        answer
    }

    fn detail(answer: &Value) -> &str {
        assert_eq!(answer["errors"][0]["title"], "Quota Exceeded", "{answer}");
        assert_eq!(answer["errors"][0]["status"], "422", "{answer}");
        answer["errors"][0]["detail"].as_str().unwrap()
    }

    fn state(length: u64) -> Value {
        let filler = "x".repeat(usize::try_from(length).unwrap());
        let state = json!({ "version": 4, "serial": 1, "lineage": "x", "filler": filler });
        json!({ "state": STANDARD.encode(state.to_string()) })
    }

    #[tokio::test]
    async fn a_full_workspace_takes_no_upload_and_no_run_but_all_that_a_run_under_way_writes() {
        let quotas = Quotas { workspace: Some(2 * MIB), account: None };
        let server = InProcess::with_quotas(quotas).await;
        let working = server.working().await;
        let (_, configuration) = server.configuration_version_of(&working.workspace).await;
        // More than the quota, by a run that was there before.
        for what in ["plan?attempt=1", "plan-files?attempt=1", "lock-file?attempt=1"] {
            put(&server, &working, what, vec![0; 1024 * 1024]).await;
        }
        // The times of the log have the rest of a MiB.
        put(&server, &working, "log?attempt=1&offset=0", vec![b'x'; 1000 * 1024]).await;

        let workspace = &working.workspace;
        let refused = post(&server, "/state-versions", workspace, state(9)).await;
        for part in ["is 2 MiB (--workspace-quota)", "4 MiB of logs and plans", "--keep-runs"] {
            assert!(detail(&refused).contains(part), "{part}: {refused}");
        }
        let refused = post(&server, "/runs", workspace, json!({})).await;
        assert!(detail(&refused).contains("stores 4 MiB already"), "{refused}");
        let (status, answer) = server.call(Method::PUT, &configuration, "", &[], "x").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        detail(&serde_json::from_slice(&answer).unwrap());

        // Others have a quota of their own.
        post(&server, "/state-versions", &server.workspace, state(9)).await;
        let refused = post(&server, "/state-versions", &server.workspace, state(2 * MIB)).await;
        assert!(detail(&refused).contains("the upload has 3 MiB"), "{refused}");
        let folder = server.app.scheduler.objects.folder();
        let states = std::fs::read_dir(folder.join(&server.workspace).join("states")).unwrap();
        assert_eq!(states.count(), 1, "nothing is left of what was refused");
    }

    #[tokio::test]
    async fn states_and_rollbacks_by_terraforms_api_count_too() {
        let server =
            InProcess::with_quotas(Quotas { workspace: Some(2 * MIB), account: None }).await;
        let path = format!("/api/v2/workspaces/{}/state-versions", server.workspace);
        let call = async |method, data: Value| {
            let body = json!({ "data": data }).to_string();
            let (status, answer) = server.call(method, &path, &server.admin, &[], body).await;
            (status, serde_json::from_slice::<Value>(&answer).unwrap())
        };
        let upload = async |serial: u32, length: usize| {
            let filler = "x".repeat(length);
            let state = json!({ "version": 4, "serial": serial, "lineage": "x", "filler": filler });
            let state = state.to_string();
            let attributes = json!({
                "serial": serial, "lineage": "x", "state": STANDARD.encode(&state),
                "md5": hex::encode(Md5::digest(&state)),
            });
            call(Method::POST, json!({ "attributes": attributes })).await
        };
        let (_, large) = upload(1, 3 << 19).await;
        let earlier = json!({ "data": { "type": "state-versions", "id": large["data"]["id"] } });
        assert_eq!(upload(2, 9).await.0, StatusCode::CREATED);
        let (_, refused) = upload(3, 1 << 20).await;
        assert!(detail(&refused).contains("the upload has 2 MiB"), "{refused}");
        let rollback = json!({ "relationships": { "rollback-state-version": earlier } });
        let (_, refused) = call(Method::PATCH, rollback).await;
        assert!(detail(&refused).contains("the upload has 2 MiB"), "{refused}");
        assert_eq!(upload(3, 9).await.0, StatusCode::CREATED);
    }

    #[tokio::test]
    async fn a_full_account_names_its_largest_workspaces_and_a_deleted_one_makes_room() {
        let quotas = Quotas { workspace: None, account: Some(2 * MIB) };
        let server = InProcess::with_quotas(quotas).await;
        let working = server.working().await;
        put(&server, &working, "plan?attempt=1", vec![0; 2 * 1024 * 1024]).await;
        let refused = post(&server, "/state-versions", &server.workspace, state(9)).await;
        assert!(detail(&refused).contains("is 2 MiB (--account-quota)"), "{refused}");
        assert!(detail(&refused).contains("The largest ones are workspace-"), "{refused}");
        assert!(detail(&refused).contains("(2 MiB), main (0 MiB)."), "{refused}");
        server.app.scheduler.objects.delete_workspace(&working.workspace).await.unwrap();
        post(&server, "/state-versions", &server.workspace, state(9)).await;
    }
}

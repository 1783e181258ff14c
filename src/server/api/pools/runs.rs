//! Runs, and what can be done with them.

use std::slice;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::document::{Document, Payload, to_one};
use super::error::ApiError;
use super::query::ListQuery;
use super::{quotas, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::scheduler::{NewRun, pool_of};
use crate::store::run::{self, Filter, Run, Status};
use crate::store::task::{self, Phase, Task};
use crate::store::workspace::{self, Workspace};
use crate::store::{Connection, configuration_version};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/runs", get(list).post(create))
        .route("/runs/{id}", get(read))
        .route("/runs/{id}/actions/apply", post(apply))
        .route("/runs/{id}/actions/discard", post(discard))
        .route("/runs/{id}/actions/cancel", post(cancel))
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("run"),
        workspace: query.filter("workspace"),
        status: query.filter("status"),
    };
    let listed = run::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, &listed, &query))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let run = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &run).await?))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::related(&mut db, &payload).await?;
    let configuration_version_id = configuration(&mut db, &workspace, &payload).await?;
    if pool_of(&mut db, &workspace).await?.is_none() {
        return Err(ApiError::relationship(
            "workspace",
            "The workspace has no agent pool: link it to one, or give its environment or the \
             account a default pool.",
        ));
    }
    drop(db);
    quotas::check(&app, &workspace, 0).await?;
    let run = app
        .scheduler
        .create_run(NewRun {
            workspace_id: workspace.id,
            configuration_version_id,
            source: "api",
            message: payload.text("message")?.flatten(),
            is_destroy: payload.attribute("is-destroy")?.unwrap_or(false),
            auto_apply: payload.attribute("auto-apply")?.unwrap_or(workspace.auto_apply),
        })
        .await?;
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::created(render(&mut db, &run).await?))
}

async fn apply(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.confirm(&id).await?;
    accepted(&app, &run).await
}

async fn discard(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.discard(&id).await?;
    accepted(&app, &run).await
}

async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.cancel(&id).await?;
    accepted(&app, &run).await
}

async fn find(db: &mut Connection, id: &str) -> Result<Run, ApiError> {
    run::find(db, id).await?.ok_or_else(|| ApiError::not_found("Run", id))
}

async fn known(app: &App, id: &str) -> Result<(), ApiError> {
    let mut db = app.scheduler.store.read().await?;
    find(&mut db, id).await.map(drop)
}

async fn accepted(app: &App, run: &Run) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::accepted(render(&mut db, run).await?))
}

/// What a new run is to run: what it says, else the workspace's latest.
async fn configuration(
    db: &mut Connection,
    workspace: &Workspace,
    payload: &Payload,
) -> Result<String, ApiError> {
    const NAME: &str = "configuration-version";
    let Some(id) = payload.to_one(NAME)?.flatten() else {
        let latest = configuration_version::latest_uploaded(db, &workspace.id).await?;
        return latest.map(|version| version.id).ok_or_else(|| {
            ApiError::relationship(
                NAME,
                "No configuration versions available to create the run from. Upload at least one \
                 or link the workspace to a VCS provider.",
            )
        });
    };
    let version = configuration_version::find(db, &id)
        .await?
        .filter(|version| version.workspace_id == workspace.id)
        .ok_or_else(|| ApiError::no_related(NAME, "ConfigurationVersion", &id))?;
    if let Some(removed_at) = version.removed_at {
        return Err(ApiError::relationship(
            NAME,
            format!(
                "It is gone: the server's retention removed it at {}. Upload a new one.",
                rfc3339(removed_at)
            ),
        ));
    }
    match version.uploaded {
        true => Ok(version.id),
        false => Err(ApiError::relationship(NAME, "Its archive has not been uploaded yet.")),
    }
}

/// The runs with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let runs = run::with_ids(db, ids).await?;
    render_all(db, &runs).await
}

async fn render(db: &mut Connection, run: &Run) -> Result<Value, ApiError> {
    Ok(render_all(db, slice::from_ref(run)).await?.remove(0))
}

async fn render_all(db: &mut Connection, runs: &[Run]) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let tasks = task::of_runs(db, &ids).await?;
    let phase = |run: &Run, phase| {
        let task = tasks.iter().find(|task| task.run_id == run.id && task.phase == phase);
        task.context("a run without its tasks")
    };
    let workspace_ids: Vec<&str> = runs.iter().map(|run| run.workspace_id.as_str()).collect();
    let locks = workspace::locks_of(db, &workspace_ids).await?;
    let render = |run: &Run| {
        let (plan, apply) = (phase(run, Phase::Plan)?, phase(run, Phase::Apply)?);
        let lock = locks.iter().find(|(workspace, _)| *workspace == run.workspace_id);
        Ok(render_with(run, plan, apply, lock.map(|(_, reason)| reason.as_str())))
    };
    runs.iter().map(render).collect()
}

/// `lock` is why its workspace is locked.
fn render_with(run: &Run, plan: &Task, apply: &Task, lock: Option<&str>) -> Value {
    let pending_reason = match (run.status, lock) {
        (Status::Pending, Some(reason)) => Some(format!("The workspace is locked. {reason}")),
        (Status::Pending, None) => Some("Another run of the workspace goes first.".to_owned()),
        _ => None,
    };
    let configuration_version = Some(run.configuration_version_id.as_str());
    json!({
        "type": "runs",
        "id": run.id,
        "attributes": {
            "status": run.status,
            "pending-reason": pending_reason,
            "source": run.source,
            "message": run.message,
            "is-destroy": run.is_destroy,
            "auto-apply": run.auto_apply,
            "has-changes": run.has_changes,
            "error-message": run.error_message,
            "created-at": rfc3339(run.created_at),
            "updated-at": rfc3339(run.updated_at),
        },
        "relationships": {
            "workspace": to_one("workspaces", Some(&run.workspace_id)),
            "configuration-version": to_one("configuration-versions", configuration_version),
            "agent-pool": to_one("agent-pools", plan.pool_id.as_deref()),
            "plan": to_one("plans", Some(&plan.phase_id)),
            "apply": to_one("applies", Some(&apply.phase_id)),
        },
    })
}

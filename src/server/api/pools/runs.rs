//! Runs, and what can be done with them.

use std::slice;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::run_events::{self, Decided};
use super::{quotas, workspaces};
use crate::api::calls::{About, Calls, Content, document_with};
use crate::api::json_api::{ApiError, Document, MEDIA_TYPE, to_one};
use crate::api::value_type::ValueType;
use crate::app::App;
use crate::clock::rfc3339;
use crate::scheduler::{Decision, NewRun, force_cancel_available_at, pool_of};
use crate::store::run::{self, Filter, Run, Source, Status};
use crate::store::run_event::Actor;
use crate::store::task::{self, Phase, State as TaskState, Task};
use crate::store::workspace::{self, ExecutionMode, Workspace};
use crate::store::{Connection, agent, configuration_version};
use protocol::{Refresh, RunOptions};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/runs", "List runs", list)
        .post("/runs", "Create a run", create)
        .get("/runs/{id}", "Read a run", read)
        .post("/runs/{id}/actions/apply", decision("Apply a planned run"), apply)
        .post("/runs/{id}/actions/discard", decision("Discard a planned run"), discard)
        .post("/runs/{id}/actions/cancel", decision("Cancel a run"), cancel)
        .post("/runs/{id}/actions/force-cancel", decision("Cancel a run at once"), force_cancel)
        .merge(run_events::calls())
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
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let run = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &run).await?))
}

async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let source = source(&payload)?;
    let run = start(&app, actor, &payload, source).await?;
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::created(render(&mut db, &run).await?))
}

/// Makes a run.
pub(crate) async fn start(
    app: &App,
    actor: Actor,
    payload: &Payload,
    source: Source,
) -> Result<Run, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::related(&mut db, payload).await?;
    let configuration_version_id = configuration(&mut db, &workspace, payload).await?;
    check_remote(&workspace)?;
    if pool_of(&mut db, &workspace).await?.is_none() {
        return Err(ApiError::relationship(
            "workspace",
            "The workspace has no agent pool: link it to one, or give its environment or the \
             account a default pool.",
        ));
    }
    drop(db);
    quotas::check(app, &workspace, 0).await?;
    let new = NewRun {
        workspace_id: workspace.id,
        configuration_version_id,
        source,
        message: payload.text("message")?.flatten(),
        is_destroy: payload.attribute("is-destroy")?.unwrap_or(false),
        auto_apply: payload.attribute("auto-apply")?,
        is_plan_only: payload.either("plan-only", "is-dry")?.unwrap_or(false),
        save_plan: payload.attribute("save-plan")?.unwrap_or(false),
        allow_empty_apply: payload.attribute("allow-empty-apply")?.unwrap_or(false),
        terraform_version: payload.text("terraform-version")?.flatten(),
        options: RunOptions {
            refresh: refresh(payload)?,
            targets: payload.attribute("target-addrs")?.unwrap_or_default(),
            replace: payload.attribute("replace-addrs")?.unwrap_or_default(),
        },
        variables: variables(payload)?,
        by: Decision { actor, comment: None },
    };
    Ok(app.scheduler.create_run(new).await?)
}

/// How both APIs describe what can be done with a run.
pub(in crate::api) fn decision(summary: &'static str) -> About {
    About::from(summary)
        .takes("application/json", false, || {
            json!({
                "type": "object",
                "properties": { "comment": ValueType::OrNull(&ValueType::Text).schema() },
            })
        })
        .answers(StatusCode::ACCEPTED, Content::Other(MEDIA_TYPE, || document_with("runs")))
}

pub(in crate::api) async fn apply(
    State(app): State<App>,
    Path(id): Path<String>,
    Decided(decision): Decided,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.confirm(&id, decision).await?;
    accepted(&app, &run).await
}

pub(in crate::api) async fn discard(
    State(app): State<App>,
    Path(id): Path<String>,
    Decided(decision): Decided,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.discard(&id, decision).await?;
    accepted(&app, &run).await
}

pub(in crate::api) async fn cancel(
    State(app): State<App>,
    Path(id): Path<String>,
    Decided(decision): Decided,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.cancel(&id, decision).await?;
    accepted(&app, &run).await
}

pub(in crate::api) async fn force_cancel(
    State(app): State<App>,
    Path(id): Path<String>,
    Decided(decision): Decided,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let run = app.scheduler.force_cancel(&id, decision).await?;
    accepted(&app, &run).await
}

fn source(payload: &Payload) -> Result<Source, ApiError> {
    match payload.attribute::<String>("source")?.as_deref() {
        None | Some("api" | "tfe-api") => Ok(Source::Api),
        Some("cli") => Ok(Source::Cli),
        Some("ui") => Ok(Source::Ui),
        Some(_) => Err(ApiError::attribute("source", "A run comes from one of: api, cli, ui.")),
    }
}

fn refresh(payload: &Payload) -> Result<Refresh, ApiError> {
    let (refresh, only) = (payload.attribute("refresh")?, payload.attribute("refresh-only")?);
    match (refresh.unwrap_or(true), only.unwrap_or(false)) {
        (true, false) => Ok(Refresh::First),
        (true, true) => Ok(Refresh::Only),
        (false, false) => Ok(Refresh::Skip),
        (false, true) => Err(ApiError::attribute(
            "refresh-only",
            "A run with refresh false cannot be refresh-only.",
        )),
    }
}

fn variables(payload: &Payload) -> Result<Vec<(String, String)>, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Variable {
        key: String,
        value: String,
    }
    let variables: Vec<Variable> = payload.attribute("variables")?.unwrap_or_default();
    Ok(variables.into_iter().map(|variable| (variable.key, variable.value)).collect())
}

async fn find(db: &mut Connection, id: &str) -> Result<Run, ApiError> {
    run::find(db, id).await?.ok_or_else(|| ApiError::not_found("Run", id))
}

pub(super) async fn known(app: &App, id: &str) -> Result<(), ApiError> {
    let mut db = app.scheduler.store.read().await?;
    find(&mut db, id).await.map(drop)
}

async fn accepted(app: &App, run: &Run) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::accepted(render(&mut db, run).await?))
}

/// Checks that runs of a workspace are this server's.
fn check_remote(workspace: &Workspace) -> Result<(), ApiError> {
    match workspace.execution_mode {
        ExecutionMode::Remote => Ok(()),
        ExecutionMode::Local => Err(ApiError::relationship(
            "workspace",
            "The workspace's execution mode is local: plan and apply with Terraform on your \
             machine, or set execution-mode to remote.",
        )),
    }
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
    let queues = run::queues(db, &workspace_ids).await?;
    let pools: Vec<&str> = tasks.iter().filter_map(|task| task.pool_id.as_deref()).collect();
    let levels = agent::levels_of(db, &pools).await?;
    let render = |run: &Run| {
        let (plan, apply) = (phase(run, Phase::Plan)?, phase(run, Phase::Apply)?);
        let lock = locks.iter().find(|(workspace, _)| *workspace == run.workspace_id);
        let mut queue = queues.iter().filter(|(workspace, _)| *workspace == run.workspace_id);
        let place = Place {
            lock: lock.map(|(_, reason)| reason.as_str()),
            position: queue.position(|(_, id)| *id == run.id),
            has_no_agent_for: [plan, apply].into_iter().any(|task| {
                task.state == TaskState::Queued
                    && levels.iter().any(|(pool, level)| {
                        Some(pool) == task.pool_id.as_ref() && *level < task.level
                    })
            }),
        };
        Ok(render_with(run, plan, apply, &place))
    };
    runs.iter().map(render).collect()
}

/// What a run waits for.
struct Place<'a> {
    /// Why its workspace is locked.
    lock: Option<&'a str>,
    /// How many runs of the workspace go first; none if it waits for no others.
    position: Option<usize>,
    /// Whether all agents of its pool are too old for what is queued.
    has_no_agent_for: bool,
}

fn pending_reason(run: &Run, place: &Place<'_>) -> Option<String> {
    match (run.status, place.lock) {
        (Status::Pending, Some(reason)) => Some(format!("The workspace is locked. {reason}")),
        (Status::Pending, None) => Some("Another run of the workspace goes first.".to_owned()),
        (Status::PlanQueued | Status::ApplyQueued, _) if place.has_no_agent_for => Some(
            "No agent of the pool supports the run's options or executes the hooks of its \
             environment: upgrade one, or start a run without them."
                .to_owned(),
        ),
        _ => None,
    }
}

fn render_with(run: &Run, plan: &Task, apply: &Task, place: &Place<'_>) -> Value {
    let RunOptions { refresh, targets, replace } = &run.inputs.options;
    let variables = run.inputs.variables.iter();
    let variables = variables.map(|(key, value)| json!({ "key": key, "value": value }));
    let is_planned = matches!(run.status, Status::Planned | Status::PlannedAndSaved);
    let force_cancel_at = force_cancel_available_at(run);
    let configuration_version = Some(run.configuration_version_id.as_str());
    json!({
        "type": "runs",
        "id": run.id,
        "attributes": {
            "status": run.status,
            "pending-reason": pending_reason(run, place),
            "position-in-queue": place.position,
            "source": run.source,
            "message": run.message,
            "is-destroy": run.is_destroy,
            "auto-apply": run.auto_apply,
            "plan-only": run.is_plan_only,
            "is-dry": run.is_plan_only,
            "save-plan": run.save_plan,
            "allow-empty-apply": run.allow_empty_apply,
            "refresh": *refresh != Refresh::Skip,
            "refresh-only": *refresh == Refresh::Only,
            "target-addrs": targets,
            "replace-addrs": replace,
            "variables": variables.collect::<Vec<_>>(),
            "terraform-version": run.terraform_version,
            "has-changes": run.has_changes,
            "error-message": run.error_message,
            "created-at": rfc3339(run.created_at),
            "updated-at": rfc3339(run.updated_at),
            "actions": {
                "is-cancelable": !is_planned && run.phase().is_some(),
                "is-confirmable": is_planned,
                "is-discardable": is_planned,
                "is-force-cancelable": force_cancel_at.is_some(),
            },
            "force-cancel-available-at": force_cancel_at.map(rfc3339),
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

//! Runs, and the queue that they wait in.

use std::slice;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::query::ListQuery;
use super::{organizations, phases, workspaces as terraform_workspaces};
use crate::api::calls::{About, Calls, document_of, schema_named, text};
use crate::api::json_api::{ApiError, Data, Document, MEDIA_TYPE, to_one};
use crate::api::pools::{Payload, runs, schema_of_attributes, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::scheduler::force_cancel_available_at;
use crate::store::run::{self, Filter, Run, Source, Status};
use crate::store::run_event::{self, Actor, RunEvent};
use crate::store::task::{self, Phase, Task};
use crate::store::{Connection, run_queue, workspace};
use protocol::Refresh;

pub(super) fn calls() -> Calls {
    Calls::default()
        .post(
            "/runs",
            About::one("Create a run", StatusCode::CREATED, "runs").takes(MEDIA_TYPE, true, schema),
            create,
        )
        .get(
            "/runs/{id}",
            About::one("Read a run", StatusCode::OK, "runs").parameter("include", text),
            read,
        )
        .get(
            "/runs/{id}/run-events",
            About::page("List the events of a run", "run-events"),
            list_events,
        )
        .get(
            "/runs/{id}/task-stages",
            About::page("List the task stages of a run", "task-stages"),
            list_nothing,
        )
        .get(
            "/runs/{id}/policy-checks",
            About::page("List the policy checks of a run", "policy-checks"),
            list_nothing,
        )
        .post("/runs/{id}/actions/apply", runs::decision("Apply a planned run"), runs::apply)
        .post("/runs/{id}/actions/discard", runs::decision("Discard a planned run"), runs::discard)
        .post("/runs/{id}/actions/cancel", runs::decision("Cancel a run"), runs::cancel)
        .post(
            "/runs/{id}/actions/force-cancel",
            runs::decision("Cancel a run at once"),
            runs::force_cancel,
        )
        .get("/workspaces/{id}/runs", About::page("List the runs of a workspace", "runs"), list)
        .get(
            "/organizations/{organization}/runs/queue",
            About::page("List the runs of an organization that wait or are under way", "runs"),
            queue,
        )
        .get(
            "/organizations/{organization}/capacity",
            About::one(
                "Count the runs of an organization that wait or are under way",
                StatusCode::OK,
                "organization-capacity",
            ),
            capacity,
        )
}

/// What the pool API's runs have, too.
const KNOWN: [&str; 13] = [
    "allow-empty-apply",
    "auto-apply",
    "is-destroy",
    "message",
    "plan-only",
    "refresh",
    "refresh-only",
    "replace-addrs",
    "save-plan",
    "target-addrs",
    "terraform-version",
    "variables",
    "source",
];

fn schema() -> Value {
    document_of(json!({
        "required": ["relationships"],
        "properties": {
            "attributes": {
                "type": "object",
                "properties": schema_of_attributes("runs", &KNOWN),
                "additionalProperties": { "enum": [null, false, []] },
            },
            "relationships": {
                "type": "object",
                "required": ["workspace"],
                "properties": {
                    "configuration-version": schema_named("to-one-or-none"),
                    "workspace": schema_named("to-one"),
                },
            },
        },
    }))
}

/// A new run as it comes in.
#[derive(Debug, Default, Deserialize)]
struct SentRun {
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    relationships: Map<String, Value>,
}

async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Data(sent): Data<SentRun>,
) -> Result<Document, ApiError> {
    for (name, value) in &sent.attributes {
        let is_nothing = matches!(value, Value::Null | Value::Bool(false)) || *value == json!([]);
        if !KNOWN.contains(&name.as_str()) && !is_nothing {
            return Err(ApiError::attribute(name, "This server's runs do not support it."));
        }
    }
    let SentRun { mut attributes, mut relationships } = sent;
    attributes.retain(|name, _| KNOWN.contains(&name.as_str()));
    relationships.retain(|name, _| ["workspace", "configuration-version"].contains(&name.as_str()));
    let payload = Payload::of("runs", attributes, relationships)?;
    let run = runs::start(&app, actor, &payload, Source::Cli).await?;
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::created(render(&mut db, &run).await?))
}

#[derive(Debug, Default, Deserialize)]
struct Include {
    #[serde(default)]
    include: String,
}

async fn read(
    State(app): State<App>,
    Path(id): Path<String>,
    include: Result<Query<Include>, QueryRejection>,
) -> Result<Document, ApiError> {
    let Query(Include { include }) = include?;
    let mut db = app.scheduler.store.read().await?;
    let run = find(&mut db, &id).await?;
    let resource = render(&mut db, &run).await?;
    let mut included = Vec::new();
    for name in include.split(',') {
        match name {
            "workspace" => {
                let workspace = workspaces::find(&mut db, &run.workspace_id).await?;
                included.push(terraform_workspaces::render(&mut db, &workspace).await?);
            }
            "plan" | "apply" => {
                let phase = if name == "plan" { Phase::Plan } else { Phase::Apply };
                let task = task::of_run(&mut db, &run.id, phase).await?;
                included.push(phases::render(&task, &run));
            }
            // Runs have no more than that here.
            _ => {}
        }
    }
    Ok(Document::of(resource).including(included))
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let filter = Filter { workspace: Some(&id), ..Filter::default() };
    let listed = run::list(&mut db, filter, query.page).await?;
    let resources = render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn queue(
    State(app): State<App>,
    Path(organization): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = organizations::find(&mut db, &organization).await?;
    let listed = run_queue::list(&mut db, &environment.id, query.page).await?;
    let mut resources = render_all(&mut db, &listed.rows).await?;
    let before = (query.page.number - 1).saturating_mul(query.page.size);
    for (position, resource) in (1..).zip(&mut resources) {
        resource["attributes"]["position-in-queue"] = before.saturating_add(position).into();
    }
    Ok(Document::page(resources, listed.total, query.page))
}

async fn capacity(
    State(app): State<App>,
    Path(organization): Path<String>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = organizations::find(&mut db, &organization).await?;
    let (pending, running) = run_queue::counts(&mut db, &environment.id).await?;
    Ok(Document::of(json!({
        "type": "organization-capacity",
        "id": environment.name,
        "attributes": { "pending": pending, "running": running },
    })))
}

async fn list_events(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    find(&mut db, &id).await?;
    let listed = run_event::list(&mut db, &id, None, query.page.into()).await?;
    let resources = listed.rows.iter().map(render_event).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

fn render_event(event: &RunEvent) -> Value {
    json!({
        "type": "run-events",
        "id": event.id,
        "attributes": {
            "action": event.action,
            "created-at": rfc3339(event.created_at),
            "description": event.comment,
        },
    })
}

/// Runs have no task stages and no policy checks.
async fn list_nothing(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    find(&mut db, &id).await?;
    Ok(Document::page(Vec::new(), 0, query.page))
}

async fn find(db: &mut Connection, id: &str) -> Result<Run, ApiError> {
    run::find(db, id).await?.ok_or_else(|| ApiError::not_found("Run", id))
}

async fn render(db: &mut Connection, run: &Run) -> Result<Value, ApiError> {
    Ok(render_all(db, slice::from_ref(run)).await?.remove(0))
}

async fn render_all(db: &mut Connection, runs: &[Run]) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let tasks = task::of_runs(db, &ids).await?;
    let workspaces: Vec<&str> = runs.iter().map(|run| run.workspace_id.as_str()).collect();
    let locks = workspace::locks_of(db, &workspaces).await?;
    let render = |run: &Run| {
        let of_phase = |phase| {
            let task = tasks.iter().find(|task| task.run_id == run.id && task.phase == phase);
            task.context("a run without its tasks")
        };
        let is_locked = locks.iter().any(|(workspace, _)| *workspace == run.workspace_id);
        Ok(render_with(run, of_phase(Phase::Plan)?, of_phase(Phase::Apply)?, is_locked))
    };
    runs.iter().map(render).collect()
}

/// How far a run is, in the words that Terraform knows.
fn status(run: &Run) -> &'static str {
    match (run.status, run.phase()) {
        (Status::Canceling, Some(Phase::Apply)) => "applying",
        (Status::Canceling, _) => "planning",
        (status, _) => status.name(),
    }
}

fn render_with(run: &Run, plan: &Task, apply: &Task, is_locked: bool) -> Value {
    let is_planned = matches!(run.status, Status::Planned | Status::PlannedAndSaved);
    let refresh = run.inputs.options.refresh;
    json!({
        "type": "runs",
        "id": run.id,
        "attributes": {
            "status": status(run),
            "source": "tfe-api",
            "message": run.message,
            "error-message": run.error_message,
            "auto-apply": run.auto_apply,
            "created-at": rfc3339(run.created_at),
            "has-changes": run.has_changes.unwrap_or(false),
            "is-destroy": run.is_destroy,
            "plan-only": run.is_plan_only,
            "save-plan": run.save_plan,
            "allow-empty-apply": run.allow_empty_apply,
            "refresh": refresh != Refresh::Skip,
            "refresh-only": refresh == Refresh::Only,
            "target-addrs": run.inputs.options.targets,
            "replace-addrs": run.inputs.options.replace,
            "terraform-version": run.terraform_version,
            "position-in-queue": 0,
            "actions": {
                "is-cancelable": run.phase().is_some() && run.status != Status::Canceling,
                "is-confirmable": is_planned && !is_locked,
                "is-discardable": is_planned,
                "is-force-cancelable": force_cancel_available_at(run).is_some(),
            },
            "force-cancel-available-at": force_cancel_available_at(run).map(rfc3339),
            "permissions": {
                "can-apply": true,
                "can-cancel": true,
                "can-comment": true,
                "can-discard": true,
                "can-force-cancel": true,
                "can-force-execute": false,
                "can-override-policy-check": false,
            },
            "status-timestamps": {
                "plan-queued-at": plan.queued_at.map(rfc3339),
                "planning-at": plan.started_at.map(rfc3339),
                "apply-queued-at": apply.queued_at.map(rfc3339),
                "applying-at": apply.started_at.map(rfc3339),
            },
        },
        "relationships": {
            "workspace": to_one("workspaces", Some(&run.workspace_id)),
            "configuration-version":
                to_one("configuration-versions", Some(&run.configuration_version_id)),
            "plan": to_one("plans", Some(&plan.phase_id)),
            "apply": to_one("applies", Some(&apply.phase_id)),
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn the_queue_has_a_last_page_number_like_any_list() {
        let server = InProcess::new().await;
        server.run().await;
        for (number, count) in [(1, 1), (i64::MAX, 0)] {
            let path = format!("/api/v2/organizations/default/runs/queue?page[number]={number}");
            let (status, body) = server.call(Method::GET, &path, &server.admin, &[], "").await;
            assert_eq!(status, StatusCode::OK, "{number}: {body:?}");
            let answer: Value = serde_json::from_slice(&body).unwrap();
            let runs = answer["data"].as_array().unwrap();
            assert_eq!(runs.len(), count, "{answer}");
            let position = |run: &Value| run["attributes"]["position-in-queue"] == 1;
            assert!(runs.iter().all(position), "{answer}");
        }
    }
}

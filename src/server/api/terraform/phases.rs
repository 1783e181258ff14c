//! Plans and applies, with the links to their logs.

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::access::Admin;
use super::{BASE, logs};
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document};
use crate::api::pools::phases as pool_phases;
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::run::{self, Run};
use crate::store::task::{self, Phase, State as TaskState, Task};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/plans/{id}", About::one("Read a plan", StatusCode::OK, "plans"), read_plan)
        .get(
            "/plans/{id}/json-output",
            pool_phases::plan_json_about("Read a plan as JSON"),
            pool_phases::plan_json,
        )
        .get("/applies/{id}", About::one("Read an apply", StatusCode::OK, "applies"), read_apply)
}

async fn read_plan(
    State(app): State<App>,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Document, ApiError> {
    read(&app, &admin, Phase::Plan, &id).await
}

async fn read_apply(
    State(app): State<App>,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Document, ApiError> {
    read(&app, &admin, Phase::Apply, &id).await
}

async fn read(app: &App, admin: &Admin, phase: Phase, id: &str) -> Result<Document, ApiError> {
    let kind = match phase {
        Phase::Plan => "Plan",
        Phase::Apply => "Apply",
    };
    let mut db = app.scheduler.store.read().await?;
    let task = task::find_phase(&mut db, id).await?.filter(|task| task.phase == phase);
    let task = task.ok_or_else(|| ApiError::not_found(kind, id))?;
    let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
    drop(db);
    let mut resource = render(&task, &run);
    let secret = logs::secret(app, id, &admin.0.id).await?;
    let link = app.link(&format!("{BASE}/logs/{id}/{secret}"));
    resource["attributes"]["log-read-url"] = link.into();
    Ok(Document::of(resource))
}

/// A plan or an apply as Terraform knows it, but for the link to its log.
pub(super) fn render(task: &Task, run: &Run) -> Value {
    let kind = match task.phase {
        Phase::Plan => "plans",
        Phase::Apply => "applies",
    };
    let status = match task.state {
        TaskState::Pending => "pending",
        TaskState::Queued | TaskState::Offered | TaskState::Claimed => "queued",
        // Terraform stops reading the log of an unreachable one, which may come back.
        TaskState::Running | TaskState::Unreachable => "running",
        TaskState::Finished => "finished",
        TaskState::Errored => "errored",
        TaskState::Canceled => "canceled",
    };
    let summary = task.summary.0;
    json!({
        "type": kind,
        "id": task.phase_id,
        "attributes": {
            "resource-additions": summary.map(|of| of.additions),
            "resource-changes": summary.map(|of| of.changes),
            "resource-destructions": summary.map(|of| of.destructions),
            "resource-imports": summary.map(|of| of.imports),
            "has-changes": run.has_changes.unwrap_or(false) && task.phase == Phase::Plan,
            "status": status,
            "status-timestamps": {
                "queued-at": task.queued_at.map(rfc3339),
                "started-at": task.started_at.map(rfc3339),
                "finished-at": task.ended_at.map(rfc3339),
            },
        },
    })
}

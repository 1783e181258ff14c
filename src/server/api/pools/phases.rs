//! Plans and applies, and their output while it grows.
//!
//! Who follows an output asks for what is new: with `?offset=N`, or with
//! `Range: bytes=N-`.

use std::io::SeekFrom;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::api::calls::{About, Calls, Content};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::logs::Key;
use crate::objects;
use crate::store::Connection;
use crate::store::run::{self, Run};
use crate::store::task::{self, Phase, State as TaskState, Task};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/plans/{id}", "Read a plan", read_plan)
        .get("/plans/{id}/output", output_of("Read the output of a plan"), plan_output)
        .get("/plans/{id}/json-output", plan_json_about("Read a plan as JSON"), plan_json)
        .get("/applies/{id}", "Read an apply", read_apply)
        .get("/applies/{id}/output", output_of("Read the output of an apply"), apply_output)
}

fn output_of(summary: &'static str) -> About {
    const TEXT: Content = Content::Other("text/plain", || json!({ "type": "string" }));
    About::from(summary)
        .details(
            "From `offset` on, in bytes, or from N on with a header `Range: bytes=N-`, to where \
             the output ends now. 204: there is nothing new yet.",
        )
        .parameter("offset", || json!({ "type": "integer", "minimum": 0 }))
        .answers(StatusCode::OK, TEXT)
        .answers(StatusCode::NO_CONTENT, Content::Nothing)
        .answers(StatusCode::PARTIAL_CONTENT, TEXT)
}

/// How both APIs describe [`plan_json`].
pub(in crate::api) fn plan_json_about(summary: &'static str) -> About {
    About::from(summary)
        .details("What `terraform show -json` says of the plan, with sensitive values masked.")
        .answers(StatusCode::OK, Content::Other("application/json", || json!({ "type": "object" })))
        .answers(StatusCode::NO_CONTENT, Content::Nothing)
}

async fn read_plan(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let (task, run) = find(&app, Phase::Plan, &id).await?;
    Ok(Document::of(render(&task, &run)))
}

async fn read_apply(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let (task, run) = find(&app, Phase::Apply, &id).await?;
    Ok(Document::of(render(&task, &run)))
}

async fn plan_output(
    State(app): State<App>,
    Path(id): Path<String>,
    from: Result<Query<From>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (task, run) = find(&app, Phase::Plan, &id).await?;
    output(&app, task, run, from?.0, &headers).await
}

async fn apply_output(
    State(app): State<App>,
    Path(id): Path<String>,
    from: Result<Query<From>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (task, run) = find(&app, Phase::Apply, &id).await?;
    output(&app, task, run, from?.0, &headers).await
}

/// What Terraform says of the plan in JSON, without what is sensitive. 204 when there is
/// none.
pub(in crate::api) async fn plan_json(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (task, run) = find(&app, Phase::Plan, &id).await?;
    let key = objects::plan_json(&run.workspace_id, &task.id, task.attempt);
    let found = app.scheduler.objects.get(&key)?.filter(|_| task.state == TaskState::Finished);
    if let Some(removed_at) = run.files_removed_at {
        return Err(ApiError::gone(&format!("JSON of {}", task.phase_id), removed_at));
    }
    let Some(json) = found else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let mut response = objects::answer(json)?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct From {
    #[serde(default)]
    offset: u64,
}

/// The output from an offset to where it ends now. 204 when there is nothing
/// (new) yet.
async fn output(
    app: &App,
    task: Task,
    run: Run,
    from: From,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    app.watched.asked(&task.id);
    let key = Key { workspace_id: run.workspace_id, task_id: task.id, attempt: task.attempt };
    let range = range_start(headers);
    let offset = range.unwrap_or(from.offset);
    let reader = app.logs.reader(&key).await?;
    if let Some(removed_at) = run.files_removed_at {
        return Err(ApiError::gone(&format!("output of {}", task.phase_id), removed_at));
    }
    let Some(mut file) = reader else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let length = file.metadata().await.context("cannot look at a log")?.len();
    if offset >= length {
        return Ok(match range {
            Some(_) => {
                let unsatisfied = format!("bytes */{length}");
                (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, unsatisfied)]).into_response()
            }
            None => StatusCode::NO_CONTENT.into_response(),
        });
    }
    file.seek(SeekFrom::Start(offset)).await.context("cannot read a log")?;
    // What is written from now on belongs to the next answer.
    let body = Body::from_stream(ReaderStream::new(file.take(length - offset)));
    let head = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (ACCEPT_RANGES, "bytes")];
    Ok(match range {
        Some(start) => {
            let range = format!("bytes {start}-{}/{length}", length - 1);
            (StatusCode::PARTIAL_CONTENT, head, [(CONTENT_RANGE, range)], body).into_response()
        }
        None => (StatusCode::OK, head, body).into_response(),
    })
}

/// N of `Range: bytes=N-`; other ranges are passed over, as HTTP allows.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

async fn find(app: &App, phase: Phase, id: &str) -> Result<(Task, Run), ApiError> {
    let kind = match phase {
        Phase::Plan => "Plan",
        Phase::Apply => "Apply",
    };
    let mut db = app.scheduler.store.read().await?;
    let task = task::find_phase(&mut db, id)
        .await?
        .filter(|task| task.phase == phase)
        .ok_or_else(|| ApiError::not_found(kind, id))?;
    let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
    Ok((task, run))
}

/// The plans and applies with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let tasks = task::with_phase_ids(db, ids).await?;
    let runs: Vec<&str> = tasks.iter().map(|task| task.run_id.as_str()).collect();
    let runs = run::with_ids(db, &runs).await?;
    let render = |task: &Task| {
        let run = runs.iter().find(|run| run.id == task.run_id);
        Ok(render(task, run.context("a task without its run")?))
    };
    tasks.iter().map(render).collect()
}

fn render(task: &Task, run: &Run) -> Value {
    let kind = match task.phase {
        Phase::Plan => "plans",
        Phase::Apply => "applies",
    };
    let status = match task.state {
        // Clients know nothing of offers and claims.
        state if state.is_assigned() => TaskState::Queued,
        state => state,
    };
    let summary = task.summary.0;
    json!({
        "type": kind,
        "id": task.phase_id,
        "attributes": {
            "status": status,
            "attempt": task.attempt,
            "has-changes": run.has_changes.filter(|_| task.phase == Phase::Plan),
            "error-message": task.message,
            "exit-code": task.exit_code,
            "oom-killed": task.oom_killed,
            "resource-additions": summary.map(|of| of.additions),
            "resource-changes": summary.map(|of| of.changes),
            "resource-destructions": summary.map(|of| of.destructions),
            "resource-imports": summary.map(|of| of.imports),
            "resource-replacements": summary.map(|of| of.replacements),
            "resource-drifts": summary.map(|of| of.drifted),
            "output-changes": summary.map(|of| of.output_changes),
            "queued-at": task.queued_at.map(rfc3339),
            "started-at": task.started_at.map(rfc3339),
            "finished-at": task.ended_at.map(rfc3339),
        },
        "relationships": {
            "run": to_one("runs", Some(&run.id)),
            "agent": to_one("agents", task.agent_id.as_deref()),
        },
    })
}

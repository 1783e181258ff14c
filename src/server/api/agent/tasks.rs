//! Claim, resume, start, give back and finish.

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::received::Received;
use super::refusal::Refusal;
use super::{InSession, OfTask};
use crate::app::App;
use crate::logs::Key;
use crate::store::run;
use crate::store::task::Task;
use protocol::{Attempt, Claimed, Finish, Resume, Resumed};

/// `POST tasks/ID/claim`
pub(super) async fn claim(
    State(app): State<App>,
    Path(id): Path<String>,
    InSession(session): InSession,
    Received(Attempt { attempt }): Received<Attempt>,
) -> Result<Json<Claimed>, Refusal> {
    let (task, tokens) = app.scheduler.claim(&session, &id, attempt.into()).await?;
    Ok(Json(Claimed { task, task_token: tokens.of_agent, run_token: Some(tokens.of_run) }))
}

/// `POST tasks/ID/resume`
pub(super) async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    InSession(session): InSession,
    Received(resume): Received<Resume>,
) -> Result<Json<Resumed>, Refusal> {
    let task_token = app.scheduler.resume(&session, &id, resume).await?;
    Ok(Json(Resumed { task_token }))
}

/// `POST tasks/ID/start`
pub(super) async fn start(
    State(app): State<App>,
    OfTask(task): OfTask,
    Received(Attempt { attempt }): Received<Attempt>,
) -> Result<StatusCode, Refusal> {
    app.scheduler.start(&task.id, attempt.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST tasks/ID/give-back`
pub(super) async fn give_back(
    State(app): State<App>,
    OfTask(task): OfTask,
    Received(Attempt { attempt }): Received<Attempt>,
) -> Result<StatusCode, Refusal> {
    app.scheduler.give_back(&task.id, attempt.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST tasks/ID/finish`
pub(super) async fn finish(
    State(app): State<App>,
    OfTask(task): OfTask,
    Received(finish): Received<Finish>,
) -> Result<StatusCode, Refusal> {
    if task.attempt == i64::from(finish.attempt) && task.state.is_with_agent() {
        let log = log_key(&app, &task).await?;
        let verified = app.logs.verify(&log, finish.log_bytes, &finish.log_sha256).await?;
        if let Err(offset) = verified {
            return Err(Refusal::Offset(StatusCode::PRECONDITION_FAILED, offset));
        }
    }
    app.scheduler.finish(&task.id, &finish).await?;
    Ok(StatusCode::OK)
}

/// Where the log of a task's current attempt is.
pub(super) async fn log_key(app: &App, task: &Task) -> Result<Key, Refusal> {
    let workspace_id = workspace_of(app, task).await?;
    Ok(Key { workspace_id, task_id: task.id.clone(), attempt: task.attempt })
}

/// The workspace that a task works on.
pub(super) async fn workspace_of(app: &App, task: &Task) -> Result<String, Refusal> {
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
    Ok(run.workspace_id)
}

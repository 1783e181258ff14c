//! What goes into a task and what comes out of it, besides its log.

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;

use super::refusal::Refusal;
use super::tasks::workspace_of;
use super::{OfAttempt, OfTask};
use crate::server::app::App;
use crate::server::objects;
use crate::server::store::task::{self, Phase, Task};
use crate::server::store::{run, state_version};

/// `GET tasks/ID/configuration`
pub async fn configuration(State(app): State<App>, OfTask(task): OfTask) -> Result<Bytes, Refusal> {
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
    let key = objects::configuration(&run.workspace_id, &run.configuration_version_id);
    get(&app, &key, "configuration").await
}

/// `GET tasks/ID/plan`: what the run's plan left for its apply.
pub async fn get_plan(State(app): State<App>, OfTask(task): OfTask) -> Result<Bytes, Refusal> {
    let (workspace_id, plan) = plan_of(&app, &task).await?;
    get(&app, &objects::plan(&workspace_id, &plan.id, plan.attempt), "plan").await
}

/// `PUT tasks/ID/plan`
pub async fn put_plan(
    State(app): State<App>,
    OfTask(task): OfTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    check_plan_writes(&task, &of?)?;
    let key = objects::plan(&workspace_of(&app, &task).await?, &task.id, task.attempt);
    app.scheduler.objects.put(&key, content?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET tasks/ID/lock-file`: what the run's plan left for its apply.
pub async fn get_lock_file(State(app): State<App>, OfTask(task): OfTask) -> Result<Bytes, Refusal> {
    let (workspace_id, plan) = plan_of(&app, &task).await?;
    get(&app, &objects::lock_file(&workspace_id, &plan.id, plan.attempt), "lock file").await
}

/// `PUT tasks/ID/lock-file`
pub async fn put_lock_file(
    State(app): State<App>,
    OfTask(task): OfTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    check_plan_writes(&task, &of?)?;
    let key = objects::lock_file(&workspace_of(&app, &task).await?, &task.id, task.attempt);
    app.scheduler.objects.put(&key, content?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET tasks/ID/state`: the workspace's.
pub async fn get_state(State(app): State<App>, OfTask(task): OfTask) -> Result<Bytes, Refusal> {
    let workspace_id = workspace_of(&app, &task).await?;
    let mut db = app.scheduler.store.read().await?;
    let current = state_version::current(&mut db, &workspace_id).await?;
    let current = current.ok_or_else(|| Refusal::not_found("state"))?;
    get(&app, &objects::state(&workspace_id, &current.id), "state").await
}

/// `PUT tasks/ID/state`
pub async fn put_state(
    State(app): State<App>,
    OfTask(task): OfTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    let Query(OfAttempt { attempt }) = of?;
    app.scheduler.save_apply_state(&task.id, attempt.into(), content?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn get(app: &App, key: &str, what: &str) -> Result<Bytes, Refusal> {
    app.scheduler.objects.get(key).await?.ok_or_else(|| Refusal::not_found(what))
}

/// The workspace of a task, and the plan of its run.
async fn plan_of(app: &App, task: &Task) -> Result<(String, Task), Refusal> {
    let workspace_id = workspace_of(app, task).await?;
    let mut db = app.scheduler.store.read().await?;
    Ok((workspace_id, task::of_run(&mut db, &task.run_id, Phase::Plan).await?))
}

fn check_plan_writes(task: &Task, Query(of): &Query<OfAttempt>) -> Result<(), Refusal> {
    if task.attempt != i64::from(of.attempt) {
        return Err(Refusal::conflict(format!("attempt {} is over", of.attempt)));
    }
    match task.phase == Phase::Plan && task.state.is_with_agent() {
        true => Ok(()),
        false => Err(Refusal::conflict("only a running plan writes this")),
    }
}

//! What goes into a task and what comes out of it, besides its log.

use anyhow::Context as _;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::refusal::Refusal;
use super::tasks::workspace_of;
use super::{OfAttempt, OfLiveTask};
use crate::app::App;
use crate::objects;
use crate::scheduler::{Error, NewState};
use crate::store::task::{self, Phase, Task};
use crate::store::{configuration_version, run, state_version};
use crate::upload::Upload;
use protocol::Code;

/// `GET tasks/ID/configuration`
pub(super) async fn configuration(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
) -> Result<Response, Refusal> {
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
    let version = configuration_version::find(&mut db, &run.configuration_version_id).await?;
    let version = version.context("a run without its configuration version")?;
    let sha256 = version.archive_sha256.as_deref();
    let key = objects::configuration(&version.workspace_id, &version.id, sha256);
    get(&app, &key, "configuration")
}

/// `GET tasks/ID/plan`: what the run's plan left for its apply.
pub(super) async fn get_plan(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
) -> Result<Response, Refusal> {
    let (workspace_id, plan) = plan_of(&app, &task).await?;
    get(&app, &objects::plan(&workspace_id, &plan.id, plan.attempt), "plan")
}

/// `PUT tasks/ID/plan`
pub(super) async fn put_plan(
    State(app): State<App>,
    task: OfLiveTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Upload,
) -> Result<StatusCode, Refusal> {
    put(&app, &plan_that_writes(task, of?)?, content, objects::plan).await
}

/// `GET tasks/ID/lock-file`: what the run's plan left for its apply.
pub(super) async fn get_lock_file(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
) -> Result<Response, Refusal> {
    let (workspace_id, plan) = plan_of(&app, &task).await?;
    get(&app, &objects::lock_file(&workspace_id, &plan.id, plan.attempt), "lock file")
}

/// `PUT tasks/ID/lock-file`
pub(super) async fn put_lock_file(
    State(app): State<App>,
    task: OfLiveTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Upload,
) -> Result<StatusCode, Refusal> {
    put(&app, &plan_that_writes(task, of?)?, content, objects::lock_file).await
}

/// `GET tasks/ID/plan-files`: what the run's plan left for its apply. That there is none
/// is no 404: that is the answer of a server without this call.
pub(super) async fn get_plan_files(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
) -> Result<Response, Refusal> {
    let (workspace_id, plan) = plan_of(&app, &task).await?;
    let key = objects::plan_files(&workspace_id, &plan.id, plan.attempt);
    Ok(match app.scheduler.objects.get(&key)? {
        Some(files) => objects::answer(files)?,
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// `PUT tasks/ID/plan-files`
pub(super) async fn put_plan_files(
    State(app): State<App>,
    task: OfLiveTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Upload,
) -> Result<StatusCode, Refusal> {
    put(&app, &plan_that_writes(task, of?)?, content, objects::plan_files).await
}

/// `GET tasks/ID/plan-json`: whether this server has the call; the plan's agent has the plan.
pub(super) async fn get_plan_json(OfLiveTask(_): OfLiveTask) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `PUT tasks/ID/plan-json`
pub(super) async fn put_plan_json(
    State(app): State<App>,
    task: OfLiveTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Upload,
) -> Result<StatusCode, Refusal> {
    put(&app, &plan_that_writes(task, of?)?, content, objects::plan_json).await
}

/// `GET tasks/ID/state`: the workspace's.
pub(super) async fn get_state(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
) -> Result<Response, Refusal> {
    let workspace_id = workspace_of(&app, &task).await?;
    let mut db = app.scheduler.store.read().await?;
    let current = state_version::current(&mut db, &workspace_id).await?;
    let current = current.ok_or_else(|| Refusal::not_found("state"))?;
    get(&app, &objects::state(&workspace_id, &current.id), "state")
}

/// `PUT tasks/ID/state`
pub(super) async fn put_state(
    State(app): State<App>,
    OfLiveTask(task): OfLiveTask,
    of: Result<Query<OfAttempt>, QueryRejection>,
    content: Upload,
) -> Result<StatusCode, Refusal> {
    let Query(OfAttempt { attempt }) = of?;
    let content = content.receive(&app, app.scheduler.objects.max_state()).await?;
    let saved = async {
        let state = NewState::read(content).await?;
        app.scheduler.save_apply_state(&task.id, attempt.into(), state).await
    };
    match saved.await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error @ (Error::Conflict(_) | Error::Invalid(_))) => {
            Err(Refusal::from(error).code(Code::StateRefused))
        }
        Err(error) => Err(error.into()),
    }
}

fn get(app: &App, key: &str, what: &str) -> Result<Response, Refusal> {
    let content = app.scheduler.objects.get(key)?.ok_or_else(|| Refusal::not_found(what))?;
    Ok(objects::answer(content)?)
}

/// Keeps a file that a plan leaves for its apply.
async fn put(
    app: &App,
    plan: &Task,
    content: Upload,
    key: fn(&str, &str, i64) -> String,
) -> Result<StatusCode, Refusal> {
    let content = content.receive(app, objects::MAX_OBJECT).await?;
    let key = key(&workspace_of(app, plan).await?, &plan.id, plan.attempt);
    app.scheduler.objects.put(&key, content).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The workspace of a task, and the plan of its run.
async fn plan_of(app: &App, task: &Task) -> Result<(String, Task), Refusal> {
    let workspace_id = workspace_of(app, task).await?;
    let mut db = app.scheduler.store.read().await?;
    Ok((workspace_id, task::of_run(&mut db, &task.run_id, Phase::Plan).await?))
}

/// The task, if it is a plan: only plans leave files for their apply.
fn plan_that_writes(task: OfLiveTask, Query(of): Query<OfAttempt>) -> Result<Task, Refusal> {
    task.check(of.attempt)?;
    match task.0.phase {
        Phase::Plan => Ok(task.0),
        Phase::Apply => Err(Refusal::conflict("only a plan writes this")),
    }
}

//! Claim, start and finish.

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::received::Received;
use super::refusal::Refusal;
use super::{InSession, OfTask};
use crate::app::App;
use crate::logs::Key;
use crate::store::task::Task;
use crate::store::{Connection, agent_pool, environment, run, variable, workspace};
use protocol::{Attempt, Claimed, Finish, Named, Operation};

/// `POST tasks/ID/claim`
pub(super) async fn claim(
    State(app): State<App>,
    Path(id): Path<String>,
    InSession(session): InSession,
    Received(Attempt { attempt }): Received<Attempt>,
) -> Result<Json<Claimed>, Refusal> {
    let (task, tokens) = app.scheduler.claim(&session, &id, attempt.into()).await?;
    let mut db = app.scheduler.store.read().await?;
    Ok(Json(Claimed {
        task: describe(&mut db, &task, attempt).await?,
        task_token: tokens.of_agent,
        run_token: Some(tokens.of_run),
    }))
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

async fn describe(
    db: &mut Connection,
    task: &Task,
    attempt: u32,
) -> Result<protocol::Task, Refusal> {
    let run = run::find(db, &task.run_id).await?.context("a task without its run")?;
    let workspace = workspace::find(db, &run.workspace_id).await?.context("no workspace")?;
    let environment =
        environment::find(db, &workspace.environment_id).await?.context("no environment")?;
    let pool = match &task.pool_id {
        Some(id) => agent_pool::find(db, id).await?,
        None => None,
    };
    let variables = variable::of_workspace(db, &workspace.id).await?.into_iter();
    Ok(protocol::Task {
        id: task.id.clone(),
        attempt,
        kind: task.phase.into(),
        run_id: run.id,
        run_source: run.source,
        operation: if run.is_destroy { Operation::Destroy } else { Operation::Apply },
        workspace: Named { id: workspace.id, name: workspace.name },
        environment: Named { id: environment.id, name: environment.name },
        terraform_version: workspace.terraform_version,
        allow_other_terraform_version: workspace.allow_other_terraform_version,
        image: workspace.image.or(pool.and_then(|pool| pool.image)),
        working_directory: workspace.working_directory,
        variables: variables
            .map(|variable| protocol::Variable {
                key: variable.key,
                value: variable.value.0,
                category: variable.category.into(),
                hcl: variable.hcl,
                sensitive: variable.sensitive,
            })
            .collect(),
        hooks: workspace.hooks.0,
    })
}

//! The agents' protocol, version 1: [`protocol`] has the calls.

mod files;
mod log;
mod received;
mod refusal;
mod sessions;
mod tasks;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path};
use axum::http::request::Parts;
use axum::routing::{get, post, put};
use serde::Deserialize;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::timeout::RequestBodyDeadlineLayer;

use crate::app::{App, Bearer};
use crate::connections::{Owner, authenticated};
use crate::scheduler::Error;
use crate::store::access_token::AccessToken;
use crate::store::session::Session;
use crate::store::task::Task;
use crate::upload;
use protocol::BASE;
use refusal::Refusal;
pub(super) use refusal::no_such_call;

/// The largest body of JSON, in bytes, and how long it may take.
const MAX_JSON: usize = 1024 * 1024;
const JSON_TIME: Duration = Duration::from_secs(30);

/// The largest piece of a log, unpacked, in bytes. Agents send pieces of 1 MiB.
const MAX_PIECE: usize = 2 * 1024 * 1024;

/// The protocol's calls.
pub(crate) fn routes() -> Router<App> {
    let json = Router::new()
        .route("/register", post(sessions::register))
        .route("/check-token", post(sessions::check_token))
        .route("/poll", post(sessions::poll))
        .route("/heartbeat", post(sessions::heartbeat))
        .route("/deregister", post(sessions::deregister))
        .route("/tasks/{id}/claim", post(tasks::claim))
        .route("/tasks/{id}/resume", post(tasks::resume))
        .route("/tasks/{id}/start", post(tasks::start))
        .route("/tasks/{id}/give-back", post(tasks::give_back))
        .route("/tasks/{id}/finish", post(tasks::finish))
        .layer((DefaultBodyLimit::max(MAX_JSON), RequestBodyDeadlineLayer::new(JSON_TIME)));
    let log = Router::new().route("/tasks/{id}/log", put(log::append)).layer((
        RequestBodyDeadlineLayer::new(JSON_TIME),
        RequestDecompressionLayer::new().pass_through_unaccepted(false),
        // Of what comes out.
        DefaultBodyLimit::max(MAX_PIECE),
    ));
    let files = Router::new()
        .route("/tasks/{id}/configuration", get(files::configuration))
        .route("/tasks/{id}/plan", get(files::get_plan).put(files::put_plan))
        .route("/tasks/{id}/lock-file", get(files::get_lock_file).put(files::put_lock_file))
        .route("/tasks/{id}/plan-json", get(files::get_plan_json).put(files::put_plan_json))
        .route("/tasks/{id}/plan-files", get(files::get_plan_files).put(files::put_plan_files))
        .route("/tasks/{id}/state", get(files::get_state).put(files::put_state))
        .layer(RequestBodyDeadlineLayer::new(upload::TIME));
    let calls = json
        .merge(log)
        .merge(files)
        .fallback(refusal::no_such_call)
        .method_not_allowed_fallback(refusal::no_such_method);
    Router::new().nest(BASE, calls)
}

/// The pool's token that a call is made with.
struct WithPoolToken(AccessToken);

impl FromRequestParts<App> for WithPoolToken {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let token = Bearer::of(&parts.headers).0;
        let token = app.scheduler.pool_token(token.expose()).await?;
        authenticated(
            &parts.extensions,
            Owner::Pool(token.pool_id.as_deref().unwrap_or_default()),
        )?;
        Ok(Self(token))
    }
}

/// The session that a call is made in.
struct InSession(Session);

impl FromRequestParts<App> for InSession {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let token = Bearer::of(&parts.headers).0;
        // In a box: a poll that is held keeps no place for it.
        let session = Box::pin(app.scheduler.session(token.expose())).await?;
        let owner = Owner::Agent { id: &session.agent_id, pool_id: &session.pool_id };
        authenticated(&parts.extensions, owner)?;
        Ok(Self(session))
    }
}

/// The task that a call is about, by its token; the attempt is current.
struct OfTask(Task);

impl FromRequestParts<App> for OfTask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let token = Bearer::of(&parts.headers).0;
        let Path(id) = Path::<String>::from_request_parts(parts, app).await?;
        match app.scheduler.task_of_token(&id, token.expose()).await {
            Ok(task) => {
                let owner = match (&task.agent_id, &task.pool_id) {
                    (Some(id), Some(pool_id)) => Owner::Agent { id, pool_id },
                    _ => Owner::Token(&task.id),
                };
                authenticated(&parts.extensions, owner)?;
                Ok(Self(task))
            }
            Err(Error::NotFound(why)) => Err(Refusal::unauthorized(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The task that a call is about, still with its agent: only then are there
/// files to be had, and to be written.
struct OfLiveTask(Task);

impl FromRequestParts<App> for OfLiveTask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let OfTask(task) = OfTask::from_request_parts(parts, app).await?;
        match task.state.is_with_agent() {
            true => Ok(Self(task)),
            false => Err(Refusal::attempt_over(format!("task {} is over", task.id))),
        }
    }
}

impl OfLiveTask {
    /// Checks that a write belongs to the attempt that counts.
    fn check(&self, attempt: u32) -> Result<(), Refusal> {
        match self.0.attempt == i64::from(attempt) {
            true => Ok(()),
            false => Err(Refusal::attempt_over(format!("attempt {attempt} is over"))),
        }
    }
}

/// Which attempt a write belongs to.
#[derive(Debug, Deserialize)]
struct OfAttempt {
    attempt: u32,
}

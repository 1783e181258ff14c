//! Who may call what: an admin's token is good for everything, and so is the socket of the
//! server's own host; a run's token for reading what its run is made of.
//!
//! | a run reads | which |
//! |---|---|
//! | its run, configuration version and environment | its own |
//! | workspaces | those of its environment |
//! | their outputs and their current state | its own, and those that are shared with it |

use axum::RequestExt as _;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::BASE;
use super::query::{ListQuery, Shape};
use super::resource_types::ResourceType;
use crate::admin;
use crate::api::json_api::ApiError;
use crate::api::run_scope::RunScope;
use crate::app::{App, Bearer};
use crate::connections::{Owner, authenticated};
use crate::local_api::LocalAdmin;
use crate::store::access_token::{self, AccessToken};
use crate::store::run_event::Actor;
use crate::store::task::Task;
use crate::token::PresentedToken;

/// A request whose token is good for reading only.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOnly;

impl ReadOnly {
    /// Takes what a resource says of an admin's permissions back.
    pub(super) fn apply(resource: &mut Value) {
        let permissions = resource.pointer_mut("/attributes/permissions");
        for (name, value) in permissions.and_then(Value::as_object_mut).into_iter().flatten() {
            *value = name.starts_with("can-read").into();
        }
    }
}

/// Lets a request through if its token is good for it.
pub(super) async fn check(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.extensions().get::<LocalAdmin>().is_some() {
        // The server's own pages say who it is.
        if request.extensions().get::<Actor>().is_none() {
            request.extensions_mut().insert(Actor::LOCAL_ADMIN);
        }
        return Ok(next.run(request).await);
    }
    let token = Bearer::of(request.headers()).0;
    let shown = PresentedToken::parse(token.expose()).ok_or_else(ApiError::unauthorized)?;
    match app.scheduler.task_of_run_token(&shown).await? {
        Some(task) => {
            check_run(&app, &task, &mut request).await?;
            authenticated(request.extensions(), Owner::Token(&task.id))?;
            request.extensions_mut().insert(ReadOnly);
        }
        None => {
            let token = check_admin(&app, &shown).await?;
            authenticated(request.extensions(), Owner::Token(&token.id))?;
            let actor = Actor::access_token(&token.id, token.name.as_deref());
            request.extensions_mut().insert(actor);
        }
    }
    Ok(next.run(request).await)
}

/// The admin's token that `shown` is.
pub(crate) async fn check_admin(
    app: &App,
    shown: &PresentedToken,
) -> Result<AccessToken, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let now = app.scheduler.clock.now();
    let token = admin::of_token(&mut db, shown).await?.ok_or_else(ApiError::unauthorized)?;
    if let Some(expired_at) = token.expires_at.filter(|_| token.is_expired(now)) {
        return Err(ApiError::expired(&token.id, expired_at));
    }
    access_token::touch(&mut db, &token, now).await?;
    Ok(token)
}

/// Checks what the run of `task` asks for. A call that is not named here is not
/// for runs.
async fn check_run(app: &App, task: &Task, request: &mut Request) -> Result<(), ApiError> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(ApiError::forbidden("A run's token is good for reading only."));
    }
    let call = request.extensions().get::<MatchedPath>().cloned();
    let call = call.as_ref().and_then(|path| path.as_str().strip_prefix(BASE)).unwrap_or("");
    let shape: Shape = request.extract_parts().await?;
    check_included(&shape)?;
    let mut db = app.scheduler.store.read().await?;
    let scope = RunScope::of_task(&mut db, task).await?;
    if call == "/workspaces" {
        let query: ListQuery = request.extract_parts().await?;
        return check_list(&scope, &query);
    }
    let id =
        request.extract_parts::<Path<String>>().await.map_or_else(|_| String::new(), |id| id.0);
    let (kind, may_read) = match call {
        "/runs/{id}" => ("Run", id == scope.run.id),
        "/configuration-versions/{id}" => {
            ("ConfigurationVersion", id == scope.run.configuration_version_id)
        }
        "/environments/{id}" => ("Environment", id == scope.environment_id()),
        "/workspaces/{id}" => ("Workspace", scope.has_workspace(&mut db, &id).await?),
        "/workspaces/{id}/current-state-version" | "/workspaces/{id}/outputs" => {
            ("Workspace", scope.may_read_state_of(&mut db, &id).await?)
        }
        "/state-versions/{id}" | "/state-versions/{id}/download" => {
            ("StateVersion", scope.has_state(&mut db, &id).await?)
        }
        _ => {
            return Err(ApiError::forbidden(
                "A run's token is good for its own run, configuration version and environment, \
                 and for that environment's workspaces, their outputs and current states.",
            ));
        }
    };
    match may_read {
        true => Ok(()),
        // As if it were not there: a run learns of nothing that is not its own.
        false => Err(ApiError::not_found(kind, &id)),
    }
}

/// A list of workspaces has to be asked for as one of this environment: a list that is silently
/// shorter would say that others are not there.
fn check_list(scope: &RunScope, query: &ListQuery) -> Result<(), ApiError> {
    let own = scope.environment_id();
    match query.filter("environment") == Some(own) {
        true => Ok(()),
        false => Err(ApiError::forbidden(format!(
            "A run's token lists the workspaces of its own environment: add \
             filter[environment]={own}."
        ))),
    }
}

/// Checks that `include` leads to nothing but the environment and the workspaces of it.
fn check_included(shape: &Shape) -> Result<(), ApiError> {
    let mut steps = shape.include.iter().flat_map(|path| &path.steps);
    let is_readable =
        |related: &ResourceType| ["environments", "workspaces"].contains(&related.name);
    match steps.find(|(_, related)| !related.is_none_or(is_readable)) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::forbidden(format!(
            "A run's token is not good for what include={name} asks for; it is good for \
             environments and workspaces."
        ))),
    }
}

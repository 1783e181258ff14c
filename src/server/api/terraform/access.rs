//! Who may call: an admin's token is good for everything, and a run's token for what
//! `terraform_remote_state` reads: the current states of its environment's workspaces.

use std::collections::HashMap;

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::{BASE, organizations};
use crate::api::json_api::ApiError;
use crate::api::pools::access;
use crate::api::run_scope::RunScope;
use crate::app::{App, Bearer};
use crate::connections::{Owner, authenticated};
use crate::store::access_token::AccessToken;
use crate::store::run_event::Actor;
use crate::store::task::Task;
use crate::token::PresentedToken;

/// Lets a request through if its token is good for it.
pub(super) async fn check(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = Bearer::of(request.headers()).0;
    let shown = PresentedToken::parse(token.expose()).ok_or_else(ApiError::unauthorized)?;
    match app.scheduler.task_of_run_token(&shown).await? {
        Some(task) => {
            check_run(&app, &task, &mut request).await?;
            authenticated(request.extensions(), Owner::Token(&task.id))?;
        }
        None => {
            let admin = access::check_admin(&app, &shown).await?;
            authenticated(request.extensions(), Owner::Token(&admin.id))?;
            let actor = Actor::access_token(&admin.id, admin.name.as_deref());
            request.extensions_mut().insert(actor);
            request.extensions_mut().insert(Admin(admin));
        }
    }
    Ok(next.run(request).await)
}

/// Checks what the run of `task` asks for. A call that is not named here is not for runs.
async fn check_run(app: &App, task: &Task, request: &mut Request) -> Result<(), ApiError> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(ApiError::forbidden("A run's token is good for reading only."));
    }
    let call = request.extensions().get::<MatchedPath>().cloned();
    let call = call.as_ref().and_then(|path| path.as_str().strip_prefix(BASE)).unwrap_or("");
    let parts = request.extract_parts::<Path<HashMap<String, String>>>().await;
    let parts = parts.map_or_else(|_| HashMap::new(), |parts| parts.0);
    let part = |name: &str| parts.get(name).map_or("", String::as_str);
    let mut db = app.scheduler.store.read().await?;
    let scope = RunScope::of_task(&mut db, task).await?;
    let (kind, id, may_read) = match call {
        "/organizations/{organization}"
        | "/organizations/{organization}/entitlement-set"
        | "/organizations/{organization}/workspaces/{name}" => {
            let name = part("organization");
            let environment = organizations::find(&mut db, name).await?;
            ("Organization", name, environment.id == scope.environment_id())
        }
        "/workspaces/{id}" => {
            ("Workspace", part("id"), scope.has_workspace(&mut db, part("id")).await?)
        }
        "/workspaces/{id}/current-state-version"
        | "/workspaces/{id}/current-state-version-outputs" => {
            ("Workspace", part("id"), scope.may_read_state_of(&mut db, part("id")).await?)
        }
        "/state-versions/{id}"
        | "/state-versions/{id}/download"
        | "/state-versions/{id}/outputs" => {
            ("StateVersion", part("id"), scope.has_state(&mut db, part("id")).await?)
        }
        "/state-version-outputs/{id}" => {
            let version = part("id").split('.').next().unwrap_or_default();
            ("StateVersionOutput", part("id"), scope.has_state(&mut db, version).await?)
        }
        _ => {
            return Err(ApiError::forbidden(
                "A run's token is good for the workspaces of its environment, their outputs and \
                 current states.",
            ));
        }
    };
    match may_read {
        true => Ok(()),
        // As if it were not there: a run learns of nothing that is not its own.
        false => Err(ApiError::not_found(kind, id)),
    }
}

/// The token of the admin who calls.
#[derive(Clone, Debug)]
pub(super) struct Admin(pub AccessToken);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::unauthorized)
    }
}

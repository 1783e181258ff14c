//! The pool API: JSON:API documents under [`BASE`], with the shapes and texts
//! that existing clients of the vendor's API expect (its public OpenAPI).

pub(super) mod access;
pub(crate) mod access_tokens;
mod accounts;
pub(crate) mod agent_pools;
pub(crate) mod agents;
mod attributes;
mod call;
pub(crate) mod configuration_versions;
mod description;
pub(crate) mod environments;
pub(crate) mod hook_links;
pub(crate) mod hooks;
mod included;
mod linkage;
mod payload;
pub(super) mod phases;
mod query;
pub(super) mod quotas;
mod remote_state_consumers;
mod resource_types;
mod run_events;
mod run_schedule_rules;
mod run_triggers;
pub(crate) mod runs;
mod server;
pub(super) mod state_upload;
pub(super) mod state_versions;
pub(in crate::api) mod tags;
mod variables;
mod webhook;
pub(crate) mod webhook_integrations;
pub(crate) mod workspaces;

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use tower_http::timeout::RequestBodyDeadlineLayer;

use crate::api::calls::{About, Calls};
use crate::api::json_api::{self, ApiError};
use crate::app::App;
use crate::store::Connection;
use crate::store::account::{self, Account};
use crate::upload;
pub(crate) use access::check_admin;
pub(super) use attributes::schema_of_attributes;
pub(crate) use call::{CallError, call};
pub(super) use description::{described, schemas};
pub(crate) use payload::Payload;

/// Where the API is on the server.
pub(crate) const BASE: &str = "/api/iacp/v3";

/// The largest document, in bytes, and how long it may take; but for those with a state in
/// them.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;
pub(super) const DOCUMENT_TIME: Duration = Duration::from_secs(30);

/// The API's calls.
pub(crate) fn routes(app: &App) -> Router<App> {
    let with_token = calls_with_token()
        .layer(from_fn_with_state(App::clone(app), query::answer))
        .into_router()
        .fallback(json_api::no_such_call)
        .method_not_allowed_fallback(json_api::no_such_method)
        .layer(from_fn_with_state(App::clone(app), access::check));
    let anybody =
        calls_of_anybody().into_router().method_not_allowed_fallback(json_api::no_such_method);
    Router::new().nest(BASE, anybody.merge(with_token))
}

/// The same as they are described.
fn calls() -> Calls {
    calls_with_token().merge(calls_of_anybody())
}

fn calls_with_token() -> Calls {
    Calls::default()
        .merge(accounts::calls())
        .merge(access_tokens::calls())
        .merge(agent_pools::calls())
        .merge(agents::calls())
        .merge(configuration_versions::calls())
        .merge(environments::calls())
        .merge(hook_links::calls())
        .merge(hooks::calls())
        .merge(phases::calls())
        .merge(remote_state_consumers::calls())
        .merge(run_schedule_rules::calls())
        .merge(run_triggers::calls())
        .merge(runs::calls())
        .merge(server::calls())
        .merge(tags::calls())
        .merge(variables::calls())
        .merge(webhook_integrations::calls())
        .merge(workspaces::calls())
        .layer((DefaultBodyLimit::max(MAX_DOCUMENT), RequestBodyDeadlineLayer::new(DOCUMENT_TIME)))
        .merge(state_versions::calls().layer(RequestBodyDeadlineLayer::new(upload::TIME)))
}

fn calls_of_anybody() -> Calls {
    let ping = About::nothing("Find out whether the API is there", StatusCode::OK);
    Calls::default()
        .get("/ping", ping, async || StatusCode::OK)
        .merge(
            configuration_versions::upload_call()
                .layer(RequestBodyDeadlineLayer::new(upload::TIME)),
        )
        .without_token()
}

/// The server's account.
async fn the_account(db: &mut Connection) -> Result<Account, ApiError> {
    Ok(account::only(db).await?.context("the server has no account")?)
}

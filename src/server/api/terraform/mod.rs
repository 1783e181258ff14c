//! The API of Terraform's own command line, its `cloud` block and `remote` backend: JSON:API
//! documents under [`BASE`]. An environment is an organization, by its name or its id.

mod access;
mod configuration_versions;
mod discovery;
pub(crate) mod login;
mod logs;
mod organizations;
mod outputs;
mod phases;
mod projects;
mod query;
mod runs;
mod state_rollback;
mod state_uploads;
mod state_versions;
mod tags;
mod workspace_variables;
mod workspaces;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use tower_http::timeout::RequestBodyDeadlineLayer;

use super::pools::{DOCUMENT_TIME, MAX_DOCUMENT};
use crate::api::json_api;
use crate::app::App;
use crate::upload;

/// Where the API is on the server.
pub(crate) const BASE: &str = "/api/v2";

/// The version of the API that Terraform goes by.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("tfp-api-version"), HeaderValue::from_static("2.6"));

/// The API's calls.
pub(crate) fn routes(app: &App) -> Router<App> {
    let with_token = Router::new()
        .merge(configuration_versions::routes())
        .merge(organizations::routes())
        .merge(outputs::routes())
        .merge(phases::routes())
        .merge(projects::routes())
        .merge(runs::routes())
        .merge(state_rollback::routes())
        .merge(tags::routes())
        .merge(workspace_variables::routes())
        .merge(workspaces::routes())
        .layer((DefaultBodyLimit::max(MAX_DOCUMENT), RequestBodyDeadlineLayer::new(DOCUMENT_TIME)))
        .merge(state_versions::routes().layer(RequestBodyDeadlineLayer::new(upload::TIME)))
        .fallback(json_api::no_such_call)
        .method_not_allowed_fallback(json_api::no_such_method)
        .layer(from_fn_with_state(App::clone(app), access::check));
    let anybody = Router::new()
        .route("/ping", get(async || StatusCode::NO_CONTENT))
        .merge(logs::routes())
        .merge(state_uploads::routes().layer(RequestBodyDeadlineLayer::new(upload::TIME)))
        .method_not_allowed_fallback(json_api::no_such_method);
    Router::new()
        .nest(
            BASE,
            anybody.merge(with_token).layer((from_fn(add_version), map_response(json_api::send))),
        )
        .merge(discovery::routes())
        .merge(login::routes())
}

async fn add_version(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let (name, value) = VERSION;
    answer.headers_mut().insert(name, value);
    answer
}

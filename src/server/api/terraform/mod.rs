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
mod resource_types;
mod runs;
pub(crate) mod state_rollback;
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
use tower_http::timeout::RequestBodyDeadlineLayer;

use super::pools::{DOCUMENT_TIME, MAX_DOCUMENT};
use crate::api::calls::{About, Call, Calls, Content};
use crate::api::json_api;
use crate::api::openapi::{Api, Details, page_parameters};
use crate::app::App;
use crate::upload;

pub(super) use resource_types::schemas;

/// Where the API is on the server.
pub(crate) const BASE: &str = "/api/v2";

/// The version of the API that Terraform goes by.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("tfp-api-version"), HeaderValue::from_static("2.6"));

/// The API's calls.
pub(crate) fn routes(app: &App) -> Router<App> {
    let with_token = calls_with_token()
        .into_router()
        .fallback(json_api::no_such_call)
        .method_not_allowed_fallback(json_api::no_such_method)
        .layer(from_fn_with_state(App::clone(app), access::check));
    let anybody =
        calls_of_anybody().into_router().method_not_allowed_fallback(json_api::no_such_method);
    Router::new()
        .nest(
            BASE,
            anybody.merge(with_token).layer((from_fn(add_version), map_response(json_api::send))),
        )
        .merge(discovery::calls().into_router())
        .merge(login::calls().into_router())
}

/// What the document of the APIs says of this API.
pub(super) fn described() -> Api {
    Api {
        prefix: "terraform-",
        base: BASE,
        calls: calls_with_token().merge(calls_of_anybody()).into_described(),
        schema_name: resource_types::schema_name,
        complete: add_pages,
    }
}

/// What it says of the calls by which Terraform finds the API and gets a token.
pub(super) fn described_services() -> Api {
    Api {
        prefix: "terraform-",
        base: "",
        calls: discovery::calls().merge(login::calls()).into_described(),
        schema_name: resource_types::schema_name,
        complete: |_, _| {},
    }
}

/// Every list has pages.
fn add_pages(_: &Call, details: &mut Details) {
    if details.answers.iter().any(|answer| matches!(answer.content, Content::Page(_))) {
        details.parameters.splice(0..0, page_parameters());
    }
}

fn calls_with_token() -> Calls {
    Calls::default()
        .merge(configuration_versions::calls())
        .merge(organizations::calls())
        .merge(outputs::calls())
        .merge(phases::calls())
        .merge(projects::calls())
        .merge(runs::calls())
        .merge(state_rollback::calls())
        .merge(tags::calls())
        .merge(workspace_variables::calls())
        .merge(workspaces::calls())
        .layer((DefaultBodyLimit::max(MAX_DOCUMENT), RequestBodyDeadlineLayer::new(DOCUMENT_TIME)))
        .merge(state_versions::calls().layer(RequestBodyDeadlineLayer::new(upload::TIME)))
}

fn calls_of_anybody() -> Calls {
    let ping = About::nothing("Find out whether the API is there", StatusCode::NO_CONTENT);
    Calls::default()
        .get("/ping", ping, async || StatusCode::NO_CONTENT)
        .merge(logs::calls())
        .merge(state_uploads::calls().layer(RequestBodyDeadlineLayer::new(upload::TIME)))
        .without_token()
}

async fn add_version(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let (name, value) = VERSION;
    answer.headers_mut().insert(name, value);
    answer
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;

    /// Every text of this API's documents, one at a time; what its calls share with the pool
    /// API is in that one's table, too.
    #[tokio::test]
    async fn no_text_of_a_request_is_without_an_end() {
        let text = "x".repeat(900_000);
        let server = InProcess::new().await;
        let (_, run) = server.run().await;
        let found = server.api(Method::GET, &format!("/runs/{run}"), Value::Null).await;
        let related = &found["data"]["relationships"];
        let environment = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environment["data"][0]["id"].as_str().unwrap();
        let workspace = format!("/workspaces/{}", server.workspace);
        let attributes = |attributes: Value| json!({ "data": { "attributes": attributes } });
        let tags = |tag: Value| json!({ "data": [{ "type": "tags", "attributes": tag }] });
        let tagged = |tag: Value| json!({ "data": { "relationships": { "tags": tags(tag) } } });
        let started = |name: &str, value: Value| {
            let relationships = json!({
                "workspace": related["workspace"],
                "configuration-version": related["configuration-version"],
            });
            json!({ "data": { "attributes": { name: value }, "relationships": relationships } })
        };
        let made = format!("/organizations/{environment}/workspaces");
        let comment = json!({ "comment": text });
        let mut requests = vec![
            (Method::POST, made.clone(), attributes(json!({ "name": text }))),
            (Method::POST, format!("{workspace}/actions/lock"), json!({ "reason": text })),
            (
                Method::POST,
                format!("{workspace}/relationships/tags"),
                tags(json!({ "name": text })),
            ),
            (Method::PATCH, format!("{workspace}/tag-bindings"), tags(json!({ "key": text }))),
            (
                Method::PATCH,
                format!("{workspace}/tag-bindings"),
                tags(json!({ "key": "k", "value": text })),
            ),
            (Method::PATCH, workspace.clone(), tagged(json!({ "name": text }))),
            (Method::POST, "/runs".to_owned(), started("message", json!(text))),
            (Method::POST, "/runs".to_owned(), started("terraform-version", json!(text))),
            (Method::POST, "/runs".to_owned(), started("target-addrs", json!([text]))),
            (Method::POST, "/runs".to_owned(), started("replace-addrs", json!([text]))),
            (
                Method::POST,
                "/runs".to_owned(),
                started("variables", json!([{ "key": text, "value": "1" }])),
            ),
            (
                Method::POST,
                format!("{workspace}/state-versions"),
                attributes(json!({ "serial": 1, "md5": "0".repeat(32), "lineage": text })),
            ),
            (
                Method::POST,
                format!("{workspace}/state-versions"),
                attributes(json!({ "serial": 1, "md5": text })),
            ),
        ];
        for name in ["name", "terraform-version", "working-directory", "execution-mode"] {
            let changed = attributes(json!({ name: text }));
            requests.push((Method::PATCH, workspace.clone(), changed));
        }
        for action in ["apply", "discard", "cancel", "force-cancel"] {
            requests.push((Method::POST, format!("/runs/{run}/actions/{action}"), comment.clone()));
        }
        let mut accepted = Vec::new();
        for (method, path, body) in requests {
            let what = format!("{method} {path} {:.80}", body.to_string());
            let path = format!("{BASE}{path}");
            let (status, answer) =
                server.call(method, &path, &server.admin, &[], body.to_string()).await;
            let says = String::from_utf8_lossy(&answer);
            let is_about_length =
                ["at most", "1 to", "takes", "not the name"].iter().any(|w| says.contains(w));
            if status != StatusCode::UNPROCESSABLE_ENTITY || says.len() > 2_000 || !is_about_length
            {
                accepted.push(format!("{what}: {status} {says:.300}"));
            }
        }
        assert!(accepted.is_empty(), "{accepted:#?}");
    }
}

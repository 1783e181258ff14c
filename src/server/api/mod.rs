//! What the server answers: the agents' protocol, the pool API, and that of Terraform's CLI.

pub(crate) mod agent;
mod calls;
pub(crate) mod json_api;
pub(crate) mod openapi;
mod outputs;
pub(crate) mod pools;
mod run_scope;
pub(crate) mod terraform;
mod value_type;

use std::error::Error;

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::routing::any;
use tower_http::timeout::TimeoutError;

use crate::app::App;

pub(crate) use outputs::turns as outputs_turns;

/// Every call. A path that no API has is refused as the API refuses that it is nearest to.
pub(crate) fn routes(app: &App) -> Router<App> {
    Router::new()
        .merge(agent::routes())
        .merge(pools::routes(app))
        .merge(terraform::routes(app))
        .merge(openapi::calls().into_router())
        .nest("/api/agent", Router::new().fallback(agent::no_such_call))
        .nest("/api", Router::new().fallback(json_api::no_such_call))
        // axum does not ask a nested fallback for the path that it is nested at with a slash.
        .route("/api/agent/", any(agent::no_such_call))
        .route("/api/", any(json_api::no_such_call))
}

/// The status of the answer to a body that can't be read: 408 for one that was too slow.
pub(crate) fn status_of(rejection: &BytesRejection) -> StatusCode {
    let mut cause: Option<&(dyn Error + 'static)> = Some(rejection);
    while let Some(error) = cause {
        if error.is::<TimeoutError>() {
            return StatusCode::REQUEST_TIMEOUT;
        }
        cause = error.source();
    }
    rejection.status()
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::in_process::InProcess;

    /// The status of the answer to a call, as the answer itself says it if it is JSON:API, and
    /// its reason.
    async fn refusal(server: &InProcess, method: Method, path: &str) -> (StatusCode, Value) {
        let (status, body) = server.call(method, path, &server.admin, &[], "").await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_path_that_no_api_has_is_refused_in_the_form_of_the_api_that_it_is_below() {
        let server = InProcess::new().await;
        let below = ["", "/", "/nothing", "/nothing/at/all"];
        for api in ["/api", "/api/iacp", "/api/iacp/v3", "/api/iacp/v4", "/api/v1", "/api/v2"] {
            for path in below.map(|path| format!("{api}{path}")) {
                let (status, answer) = refusal(&server, Method::GET, &path).await;
                assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
                assert_eq!(answer["errors"][0]["status"], "404", "{path}: {answer}");
            }
        }
        for api in ["/api/agent", "/api/agent/v1", "/api/agent/v2"] {
            for path in below.map(|path| format!("{api}{path}")) {
                let (status, answer) = refusal(&server, Method::POST, &path).await;
                assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
                assert!(answer["error"].is_string(), "{path}: {answer}");
            }
        }
        let (status, body) = server.call(Method::GET, "/nothing", &server.admin, &[], "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.starts_with(b"<!doctype html>"), "people get a page");
    }

    #[tokio::test]
    async fn a_method_that_a_call_does_not_have_is_refused_in_the_form_of_its_api() {
        let server = InProcess::new().await;
        for path in ["/api/iacp/v3/runs", "/api/iacp/v3/ping", "/api/v2/ping", "/api/v2/runs"] {
            let (status, answer) = refusal(&server, Method::DELETE, path).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer["errors"][0]["status"], "405", "{path}: {answer}");
        }
        // Whatever its query says.
        let path = "/api/iacp/v3/agents?colour=red";
        let (status, answer) = refusal(&server, Method::POST, path).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{answer}");
        let (status, answer) = refusal(&server, Method::GET, "/api/agent/v1/poll").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer["error"].is_string(), "{answer}");
    }
}

//! Calls of the API by the server's own pages, with all the checks that the API has.

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use super::{BASE, routes};
use crate::app::App;
use crate::local_api::LocalAdmin;
use crate::store::run_event::Actor;

/// Why a call did not do what it was made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The API refuses it.
    #[error("{}", whole(field.as_deref(), text))]
    Refused {
        /// The attribute or relationship that is wrong, if it is one.
        field: Option<String>,
        /// What is wrong.
        text: String,
    },
    /// The server failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Calls the API for `actor`, who may do everything; the document of the answer, null if it has
/// none.
///
/// # Errors
/// The API refuses it, or the server failed.
pub(crate) async fn call(
    app: &App,
    actor: Actor,
    method: Method,
    path: &str,
    body: impl Into<Body>,
) -> Result<Value, CallError> {
    let request = Request::builder().method(method).uri(format!("{BASE}{path}"));
    let request = request.extension(LocalAdmin).extension(actor).body(body.into());
    let request = request.map_err(|_| CallError::NotFound(format!("There is no {path}.")))?;
    let routes = routes(app).with_state(App::clone(app));
    let answer = routes.oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.context("cannot read an answer")?;
    if status.is_success() {
        return Ok(match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).unwrap_or_default(),
        });
    }
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = &document["errors"][0];
    let text = error["detail"].as_str().or(error["title"].as_str()).unwrap_or_default().to_owned();
    let field = error["source"]["pointer"].as_str().and_then(|path| path.rsplit('/').next());
    let field = field.map(str::to_owned);
    Err(match status {
        // With a field, it is a related thing that is not there.
        StatusCode::NOT_FOUND if field.is_none() => CallError::NotFound(text),
        status if status.is_client_error() => CallError::Refused { field, text },
        StatusCode::INSUFFICIENT_STORAGE => CallError::Refused { field, text },
        _ => anyhow::anyhow!("the API answers {status}: {}", whole(field.as_deref(), &text)).into(),
    })
}

/// A refusal with the name of its field.
fn whole(field: Option<&str>, text: &str) -> String {
    match field {
        Some(field) => format!("{}: {text}", field.replace('-', " ")),
        None => text.to_owned(),
    }
}

//! Calls of the API by the server's own pages, with all the checks that the API has.

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use super::{BASE, routes};
use crate::app::App;
use crate::local_api::LocalAdmin;
use crate::reopened;
use crate::store::run_event::Actor;

/// Why a call did not do what it was made for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The API refuses it.
    #[error("{}", whole(.0))]
    Refused(Vec<Wrong>),
    /// The server failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Something that the API refuses.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// The attribute or relationship that is wrong, if it is one.
    pub field: Option<String>,
    /// What is wrong.
    pub text: String,
}

impl Wrong {
    /// Reads an error of a document.
    fn read(error: &Value) -> Self {
        let text = error["detail"].as_str().or(error["title"].as_str()).unwrap_or_default();
        let field = error["source"]["pointer"].as_str().and_then(|path| path.rsplit('/').next());
        Self { field: field.map(str::to_owned), text: text.to_owned() }
    }
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
    if method != Method::GET && reopened::is_reopened() {
        return Err(CallError::Refused(vec![Wrong {
            field: None,
            text: reopened::WHY.to_owned(),
        }]));
    }
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
    let errors = document["errors"].as_array().cloned().unwrap_or_default();
    let wrong: Vec<Wrong> = errors.iter().map(Wrong::read).collect();
    Err(match status {
        // With a field, it is a related thing that is not there.
        StatusCode::NOT_FOUND if wrong.iter().all(|wrong| wrong.field.is_none()) => {
            CallError::NotFound(whole(&wrong))
        }
        status if status.is_client_error() => CallError::Refused(wrong),
        StatusCode::INSUFFICIENT_STORAGE => CallError::Refused(wrong),
        _ => anyhow::anyhow!("the API answers {status}: {}", whole(&wrong)).into(),
    })
}

/// A refusal with the names of its fields.
fn whole(wrong: &[Wrong]) -> String {
    let texts = wrong.iter().map(|Wrong { field, text }| match field {
        Some(field) => format!("{}: {text}", field.replace('-', " ")),
        None => text.clone(),
    });
    texts.collect::<Vec<_>>().join(" ")
}

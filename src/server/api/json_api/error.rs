//! Error documents.

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::{error, warn};

use super::MEDIA_TYPE;
use crate::api::status_of;
use crate::clock::{Millis, rfc3339};
use crate::connections::TooMany;
use crate::disk;
use crate::scheduler::Error;
use crate::store;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    title: String,
    detail: Option<String>,
    pointer: Option<String>,
    parameter: Option<String>,
    /// What else is wrong.
    others: Box<[ApiError]>,
}

impl ApiError {
    /// An error with a status and a title.
    pub(crate) fn new(status: StatusCode, title: impl Into<String>) -> Self {
        Self {
            status,
            title: title.into(),
            detail: None,
            pointer: None,
            parameter: None,
            others: Box::default(),
        }
    }

    /// All of these errors in one; the first one says what status the answer has.
    ///
    /// # Errors
    /// There are any.
    pub(crate) fn any_of(errors: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let mut errors = errors.into_iter();
        match errors.next() {
            Some(first) => Err(Self { others: errors.collect(), ..first }),
            None => Ok(()),
        }
    }

    /// This error, and what else is wrong.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.others.iter())
    }

    /// Says more.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says where in the request.
    fn pointer(mut self, pointer: String) -> Self {
        self.pointer = Some(pointer);
        self
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized").detail(
            "Send an admin's token, or a run's while it goes on: `Authorization: Bearer …`.",
        )
    }

    /// 401: an admin's token that has expired.
    pub(crate) fn expired(id: &str, expired_at: Millis) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized").detail(format!(
            "The token {id} expired at {}. Make another one on the server's host: `scalr-server \
             admin-token create`.",
            rfc3339(expired_at)
        ))
    }

    /// 403: a call that the token is not for.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden").detail(detail)
    }

    /// 404: `kind` is a type as clients know it, `AgentPool` for example.
    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("{kind} with ID '{id}' not found or user unauthorized."),
        )
    }

    /// 410: something whose content is not kept any more.
    pub(crate) fn gone(what: &str, removed_at: Millis) -> Self {
        Self::new(StatusCode::GONE, "Gone").detail(format!(
            "The {what} is gone: the server's retention removed it at {}.",
            rfc3339(removed_at)
        ))
    }

    /// 409.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict").detail(detail)
    }

    /// 400: a request that can't be read.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad Request").detail(detail)
    }

    /// 400: a parameter of the query that can't be.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "Invalid Query Parameter").detail(detail);
        Self { parameter: Some(name.to_owned()), ..error }
    }

    /// 422: an attribute that can't be.
    pub(crate) fn attribute(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid Attribute")
            .detail(detail)
            .pointer(format!("/data/attributes/{name}"))
    }

    /// 422: a relationship that can't be.
    pub(crate) fn relationship(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid Relationship")
            .detail(detail)
            .pointer(format!("/data/relationships/{name}"))
    }

    /// 404: a to-one relationship to something that is not there.
    pub(crate) fn no_related(name: &str, kind: &str, id: &str) -> Self {
        let detail = format!("{kind} with ID '{id}' not found or user unauthorized.");
        Self { status: StatusCode::NOT_FOUND, ..Self::relationship(name, detail) }
    }

    /// 404: a to-many relationship with something that is not there.
    pub(crate) fn no_related_many(name: &str, id: &str) -> Self {
        let detail =
            format!("Relationship '{name}' with ID '{id}' not found or user unauthorized.");
        Self { status: StatusCode::NOT_FOUND, ..Self::relationship(name, detail) }
    }

    /// Whether the request has to change, or has to wait, before it is accepted.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    /// Whether what the request is about is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.pointer.is_none()
    }

    /// What is wrong.
    pub(crate) fn text(&self) -> &str {
        self.detail.as_deref().unwrap_or(&self.title)
    }

    /// The attribute or relationship that is wrong, if it is one.
    pub(crate) fn field(&self) -> Option<&str> {
        self.pointer.as_ref()?.rsplit('/').next()
    }

    fn document(&self) -> Value {
        let mut error = json!({ "status": self.status.as_str(), "title": self.title });
        if let Some(detail) = &self.detail {
            error["detail"] = detail.as_str().into();
        }
        if let Some(pointer) = &self.pointer {
            error["source"] = json!({ "pointer": pointer });
        }
        if let Some(parameter) = &self.parameter {
            error["source"] = json!({ "parameter": parameter });
        }
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let errors: Vec<Value> = self.all().map(Self::document).collect();
        let body = json!({ "errors": errors }).to_string();
        (self.status, [(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<TooMany> for ApiError {
    fn from(error: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests").detail(format!("{error}."))
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        if let Some(why) = disk::full(&error) {
            warn!("request refused: {error:#}");
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "Insufficient Storage")
                .detail(format!("{why}."));
        }
        if let Some(why) = store::busy(&error) {
            warn!("request refused: {error:#}");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
                .detail(format!("{why}."));
        }
        error!("request failed: {error:#}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            .detail("The server failed; its log says why.")
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(detail) => Self::new(StatusCode::NOT_FOUND, "Not Found").detail(detail),
            Error::AttemptOver(detail) | Error::Conflict(detail) | Error::NameTaken(detail) => {
                Self::conflict(detail)
            }
            Error::TooLarge(why) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large")
                .detail(format!("The upload is refused: {why}.")),
            Error::Invalid(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Unprocessable Entity").detail(detail)
            }
            Error::InvalidAttribute { name, detail } => Self::attribute(name, detail),
            Error::Failed(error) => error.into(),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        let status = status_of(&rejection);
        Self::new(status, status.canonical_reason().unwrap_or_default())
            .detail(rejection.body_text())
    }
}

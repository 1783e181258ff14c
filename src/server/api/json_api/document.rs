//! JSON:API documents as Terraform sends and expects them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::query::ListQuery;
use crate::api::pools::{ApiError, MEDIA_TYPE};

/// An answer.
#[derive(Debug)]
pub(super) struct Document {
    status: StatusCode,
    body: Value,
}

impl Document {
    /// 200 with a resource.
    pub(super) fn of(resource: Value) -> Self {
        Self::with(StatusCode::OK, resource)
    }

    /// 201 with a new resource.
    pub(super) fn created(resource: Value) -> Self {
        Self::with(StatusCode::CREATED, resource)
    }

    /// The same, with related resources.
    pub(super) fn including(mut self, included: Vec<Value>) -> Self {
        if !included.is_empty() {
            self.body["included"] = included.into();
        }
        self
    }

    fn with(status: StatusCode, data: Value) -> Self {
        Self { status, body: json!({ "data": data }) }
    }

    /// 200 with a page of resources, of `total` in the whole list.
    pub(super) fn page(resources: Vec<Value>, total: i64, query: &ListQuery) -> Self {
        let (number, size) = (query.page.number, query.page.size);
        let pages = (total + size - 1) / size;
        let pagination = json!({
            "current-page": number,
            "prev-page": (number > 1).then(|| number - 1),
            "next-page": (number < pages).then(|| number + 1),
            "total-pages": pages,
            "total-count": total,
        });
        let body = json!({ "data": resources, "meta": { "pagination": pagination } });
        Self { status: StatusCode::OK, body }
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        (self.status, [(CONTENT_TYPE, MEDIA_TYPE)], self.body.to_string()).into_response()
    }
}

/// The `data` of a document that comes in; that of an empty body is `T`'s default.
#[derive(Debug)]
pub(super) struct Data<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Data<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Body<T> {
            data: T,
        }
        let body = Bytes::from_request(request, state).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        // The error quotes no values, which may be sensitive.
        let body: Body<T> = serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad_request(format!(
                "The body is not the JSON:API document that this call takes ({:?} error in line {}, \
                 column {}).",
                error.classify(),
                error.line(),
                error.column()
            ))
        })?;
        Ok(Self(body.data))
    }
}

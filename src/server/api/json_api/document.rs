//! What goes out.

use axum::Extension;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::MEDIA_TYPE;
use crate::store::Page;

/// An answer. [`send`] writes it, so that an API can add to it before.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    status: StatusCode,
    /// Its `data`, `included` and `meta`.
    pub body: Value,
}

impl Document {
    /// 200 with a resource.
    pub(in crate::api) fn of(resource: Value) -> Self {
        Self::with(StatusCode::OK, resource)
    }

    /// 201 with a new resource.
    pub(in crate::api) fn created(resource: Value) -> Self {
        Self::with(StatusCode::CREATED, resource)
    }

    /// 202 with a resource that something was begun with.
    pub(in crate::api) fn accepted(resource: Value) -> Self {
        Self::with(StatusCode::ACCEPTED, resource)
    }

    fn with(status: StatusCode, resource: Value) -> Self {
        Self { status, body: json!({ "data": resource }) }
    }

    /// 200 with a page of resources, of `total` in the whole list.
    pub(in crate::api) fn page(resources: Vec<Value>, total: i64, page: Page) -> Self {
        let Page { number, size } = page;
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

    /// The same, with related resources.
    pub(in crate::api) fn including(mut self, included: Vec<Value>) -> Self {
        if !included.is_empty() {
            self.body["included"] = included.into();
        }
        self
    }

    /// The resource in it.
    pub(crate) fn resource(&self) -> &Value {
        &self.body["data"]
    }

    /// The answer as it is sent.
    pub(in crate::api) fn send(self) -> Response {
        (self.status, [(CONTENT_TYPE, MEDIA_TYPE)], self.body.to_string()).into_response()
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        (self.status, Extension(self)).into_response()
    }
}

/// Writes the document that a call answered with, if it did with one.
pub(in crate::api) async fn send(mut response: Response) -> Response {
    match response.extensions_mut().remove::<Document>() {
        Some(document) => document.send(),
        None => response,
    }
}

/// A to-one relationship.
pub(in crate::api) fn to_one(kind: &str, id: Option<&str>) -> Value {
    json!({ "data": id.map(|id| json!({ "type": kind, "id": id })) })
}

/// A to-many relationship.
pub(in crate::api) fn to_many<'a>(kind: &str, ids: impl IntoIterator<Item = &'a String>) -> Value {
    let data: Vec<Value> = ids.into_iter().map(|id| json!({ "type": kind, "id": id })).collect();
    json!({ "data": data })
}

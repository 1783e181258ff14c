//! JSON:API documents, as the pool API and Terraform's API both speak them.

mod data;
mod document;
mod error;

use axum::http::{Method, StatusCode, Uri};

pub(super) use data::Data;
pub(crate) use document::Document;
pub(super) use document::{send, to_many, to_one};
pub(crate) use error::ApiError;

/// The media type of JSON:API.
pub(super) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// How many resources a page of a list has at most.
pub(super) const MAX_PAGE: i64 = 100;

/// The answer to a path that an API does not have.
pub(super) async fn no_such_call(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Not Found")
        .detail(format!("There is no {} in this API.", uri.path()))
}

/// The answer to a method that a path does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        .detail(format!("There is no {method} of {} in this API.", uri.path()))
}

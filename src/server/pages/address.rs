//! The extractors for what stands in an address: one that cannot be read gets a page that says
//! why, as everything else does.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::PageError;
use crate::app::App;

/// The parts of a path that its route names.
#[derive(Debug)]
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, PageError> {
        match extract::Path::from_request_parts(parts, app).await {
            Ok(extract::Path(found)) => Ok(Self(found)),
            Err(_) => Err(PageError::NotFound("page")),
        }
    }
}

/// What follows the question mark.
#[derive(Debug)]
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, PageError> {
        match extract::Query::from_request_parts(parts, app).await {
            Ok(extract::Query(found)) => Ok(Self(found)),
            Err(why) => Err(PageError::Address(why.body_text())),
        }
    }
}

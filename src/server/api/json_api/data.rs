//! What comes in.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ApiError;

/// The `data` of a document; that of an empty body is `T`'s default.
#[derive(Debug)]
pub(in crate::api) struct Data<T>(pub T);

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

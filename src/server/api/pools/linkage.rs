//! The resources of a to-many relationship as they come in.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::Deserialize;

use crate::api::json_api::ApiError;

/// The ids of a to-many relationship, which JSON:API calls its linkage: in a document of a
/// resource, or as the body of a change of the relationship. That body is never empty: it
/// would remove all there is.
#[derive(Debug, Deserialize)]
#[serde(from = "ToMany")]
pub(super) struct Linkage(pub Vec<String>);

#[derive(Deserialize)]
struct ToMany {
    data: Vec<Identifier>,
}

/// Which resource it is.
#[derive(Deserialize)]
pub(super) struct Identifier {
    pub id: String,
    /// The relationship says it, too.
    #[serde(default, rename = "type")]
    _type: String,
}

impl From<ToMany> for Linkage {
    fn from(related: ToMany) -> Self {
        Self(related.data.into_iter().map(|resource| resource.id).collect())
    }
}

impl<S: Send + Sync> FromRequest<S> for Linkage {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await?;
        serde_json::from_slice(&body).map_err(|_| {
            ApiError::bad_request(
                "The body is no list of resources: {\"data\": [{\"type\": …, \"id\": …}]}.",
            )
        })
    }
}

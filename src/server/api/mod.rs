//! What the server answers: the agents' protocol and the pool API.

pub(crate) mod agent;
pub(crate) mod json_api;
pub(crate) mod pools;
pub(crate) mod terraform;

use std::error::Error;

use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use tower_http::timeout::TimeoutError;

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

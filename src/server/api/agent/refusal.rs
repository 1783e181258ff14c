//! Why a call was refused, as agents are told.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tracing::{error, info};

use crate::api::status_of;
use crate::connections::TooMany;
use crate::disk;
use crate::scheduler::{Denied, Error};
use crate::store;
use protocol::limits::OutOfBounds;
use protocol::{Code, LogOffset, Problem};

/// A refused call.
#[derive(Debug)]
pub(in crate::api) enum Refusal {
    /// With the reason.
    Problem(StatusCode, Problem),
    /// With the offset from which the log has to be sent.
    Offset(StatusCode, u64),
}

impl Refusal {
    /// A token that is not accepted.
    pub(super) fn unauthorized(why: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, why)
    }

    /// A file that is not there.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what}"))
    }

    /// Something that does not fit how things are.
    pub(super) fn conflict(why: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, why)
    }

    /// An attempt that has ended or does not count any more.
    pub(super) fn attempt_over(why: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, why).code(Code::AttemptOver)
    }

    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self::Problem(status, Problem { error: short(why.into()), code: None })
    }

    /// Says what it means, unless it does already.
    pub(super) fn code(mut self, code: Code) -> Self {
        if let Self::Problem(_, problem) = &mut self {
            problem.code.get_or_insert(code);
        }
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Problem(status, problem) => {
                let error = &problem.error;
                info!(status = status.as_u16(), error, "call of an agent refused");
                (status, Json(problem)).into_response()
            }
            Refusal::Offset(status, offset) => {
                let log = LogOffset { offset, interval_milliseconds: None };
                (status, Json(log)).into_response()
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::AttemptOver(_) => return Self::attempt_over(error.to_string()),
            Error::NameTaken(_) => {
                return Self::conflict(error.to_string()).code(Code::NameTaken);
            }
            Error::TooLarge(_) => {
                return Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
                    .code(Code::TooLarge);
            }
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Invalid(_) | Error::InvalidAttribute { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Failed(error) => return error.into(),
        };
        Self::new(status, error.to_string())
    }
}

impl From<TooMany> for Refusal {
    fn from(error: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
    }
}

impl From<OutOfBounds> for Refusal {
    fn from(error: OutOfBounds) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthorized(why) => Self::unauthorized(why),
            Denied::Replaced(why) => Self::unauthorized(why).code(Code::NameTaken),
            Denied::RegisterAgain(why) => Self::conflict(why),
            Denied::Failed(error) => error.into(),
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        if let Some(why) = disk::full(&error) {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, why);
        }
        if let Some(why) = store::busy(&error) {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, why);
        }
        error!("call of an agent failed: {error:#}");
        let text = "the server failed; its log says why".to_owned();
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Refusal {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}
from_rejection!(PathRejection, QueryRejection);

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(status_of(&rejection), rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            rejection => Self::new(rejection.status(), rejection.body_text()),
        }
    }
}

/// The beginning of a reason that may quote a path or a value of any length: answer and log
/// have it, whoever sent it.
fn short(mut why: String) -> String {
    const MAX: usize = 300;
    if why.len() > MAX {
        why.truncate(why.floor_char_boundary(MAX));
        why.push('…');
    }
    why
}

/// The answer to a call that the protocol does not have.
pub(in crate::api) async fn no_such_call(uri: Uri) -> Refusal {
    Refusal::not_found(&format!("call {} in this version of the protocol", uri.path()))
}

/// The answer to a method that a call does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let why = format!("there is no {method} of {} in this version of the protocol", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_has_not_failed() {
        for refusal in [
            Refusal::from(sqlx::Error::PoolTimedOut),
            Refusal::from(Denied::Failed(sqlx::Error::PoolTimedOut)),
            Refusal::from(Error::from(sqlx::Error::PoolTimedOut)),
        ] {
            assert_eq!(refusal.into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let failed = Refusal::from(sqlx::Error::PoolClosed).into_response();
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

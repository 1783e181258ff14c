//! The pages for what did not work.

use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tracing::error;

use super::frame;
use crate::api::pools::CallError;
use crate::api::status_of;
use crate::scheduler::Error;
use crate::store;

/// How much of an address a page repeats, in characters.
const MAX_QUOTED: usize = 200;

/// Why there is no page as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// Somebody has to sign in first, and goes to `next` then.
    #[error("not signed in")]
    SignIn { next: Option<String> },
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// An address that asks for something in a way that is not known.
    #[error("cannot read the address: {0}")]
    Address(String),
    /// An address that forms are sent to, and that is no page itself.
    #[error("the address takes forms only")]
    OnlyForms,
    /// An address that is a page, and that nothing is sent to.
    #[error("the address takes no forms")]
    OnlyPages,
    /// A form without its token.
    #[error("the form did not come from a page of this server")]
    Forged,
    /// A form that can't be read.
    #[error("cannot read the form: {0}")]
    Unread(BytesRejection),
    /// Something that is not possible as things are.
    #[error("{0}")]
    Refused(String),
    /// The server failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<tera::Error> for PageError {
    fn from(error: tera::Error) -> Self {
        Self::Failed(anyhow::Error::new(error).context("cannot render the page"))
    }
}

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        match error {
            Error::Failed(error) => Self::Failed(error),
            refused => Self::Refused(refused.to_string()),
        }
    }
}

impl From<CallError> for PageError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotFound(_) => Self::NotFound("thing"),
            refused @ CallError::Refused(_) => Self::Refused(refused.to_string()),
            CallError::Failed(error) => Self::Failed(error),
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::SignIn { next: None } => return Redirect::to("/sign-in").into_response(),
            Self::SignIn { next: Some(next) } => {
                let next = utf8_percent_encode(&next, NON_ALPHANUMERIC);
                return Redirect::to(&format!("/sign-in?next={next}")).into_response();
            }
            Self::NotFound(what) => (
                StatusCode::NOT_FOUND,
                "Not found",
                format!("There is no such {what}. It may have been deleted."),
            ),
            Self::Address(why) => (
                StatusCode::BAD_REQUEST,
                "Address not readable",
                format!(
                    "{}. Correct what follows the question mark, or leave it out.",
                    why.chars().take(MAX_QUOTED).collect::<String>()
                ),
            ),
            Self::OnlyForms => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not a page",
                "Forms are sent to this address; there is no page to look at. Go back, or start \
                 again."
                    .to_owned(),
            ),
            Self::OnlyPages => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Nothing to send here",
                "This address is a page to look at; it takes no forms. Nothing was changed."
                    .to_owned(),
            ),
            Self::Forged => (
                StatusCode::FORBIDDEN,
                "Form refused",
                "This form is not from your current session. Nothing was changed. Go back, \
                 reload the page and send the form again."
                    .to_owned(),
            ),
            Self::Unread(why) => (
                status_of(&why),
                "Form not readable",
                "The form is too large, or it did not arrive whole. Nothing was changed."
                    .to_owned(),
            ),
            Self::Refused(why) => (StatusCode::CONFLICT, "Not possible now", why),
            Self::Failed(error) => match store::busy(&error) {
                Some(why) => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The server is busy",
                    format!("Nothing was changed: {why}."),
                ),
                None => {
                    error!("page failed: {error:#}");
                    (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "The server failed",
                        "The request failed on the server; its log says why.".to_owned(),
                    )
                }
            },
        };
        frame::plain(status, title, &text)
    }
}

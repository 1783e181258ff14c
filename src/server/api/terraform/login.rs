//! `terraform login`: OAuth 2 with an authorization code (RFC 6749, section 4.1) and PKCE
//! (RFC 7636). The browser allows it on [`AUTHORIZE`], a page; Terraform exchanges the code that
//! the browser brings it for a token here.

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower_http::timeout::RequestBodyDeadlineLayer;

use crate::api::calls::{About, Calls, Content};
use crate::api::json_api::ApiError;
use crate::api::pools::{DOCUMENT_TIME, Payload, access_tokens};
use crate::app::App;
use crate::store::login_code::{self, LoginCode};
use crate::token::PresentedToken;

/// The page that asks people whether a program may log in.
pub(crate) const AUTHORIZE: &str = "/oauth/authorize";

/// Where a code is exchanged for a token.
const TOKEN: &str = "/oauth/token";

/// What Terraform calls itself.
pub(crate) const CLIENT: &str = "terraform-cli";

/// The ports of which Terraform listens on one.
const PORTS: [u16; 2] = [10_000, 10_010];

/// The largest request, in bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// Answers with a token are kept in no cache.
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

pub(super) fn calls() -> Calls {
    let about = About::from("Exchange a code for a token")
        .takes("application/x-www-form-urlencoded", true, || {
            let names = ["grant_type", "client_id", "code", "code_verifier", "redirect_uri"];
            let texts = names.map(|name| (name.to_owned(), json!({ "type": "string" })));
            json!({
                "type": "object",
                "required": names,
                "properties": Map::from_iter(texts),
            })
        })
        .answers(
            StatusCode::OK,
            Content::Other("application/json", || {
                let token = json!({ "type": "string" });
                json!({ "type": "object", "properties": { "access_token": token } })
            }),
        )
        // RFC 6749, section 5.2.
        .answers(
            StatusCode::BAD_REQUEST,
            Content::Other("application/json", || {
                let text = json!({ "type": "string" });
                json!({ "type": "object", "required": ["error"], "properties": {
                    "error": text, "error_description": text,
                } })
            }),
        );
    Calls::default()
        .post(TOKEN, about, exchange)
        .without_token()
        .layer((DefaultBodyLimit::max(MAX_REQUEST), RequestBodyDeadlineLayer::new(DOCUMENT_TIME)))
}

/// What Terraform reads of the service `login.v1`.
pub(super) fn service() -> Value {
    json!({
        "client": CLIENT,
        "grant_types": ["authz_code"],
        "authz": AUTHORIZE,
        "token": TOKEN,
        "ports": PORTS,
    })
}

#[derive(Deserialize)]
struct Exchange {
    grant_type: String,
    client_id: String,
    code: String,
    code_verifier: String,
    redirect_uri: String,
}

async fn exchange(
    State(app): State<App>,
    form: Result<Form<Exchange>, FormRejection>,
) -> Result<Response, ExchangeError> {
    let Form(asked) = form.map_err(|error| ExchangeError::Request(error.body_text()))?;
    if asked.grant_type != "authorization_code" {
        return Err(ExchangeError::GrantType);
    }
    let code = PresentedToken::parse(&asked.code).ok_or(ExchangeError::Code)?;
    let code = take(&app, &code).await?.ok_or(ExchangeError::Code)?;
    if asked.client_id != CLIENT || asked.redirect_uri != code.redirect_uri {
        return Err(ExchangeError::Code);
    }
    if !is_verified(&asked.code_verifier, &code.code_challenge) {
        return Err(ExchangeError::Code);
    }
    let name = Map::from_iter([("name".to_owned(), code.token_name.into())]);
    let payload = Payload::of("access-tokens", name, Map::new())?;
    let made = access_tokens::create_admin(State(app), payload).await?;
    let token = &made.resource()["attributes"]["token"];
    tracing::info!(token = %made.resource()["id"], "made a token for terraform login");
    Ok((NO_STORE, Json(json!({ "access_token": token, "token_type": "bearer" }))).into_response())
}

/// The code that was sent, which works no more from then on, whatever becomes of the request.
async fn take(app: &App, sent: &PresentedToken) -> sqlx::Result<Option<LoginCode>> {
    let now = app.scheduler.clock.now();
    let found = {
        // Whoever has no code makes nobody wait for the one writer.
        let mut db = app.scheduler.store.read().await?;
        login_code::find(&mut db, &sent.id, now).await?
    };
    let Some(code) = found.filter(|code| sent.matches(&code.secret_hash)) else {
        return Ok(None);
    };
    let mut tx = app.scheduler.store.write().await?;
    let is_first = login_code::delete(&mut tx, &code.id).await?;
    tx.commit().await?;
    Ok(is_first.then_some(code))
}

/// Whether `verifier` is what the program had hashed when it asked for the code.
fn is_verified(verifier: &str, challenge: &str) -> bool {
    let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    hash.as_bytes().ct_eq(challenge.as_bytes()).into()
}

/// Why there is no token (RFC 6749, section 5.2).
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("{0}")]
    Request(String),
    #[error("The grant type is not authorization_code.")]
    GrantType,
    #[error(
        "The code is unknown, used, expired, or for another program. Run terraform login again."
    )]
    Code,
    #[error("The request failed on the server; its log says why.")]
    Failed,
}

impl From<sqlx::Error> for ExchangeError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!("cannot read a login code: {error}");
        Self::Failed
    }
}

impl From<ApiError> for ExchangeError {
    fn from(error: ApiError) -> Self {
        tracing::error!("cannot make a token for terraform login: {}", error.text());
        Self::Failed
    }
}

impl IntoResponse for ExchangeError {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Request(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::GrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::Code => (StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        let body = json!({ "error": error, "error_description": self.to_string() });
        (status, NO_STORE, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_compared_by_its_sha_256() {
        // The example of RFC 7636, appendix B.
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(is_verified("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", challenge));
        assert!(!is_verified(challenge, challenge));
        assert!(!is_verified("", challenge));
    }
}

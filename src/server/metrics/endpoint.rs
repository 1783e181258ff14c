//! `GET /metrics`: for the metrics token, an admin's token and the socket of the server's host.

use std::path::Path;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cli::{Failure, untrusted_file};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use subtle::ConstantTimeEq as _;

use super::snapshot;
use crate::api::json_api::ApiError;
use crate::api::pools::check_admin;
use crate::app::{App, Bearer};
use crate::connections::{Owner, authenticated};
use crate::local_api::LocalAdmin;
use crate::token::PresentedToken;
use protocol::Secret;

/// The text format of `OpenMetrics`, which Prometheus asks for.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What names the token's file.
const OPTION: &str = "--metrics-token-file, SCALR_SERVER_METRICS_TOKEN_FILE";

/// A token that is shorter may have been chosen by a person.
const SHORTEST_TOKEN: usize = 32;

/// The call.
pub(crate) fn routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

/// Reads the metrics token.
///
/// # Errors
/// The file can't be read, or its token is too short.
pub(crate) fn read_token(file: &Path) -> Result<Secret> {
    let text = untrusted_file::read_text(file)
        .with_context(|| format!("cannot read the metrics token {} ({OPTION})", file.display()))?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage.because(format!(
            "cannot use the metrics token in {} ({OPTION}): it must have at least \
             {SHORTEST_TOKEN} letters and digits on one line\nMake one: openssl rand -hex 32",
            file.display()
        )));
    }
    Ok(Secret::new(token))
}

async fn metrics(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    if extensions.get::<LocalAdmin>().is_none() {
        check(&app, &Bearer::of(&headers).0).await?;
    }
    authenticated(&extensions, Owner::Token("metrics"))?;
    let snapshot = snapshot::take(&app).await?;
    let mut text = String::new();
    for registry in [&snapshot, &*app.scheduler.store.metrics.registry] {
        encode_registry(&mut text, registry).expect("a text takes all that is written");
    }
    encode_eof(&mut text).expect("a text takes all that is written");
    Ok(([(CONTENT_TYPE, FORMAT)], text).into_response())
}

async fn check(app: &App, token: &Secret) -> Result<(), ApiError> {
    let is_for_metrics = |expected: &Secret| -> bool {
        expected.expose().as_bytes().ct_eq(token.expose().as_bytes()).into()
    };
    if app.metrics_token.as_ref().is_some_and(is_for_metrics) {
        return Ok(());
    }
    let shown = PresentedToken::parse(token.expose()).ok_or_else(ApiError::unauthorized)?;
    check_admin(app, &shown).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_metrics_token_is_one_long_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            read_token(&file)
        };
        let word = "0123456789abcdef".repeat(2);
        assert_eq!(read(&format!("{word}\n")).unwrap().expose(), word);
        for bad in ["", "\n", "secret", &format!("{word} {word}"), &word[1..]] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("at least 32"), "{bad:?}: {error}");
            assert!(error.contains("openssl rand -hex 32"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(read_token(&file).unwrap_err().to_string().starts_with("cannot read the metrics"));
    }
}

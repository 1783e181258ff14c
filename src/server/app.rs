//! What every request handler works with.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, request};
use url::Url;

use super::kept_forms::KeptForms;
use super::logs::Logs;
use super::packages::Packages;
use super::scheduler::Scheduler;
use super::sign_in_attempts::Attempts;
use super::turns::Turns;
use super::usage::{Quotas, Usage};
use super::watched::Watched;
use protocol::Secret;

/// The parts of a running server.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Runs, tasks and agents, and under them the database and the objects.
    pub scheduler: Scheduler,
    /// The logs of plans and applies.
    pub logs: Logs,
    /// How much workspaces store.
    pub usage: Usage,
    /// How much they may store.
    pub quotas: Quotas,
    /// Which of the logs somebody watches.
    pub watched: Watched,
    /// Which uploads are read next.
    pub uploads: Arc<Turns>,
    /// Whose states' outputs are read next.
    pub outputs: Arc<Turns>,
    /// Who failed to sign in to the pages.
    pub sign_ins: Attempts,
    /// What was typed into forms whose sessions had ended.
    pub kept_forms: KeptForms,
    /// Where people and agents find the server.
    pub url: Url,
    /// The certificate of the server's own authority, PEM, if it has one.
    pub authority: Option<String>,
    /// The packages' repositories, if the server has them.
    pub packages: Option<Packages>,
    /// What may read the metrics, besides an admin's token.
    pub metrics_token: Option<Secret>,
}

/// The parts, shared by all handlers.
pub(crate) type App = Arc<Parts>;

impl Parts {
    /// The absolute URL of a path on this server.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.url.as_str().trim_end_matches('/'))
    }
}

/// The token of a request: what stands behind `Bearer` in its `Authorization`.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(pub Secret);

/// A call that is held takes it, not the headers: those keep the connection's buffer.
impl<S: Sync> FromRequestParts<S> for Bearer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl Bearer {
    /// Reads it; empty when the request has none.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let header = headers.get(AUTHORIZATION);
        let text = header.and_then(|header| header.to_str().ok()).unwrap_or_default();
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        };
        Self(Secret::new(token))
    }
}

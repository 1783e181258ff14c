//! The collector, as the exporters see it: calls by way of the agent's proxy, with
//! its certificates, and with the headers that only a file holds.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::in_one_line;
use crate::https::Https;
use crate::trusted;
use config::Config;

/// How long the collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the log repeats that a collector is still away.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(3600);

/// The longest answer that is read, in bytes: it says how much was refused.
const LONGEST_ANSWER: usize = 64 * 1024;

/// The collector. The exporters call from threads of their own; the calls
/// themselves are made by the agent's runtime.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    http: reqwest::Client,
    headers: HeaderMap,
    runtime: Handle,
    /// When the log last said that it is away; none: it is not.
    away_reported: Arc<Mutex<Option<Instant>>>,
    closed: CancellationToken,
}

impl Collector {
    /// The collector in the settings; called inside of the runtime.
    pub(super) fn of(config: &Config, https: &Https) -> Result<Self> {
        let headers = match &config.telemetry_headers {
            Some(file) => {
                headers(file).with_context(|| format!("cannot use {}", file.display()))?
            }
            None => HeaderMap::new(),
        };
        // A header with a password goes nowhere else.
        let http = https.client().redirect(redirect::Policy::none());
        Ok(Self {
            http: http.build().context("cannot set up HTTPS")?,
            headers,
            runtime: Handle::current(),
            away_reported: Arc::default(),
            closed: CancellationToken::new(),
        })
    }

    /// Whether it did not take what was sent last.
    pub(super) fn is_away(&self) -> bool {
        self.away_reported().is_some()
    }

    /// From now on all calls fail at once, also those under way.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let mut request = reqwest::Request::try_from(request).map_err(in_one_line)?;
        request.headers_mut().extend(self.headers.clone());
        let mut answer = self.http.execute(request).await.map_err(in_one_line)?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(in_one_line)? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_ANSWER {
                bail!("its answer is longer than {LONGEST_ANSWER} bytes");
            }
        }
        let mut response = Response::new(body.into());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    fn took_it(&self) {
        if self.away_reported().take().is_some() {
            info!("the telemetry collector takes metrics and traces again");
        }
    }

    fn did_not_take_it(&self, why: &anyhow::Error) {
        let mut reported = self.away_reported();
        if reported.is_none_or(|reported| reported.elapsed() > BETWEEN_WARNINGS) {
            *reported = Some(Instant::now());
            warn!("the telemetry collector does not take metrics and traces: {why:#}");
        }
    }

    fn away_reported(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_reported.lock().expect("nothing panics while it holds this")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let collector = self.clone();
        let sending = self.runtime.spawn(async move {
            let sent = tokio::select! {
                sent = tokio::time::timeout(TIMEOUT, collector.send(request)) => sent,
                () = collector.closed.cancelled() => bail!("the agent ends"),
            };
            let response = sent.unwrap_or_else(|_| Err(anyhow!("no answer in time")));
            match &response {
                Ok(response) if response.status().is_success() => collector.took_it(),
                Ok(response) => {
                    collector.did_not_take_it(&anyhow!("it answered {}", response.status()));
                }
                Err(error) => collector.did_not_take_it(error),
            }
            response
        });
        Ok(sending.await??)
    }
}

/// The headers in a file, each `Name: value` in a line of its own.
fn headers(file: &Path) -> Result<HeaderMap> {
    let text = trusted::private_text(file)?;
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // Not the line itself: it may hold a password.
        let (name, value) = header(line)
            .with_context(|| format!("line {} should look like `Name: value`", number + 1))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn headers_are_read_from_a_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Authorization: Bearer hunter2%20\n\napi-key:x\n").unwrap();
        let read = headers(file.path()).unwrap();
        assert_eq!(
            (&read["authorization"], &read["api-key"]),
            (&"Bearer hunter2%20".parse().unwrap(), &"x".parse().unwrap())
        );
        assert!(!format!("{read:?}").contains("hunter2"), "{read:?}");
        std::fs::write(file.path(), "Accept: x\nhunter2\n").unwrap();
        let error = format!("{:#}", headers(file.path()).unwrap_err());
        assert_eq!(error, "line 2 should look like `Name: value`");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(headers(file.path()).unwrap_err().to_string().contains("chmod 0640"));
    }
}

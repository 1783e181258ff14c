//! Announces queued tasks to the webhooks of their pools, so that whoever is behind one starts
//! an agent for each: a POST, repeated until it is answered with 2xx or the task has an agent.
//!
//! What is still to be announced stands in the database, so it outlives a restart. A webhook can
//! get a call twice, when the server ends between an answer and its record: both have the same
//! `Idempotency-Key`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::http::header::CONTENT_TYPE;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::app::Parts;
use crate::clock::rfc3339;
use crate::scheduler::millis;
use crate::store::webhook_call::{self, WebhookCall};

/// How often the server looks for tasks to announce.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a webhook may take to answer: it starts something, and does not wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many calls of a pool's webhook are made at once.
const AT_ONCE: i64 = 10;

impl Parts {
    /// Calls webhooks until the server stops.
    pub(crate) async fn call_webhooks(&self) {
        let http = match client() {
            Ok(http) => http,
            Err(error) => return error!("cannot call the webhooks of pools: {error:#}"),
        };
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A slow webhook holds up the other calls of its own pool alone.
        let mut busy = BTreeSet::new();
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = interval.tick() => match self.due(&busy).await {
                    Ok(due) => for (pool, due) in due {
                        busy.insert(pool);
                        calls.push(self.call_all(&http, due));
                    },
                    Err(error) => error!("cannot call the webhooks of pools: {error:#}"),
                },
                Some(pool) = calls.next() => drop(busy.remove(&pool)),
                () = self.scheduler.wake.stopped() => return,
            }
        }
    }

    /// What is due of the pools that are not `busy`, by pool.
    async fn due(&self, busy: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<WebhookCall>>> {
        let busy = serde_json::to_string(busy)?;
        let mut db = self.scheduler.store.read().await?;
        let due = webhook_call::due(&mut db, self.scheduler.clock.now(), AT_ONCE, &busy).await?;
        let mut by_pool = BTreeMap::<_, Vec<_>>::new();
        for call in due {
            by_pool.entry(call.pool_id.clone()).or_default().push(call);
        }
        Ok(by_pool)
    }

    /// Makes calls of one pool; gives that pool.
    async fn call_all(&self, http: &Client, calls: Vec<WebhookCall>) -> String {
        let made = calls.iter().map(async |call| self.record(call, post(http, call).await).await);
        for error in join_all(made).await.into_iter().filter_map(Result::err) {
            error!("cannot record a call of a webhook: {error:#}");
        }
        calls.into_iter().map(|call| call.pool_id).next().unwrap_or_default()
    }

    async fn record(&self, call: &WebhookCall, posted: Result<()>) -> Result<()> {
        let WebhookCall { pool_id: pool, task_id: task, .. } = call;
        let next_at = match posted {
            Ok(()) => {
                info!(pool, task, "webhook called");
                None
            }
            Err(error) => {
                let pause = pause(call.failures);
                let seconds = pause.as_secs();
                warn!(pool, task, "webhook failed, next try in {seconds} s: {error:#}");
                Some(self.scheduler.clock.now() + millis(pause))
            }
        };
        let mut tx = self.scheduler.store.write().await?;
        webhook_call::record(&mut tx, call, next_at).await?;
        Ok(tx.commit().await?)
    }
}

fn client() -> Result<Client> {
    // Fails when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The headers are secrets for this host alone, and a POST that becomes a GET says nothing.
    let client = Client::builder().redirect(Policy::none()).timeout(TIMEOUT);
    client.build().context("cannot set up TLS")
}

/// The error says nothing about the URL, which may have a secret in its path or query.
async fn post(http: &Client, call: &WebhookCall) -> Result<()> {
    let url = call.webhook.url.as_ref().context("the webhook has no URL")?;
    let body = json!({
        "task_id": call.task_id,
        "action": call.phase.name(),
        "run_id": call.run_id,
        "workspace_id": call.workspace_id,
        "environment_id": call.environment_id,
        "created_at": call.queued_at.map(rfc3339),
    });
    let mut request = http.post(url.expose()).header(CONTENT_TYPE, "application/json");
    for header in &call.webhook.headers {
        request = request.header(&header.name, header.value.expose());
    }
    let request = request.header("Idempotency-Key", idempotency_key(call)).body(body.to_string());
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => bail!("it answered {status}"),
    }
}

/// The task, and which attempt at it unless that is the first: one that lost its agent needs
/// another.
fn idempotency_key(call: &WebhookCall) -> String {
    match call.attempt {
        1 => call.task_id.clone(),
        attempt => format!("{}.{attempt}", call.task_id),
    }
}

/// How long to wait after a failure: from a second to five minutes, and up to twice that, so
/// that not all are repeated at once.
fn pause(failures: i64) -> Duration {
    let longest = Duration::from_secs(5 * 60);
    let pauses = ExponentialBuilder::new().with_max_delay(longest).without_max_times();
    let earlier = usize::try_from(failures).unwrap_or_default().min(16);
    pauses.with_jitter().build().nth(earlier).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_get_longer_and_end_at_ten_minutes() {
        for (failures, seconds) in [(0, 1..=2), (3, 8..=16), (20, 300..=600), (i64::MAX, 300..=600)]
        {
            assert!(seconds.contains(&pause(failures).as_secs()), "{failures}");
        }
    }
}

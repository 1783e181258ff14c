//! Calls webhooks: those of pools for queued tasks ([`tasks`]), and those for what happens to
//! runs and agents ([`deliveries`]).
//!
//! What is still to be called stands in the database, so it outlives a restart. A webhook can get
//! a call twice, when the server ends between an answer and its record: both have the same key.

mod deliveries;
mod places;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::future::join_all;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::error;

use crate::app::Parts;
use crate::store::webhook::Webhook;
use crate::store::webhook_call::{self, WebhookCall};
use crate::store::webhook_delivery::{self, DueDelivery};
use places::Places;

/// How often the server looks for calls to make.
const SWEEP: Duration = Duration::from_secs(1);

/// How many calls of one webhook are made at once.
const AT_ONCE: i64 = 10;

/// A call that is due.
enum Call {
    Task(Box<WebhookCall>),
    Delivery(Box<DueDelivery>),
}

impl Call {
    /// What its webhook belongs to: a slow one holds up the other calls of this one alone.
    fn owner(&self) -> &str {
        match self {
            Self::Task(call) => &call.pool_id,
            Self::Delivery(call) => &call.delivery.integration_id,
        }
    }
}

impl Parts {
    /// Calls webhooks until the server stops.
    pub(crate) async fn call_webhooks(self: Arc<Self>) {
        let http = match client() {
            Ok(http) => http,
            Err(error) => return error!("cannot call webhooks: {error:#}"),
        };
        let mut interval = tokio::time::interval(SWEEP);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut places = Places::default();
        let mut due = BTreeMap::new();
        // Tasks of their own: while this one asks the database, they let go of it.
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                _ = interval.tick() => match self.due(&places).await {
                    Ok(found) => due = found,
                    Err(error) => error!("cannot look for webhooks to call: {error:#}"),
                },
                Some(called) = calls.join_next() => match called {
                    Ok((owner, took)) => places.leave(owner, took),
                    Err(error) => error!("a call of a webhook panicked: {error:#}"),
                },
                () = self.scheduler.wake.stopped() => return,
            }
            while let Some((owner, due)) = places.take(&mut due) {
                let (app, http) = (Arc::clone(&self), http.clone());
                calls.spawn(async move { app.call_all(&http, owner, due).await });
            }
        }
    }

    /// What is due of the webhooks that are not being called, by their owners.
    async fn due(&self, places: &Places) -> Result<BTreeMap<String, Vec<Call>>> {
        let busy = serde_json::to_string(&places.busy())?;
        let now = self.scheduler.clock.now();
        let mut db = self.scheduler.store.read().await?;
        let tasks = webhook_call::due(&mut db, now, AT_ONCE, &busy).await?;
        let deliveries = webhook_delivery::due(&mut db, now, AT_ONCE, &busy).await?;
        let mut due = BTreeMap::<_, Vec<_>>::new();
        for call in tasks
            .into_iter()
            .map(Box::new)
            .map(Call::Task)
            .chain(deliveries.into_iter().map(Box::new).map(Call::Delivery))
        {
            due.entry(call.owner().to_owned()).or_default().push(call);
        }
        Ok(due)
    }

    /// Makes calls of one webhook; gives its owner, and how long they took.
    async fn call_all(&self, http: &Client, owner: String, calls: Vec<Call>) -> (String, Duration) {
        let begun = Instant::now();
        let made = calls.into_iter().map(async |call| match call {
            Call::Task(call) => self.announce_task(http, *call).await,
            Call::Delivery(call) => self.deliver(http, *call).await,
        });
        for error in join_all(made).await.into_iter().filter_map(Result::err) {
            error!("cannot record a call of a webhook: {error:#}");
        }
        (owner, begun.elapsed())
    }
}

fn client() -> Result<Client> {
    // Fails when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The headers are secrets for this host alone, and a POST that becomes a GET says nothing.
    let client = Client::builder().redirect(Policy::none());
    // Else the idle connections to many webhooks would take the server's open files.
    client.pool_max_idle_per_host(0).build().context("cannot set up TLS")
}

/// A POST to a webhook, with its own headers.
fn request(http: &Client, webhook: &Webhook) -> Result<RequestBuilder> {
    let url = webhook.url.as_ref().context("the webhook has no URL")?;
    let request = http.post(url.expose()).header("content-type", "application/json");
    let headers = webhook.headers.iter();
    Ok(headers.fold(request, |request, header| request.header(&header.name, header.value.expose())))
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

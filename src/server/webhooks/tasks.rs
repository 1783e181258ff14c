//! Announces queued tasks to the webhooks of their pools, so that whoever is behind one starts
//! an agent for each: a POST, repeated until it is answered with 2xx or the task has an agent.

use std::time::Duration;

use anyhow::{Result, bail};
use reqwest::Client;
use serde_json::json;
use tracing::{info, warn};

use crate::app::Parts;
use crate::clock::rfc3339;
use crate::scheduler::millis;
use crate::store::webhook_call::{self, WebhookCall};

/// How long a webhook may take to answer: it starts something, and does not wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Parts {
    pub(super) async fn announce_task(&self, http: &Client, call: WebhookCall) -> Result<()> {
        let posted = post(http, &call).await;
        let WebhookCall { pool_id: pool, task_id: task, .. } = &call;
        let next_at = match posted {
            Ok(()) => {
                info!(pool, task, "webhook called");
                None
            }
            Err(error) => {
                let pause = super::pause(call.failures);
                let seconds = pause.as_secs();
                warn!(pool, task, "webhook failed, next try in {seconds} s: {error:#}");
                Some(self.scheduler.clock.now() + millis(pause))
            }
        };
        let mut tx = self.scheduler.store.write().await?;
        webhook_call::record(&mut tx, &call, next_at).await?;
        Ok(tx.commit().await?)
    }
}

/// The error says nothing about the URL, which may have a secret in its path or query.
async fn post(http: &Client, call: &WebhookCall) -> Result<()> {
    let body = json!({
        "task_id": call.task_id,
        "action": call.phase.name(),
        "run_id": call.run_id,
        "workspace_id": call.workspace_id,
        "environment_id": call.environment_id,
        "created_at": call.queued_at.map(rfc3339),
    });
    let request = super::request(http, &call.webhook)?
        .header("Idempotency-Key", idempotency_key(call))
        .timeout(TIMEOUT)
        .body(body.to_string());
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

//! Calls webhooks for what happens to runs and agents: a POST with a signature, tried a few times.
//! What became of each is kept.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use reqwest::Client;
use serde_json::{Value, json};
use sha2::Sha256;
use tracing::{info, warn};

use crate::app::Parts;
use crate::clock::{Millis, rfc3339};
use crate::scheduler::millis;
use crate::store::webhook_delivery::{self, DueDelivery, Subject};
use crate::store::webhook_integration;
use protocol::Secret;

/// How much is kept of an answer, in bytes.
const MAX_ANSWER: usize = 1024;

/// An answer: its status and its beginning.
struct Answer {
    status: i64,
    beginning: String,
}

impl Parts {
    pub(super) async fn deliver(&self, http: &Client, due: DueDelivery) -> Result<()> {
        let Some(body) = self.body(&due).await? else { return Ok(()) };
        let begun = self.scheduler.clock.now();
        let since = Instant::now();
        let answered = post(http, &due, body.to_string(), begun).await;
        let mut tried = due.delivery;
        tried.attempts += 1;
        tried.attempted_at = Some(begun);
        tried.duration = Some(millis(since.elapsed()));
        (tried.answer_status, tried.answer) = match &answered {
            Ok(answer) => (Some(answer.status), Some(answer.beginning.clone())),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        tried.delivered = answered.is_ok_and(|answer| (200..300).contains(&answer.status));
        let again = !tried.delivered && tried.attempts < due.max_attempts;
        let pause = super::pause(tried.attempts - 1);
        tried.next_at = again.then(|| self.scheduler.clock.now() + millis(pause));
        let (webhook, delivery) = (&tried.integration_id, &tried.id);
        match tried.delivered {
            true => info!(webhook, delivery, "webhook called"),
            false => warn!(webhook, delivery, again, "webhook failed"),
        }
        let mut tx = self.scheduler.store.write().await?;
        webhook_delivery::record(&mut tx, &tried).await?;
        webhook_integration::touch(&mut tx, &tried.integration_id, begun).await?;
        Ok(tx.commit().await?)
    }

    /// What a call says; none: its run is gone, and the call with it.
    async fn body(&self, due: &DueDelivery) -> Result<Option<Value>> {
        let delivery = &due.delivery;
        let mut body = json!({
            "payload_version": 1,
            "event_name": delivery.event,
            "webhook": { "id": delivery.integration_id, "name": due.webhook_name },
        });
        match &delivery.subject {
            Subject::Run { id, status } => {
                let mut db = self.scheduler.store.read().await?;
                let run = webhook_delivery::called_run(&mut db, id).await?;
                let Some(run) = run else { return Ok(None) };
                body["run"] = json!({
                    "id": id,
                    "message": run.message,
                    "status": status,
                    "source": run.source.name(),
                    "url": self.link(&format!("/runs/{id}")),
                    "created_at": rfc3339(run.created_at),
                    "updated_at": rfc3339(delivery.happened_at),
                });
                body["workspace"] = json!({
                    "id": run.workspace_id,
                    "name": run.workspace_name,
                    "url": self.link(&format!("/workspaces/{}", run.workspace_id)),
                });
                body["environment"] = json!({
                    "id": run.environment_id,
                    "name": run.environment_name,
                    "url": self.link(&format!("/workspaces?environment={}", run.environment_id)),
                });
            }
            Subject::Agent(agent) => {
                body["agent"] = json!({
                    "id": agent.id,
                    "name": agent.name,
                    "status": agent.health.name(),
                    "left": agent.left,
                    "error_message": agent.error,
                    "url": self.link(&format!("/agents/{}", agent.id)),
                    "last_seen_at": rfc3339(agent.last_seen_at),
                    "updated_at": rfc3339(delivery.happened_at),
                });
                body["agent_pool"] = json!({
                    "id": agent.pool_id,
                    "name": agent.pool_name,
                    "url": self.link(&format!("/pools/{}", agent.pool_id)),
                });
            }
        }
        Ok(Some(body))
    }
}

/// The error says nothing about the URL, which may have a secret in its path or query.
async fn post(http: &Client, due: &DueDelivery, body: String, now: Millis) -> Result<Answer> {
    let date = Timestamp::from_millisecond(now)?;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&date)?;
    let mut request = super::request(http, &due.webhook)?
        .header("X-Scalr-Delivery-Id", &due.delivery.id)
        .header("Date", &date)
        .timeout(Duration::from_secs(u64::try_from(due.timeout).unwrap_or(1)));
    if let Some(key) = &due.webhook.secret_key {
        request = request.header("X-Signature", signature(key, &body, &date)?);
    }
    let sent = request.body(body).send().await;
    let mut answer = sent.map_err(reqwest::Error::without_url)?;
    let status = i64::from(answer.status().as_u16());
    let mut beginning = Vec::new();
    while beginning.len() < MAX_ANSWER
        && let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)?
    {
        beginning.extend_from_slice(&piece[..piece.len().min(MAX_ANSWER - beginning.len())]);
    }
    Ok(Answer { status, beginning: String::from_utf8_lossy(&beginning).into_owned() })
}

/// The HMAC-SHA256 of the body and then the date, in hex: what existing receivers check.
fn signature(key: &Secret, body: &str, date: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .context("cannot sign with the secret key")?;
    mac.update(body.as_bytes());
    mac.update(date.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

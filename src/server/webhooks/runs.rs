//! Calls webhooks for what happens to runs: a POST with a signature, tried a few times. What
//! became of each is kept.

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
use crate::store::webhook_delivery::{self, DueDelivery};
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
        let begun = self.scheduler.clock.now();
        let since = Instant::now();
        let answered = post(http, &due, self.body(&due).to_string(), begun).await;
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

    fn body(&self, due: &DueDelivery) -> Value {
        let delivery = &due.delivery;
        json!({
            "payload_version": 1,
            "event_name": delivery.event,
            "run": {
                "id": delivery.run_id,
                "message": due.message,
                "status": delivery.run_status,
                "source": due.source.name(),
                "url": self.link(&format!("/runs/{}", delivery.run_id)),
                "created_at": rfc3339(due.run_created_at),
                "updated_at": rfc3339(delivery.happened_at),
            },
            "webhook": { "id": delivery.integration_id, "name": due.webhook_name },
            "workspace": {
                "id": due.workspace_id,
                "name": due.workspace_name,
                "url": self.link(&format!("/workspaces/{}", due.workspace_id)),
            },
            "environment": {
                "id": due.environment_id,
                "name": due.environment_name,
                "url": self.link(&format!("/workspaces?environment={}", due.environment_id)),
            },
        })
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

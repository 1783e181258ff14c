//! The logs of plans and applies, as Terraform reads them: without a token, so that their
//! links have a secret, and with its own query instead of the link's. A link is good for as long
//! as the token that it was shown to.
//!
//! A log begins with STX and ends with ETX; Terraform stops there. ETX is there as soon as the
//! task has ended, which is written in one transaction with what that means for its run:
//! Terraform looks at the run next, to see whether it can ask for a yes.

use std::io::SeekFrom;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::calls::{About, Calls, Content};
use crate::api::json_api::ApiError;
use crate::app::App;
use crate::connections::{Owner, authenticated};
use crate::logs::Key;
use crate::store::log_link;
use crate::store::run::{self, Run};
use crate::store::task::{self, Phase, Task};
use crate::token::NewToken;

const STX: u8 = 0x02;
const ETX: u8 = 0x03;

/// Terraform leaves out the first three lines of an apply's log, which repeat the plan's
/// where it was made for.
const APPLY_LEAD: &[u8] = b"\n\n\n";

/// How long a read without anything new is held. After an empty one, Terraform waits for half
/// a second and more before the next.
const HOLD: Duration = Duration::from_secs(25);

/// How often it is looked at meanwhile whether the link still works.
const LOOK_AT_LINK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// The most that a read answers, in bytes.
const MAX_PIECE: u64 = 64 * 1024;

/// The call that needs no token.
pub(super) fn calls() -> Calls {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let about = About::from("Read the log of a plan or an apply")
        .details(
            "From `offset` on, at most `limit` bytes; it waits until there is something. The path \
             is that of the link `log-read-url`, which the plan or the apply has.",
        )
        .parameter("offset", number)
        .parameter("limit", number)
        .answers(StatusCode::OK, Content::Other("text/plain", || json!({ "type": "string" })));
    Calls::default().get("/logs/{id}/{secret}", about, read)
}

/// The secret in a token's link to the log of a plan or an apply.
pub(super) async fn secret(
    app: &App,
    phase_id: &str,
    access_token_id: &str,
) -> Result<String, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    if let Some(secret) = log_link::find(&mut db, phase_id, access_token_id).await? {
        return Ok(secret);
    }
    drop(db);
    let new = NewToken::new(phase_id).token;
    let mut tx = app.scheduler.store.write().await?;
    let secret = log_link::secret(&mut tx, phase_id, access_token_id, new.expose()).await?;
    tx.commit().await?;
    Ok(secret)
}

/// Checks that `secret` is that of a link whose token still works.
async fn check(app: &App, phase_id: &str, secret: &str) -> Result<(), ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let known = log_link::list(&mut db, phase_id, app.scheduler.clock.now()).await?;
    let is_known = known.iter().any(|known| known.as_bytes().ct_eq(secret.as_bytes()).into());
    if is_known { Ok(()) } else { Err(ApiError::not_found("Log", phase_id)) }
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(default)]
    offset: u64,
    #[serde(default = "max_piece")]
    limit: u64,
}

fn max_piece() -> u64 {
    MAX_PIECE
}

async fn read(
    State(app): State<App>,
    Path((id, secret)): Path<(String, String)>,
    part: Result<Query<Part>, QueryRejection>,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let Query(part) = part?;
    check(&app, &id, &secret).await?;
    authenticated(&extensions, Owner::Token(&id))?;

    let until = Instant::now() + HOLD;
    // Before the log is read, else what comes in between is missed.
    let mut changes = app.scheduler.store.changes.watch();
    let mut log = Log::of(&app, &id).await?;
    let topic = format!("run:{}", log.run_id);
    let mut checked = Instant::now();
    loop {
        if checked.elapsed() > LOOK_AT_LINK {
            check(&app, &id, &secret).await?;
            checked = Instant::now();
        }
        let growth = app.logs.growth(&log.key);
        let mut grown = pin!(growth.notified());
        grown.as_mut().enable();
        app.watched.asked(&log.key.task_id);
        let piece = log.piece(&app, part.offset, part.limit.min(MAX_PIECE)).await?;
        let is_over = Instant::now() >= until || app.scheduler.wake.is_stopping();
        if !piece.is_empty() || log.is_ended || is_over {
            let head = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Ok((head, piece).into_response());
        }
        tokio::select! {
            () = grown => {}
            () = sleep(LOOK_AT_LINK) => {}
            changed = timeout_at(until, changes.recv()) => match changed {
                Ok(Ok(topics)) if !topics.contains(&topic) => {}
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => log = Log::of(&app, &id).await?,
                Ok(Err(RecvError::Closed)) | Err(_) => {}
            },
            () = app.scheduler.wake.stopped() => {}
        }
    }
}

/// The log of a plan or an apply, with what stands around it.
struct Log {
    run_id: String,
    key: Key,
    lead: Vec<u8>,
    tail: Vec<u8>,
    is_ended: bool,
}

impl Log {
    async fn of(app: &App, phase_id: &str) -> Result<Self, ApiError> {
        let mut db = app.scheduler.store.read().await?;
        let task = task::find_phase(&mut db, phase_id).await?;
        let task = task.ok_or_else(|| ApiError::not_found("Log", phase_id))?;
        let run = run::find(&mut db, &task.run_id).await?.context("a task without its run")?;
        Ok(Self::new(&task, run))
    }

    fn new(task: &Task, run: Run) -> Self {
        let mut lead = vec![STX];
        if task.phase == Phase::Apply {
            lead.extend(APPLY_LEAD);
        }
        let mut tail = Vec::new();
        if task.state.is_ended() {
            if run.files_removed_at.is_some() {
                tail.extend(b"The log is gone: the server's retention removed it.\n");
            }
            // Otherwise nobody at a terminal learns why.
            if let Some(message) = &task.message {
                tail.extend(format!("\n{}\n", message.trim_end()).bytes());
            }
            tail.push(ETX);
        }
        Self {
            run_id: run.id,
            key: Key {
                workspace_id: run.workspace_id,
                task_id: task.id.clone(),
                attempt: task.attempt,
            },
            lead,
            tail,
            is_ended: task.state.is_ended(),
        }
    }

    /// What is there from an offset on.
    async fn piece(&self, app: &App, offset: u64, limit: u64) -> Result<Vec<u8>, ApiError> {
        let file = app.logs.reader(&self.key).await?;
        let length = match &file {
            Some(file) => file.metadata().await.context("cannot look at a log")?.len(),
            None => 0,
        };
        let lead = self.lead.len() as u64;
        let mut piece = Vec::new();
        piece.extend(part(&self.lead, offset, limit));
        let at = offset.saturating_sub(lead);
        let count = length.saturating_sub(at).min(limit - piece.len() as u64);
        if let Some(mut file) = file.filter(|_| count > 0) {
            file.seek(SeekFrom::Start(at)).await.context("cannot read a log")?;
            file.take(count).read_to_end(&mut piece).await.context("cannot read a log")?;
        }
        let after = offset.saturating_sub(lead + length);
        // The tail only follows the whole log.
        if offset + piece.len() as u64 >= lead + length {
            piece.extend(part(&self.tail, after, limit - piece.len() as u64));
        }
        Ok(piece)
    }
}

/// Up to `limit` bytes of `content` from `offset` on.
fn part(content: &[u8], offset: u64, limit: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let rest = &content[start..];
    let end = usize::try_from(limit).unwrap_or(usize::MAX).min(rest.len());
    &rest[..end]
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::in_process::InProcess;

    async fn get(server: &InProcess, path: &str, token: &str) -> (StatusCode, Value) {
        let (status, body) = server.call(Method::GET, path, token, &[], "").await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_link_and_a_held_read_end_with_the_token_that_the_link_was_shown_to() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let mut db = server.app.scheduler.store.read().await.unwrap();
        let plan = task::find(&mut db, &working.task).await.unwrap().unwrap().phase_id;
        drop(db);
        let path = "/access-tokens";
        let made = server.api(Method::POST, path, json!({ "data": { "attributes": {} } })).await;
        let (id, token) = (&made["data"]["id"], &made["data"]["attributes"]["token"]);
        let link = async |token: &str| {
            let (_, shown) = get(&server, &format!("/api/v2/plans/{plan}"), token).await;
            let link = shown["data"]["attributes"]["log-read-url"].as_str().unwrap();
            format!("{}?offset=1", link.strip_prefix("https://pools.example.com").unwrap())
        };
        let link_of_token = link(token.as_str().unwrap()).await;
        let mut held = pin!(get(&server, &link_of_token, ""));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut held).await;
        assert!(early.is_err(), "{early:?}");
        server.api(Method::DELETE, &format!("{path}/{}", id.as_str().unwrap()), Value::Null).await;
        let held = tokio::time::timeout(Duration::from_secs(10), held).await;
        assert_eq!(held.expect("it ends").0, StatusCode::NOT_FOUND);
        assert_eq!(get(&server, &link_of_token, "").await.0, StatusCode::NOT_FOUND);
        let link_of_admin = link(&server.admin).await;
        let mut held = pin!(get(&server, &link_of_admin, ""));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut held).await;
        assert!(early.is_err(), "another token's link has ended: {early:?}");
    }
}

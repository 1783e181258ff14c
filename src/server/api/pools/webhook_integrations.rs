//! Webhooks that are called when something happens to runs and agents, and their deliveries.

use std::ops::RangeInclusive;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{the_account, webhook};
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document, to_many, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::webhook::Webhook;
use crate::store::webhook_delivery::{self as delivery, Subject, WebhookDelivery};
use crate::store::webhook_integration::{self as integration, Event, Events, WebhookIntegration};
use crate::store::{Connection, environment, is_taken};
use crate::token::new_id;
use protocol::Secret;

/// What existing clients expect of one that says nothing.
pub(crate) const TIMEOUT: i64 = 15;
pub(crate) const MAX_ATTEMPTS: i64 = 3;

/// How long a call may take, in seconds.
pub(super) const TIMEOUTS: RangeInclusive<i64> = 1..=60;

/// How many attempts at a call there may be.
pub(super) const ATTEMPTS: RangeInclusive<i64> = 1..=10;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/webhook-integrations", "List webhooks", list)
        .post("/webhook-integrations", "Create a webhook", create)
        .get("/webhook-integrations/{id}", "Read a webhook", read)
        .patch("/webhook-integrations/{id}", "Change a webhook", update)
        .delete("/webhook-integrations/{id}", "Delete a webhook", delete)
        .get("/webhook-deliveries", "List the deliveries of webhooks", list_deliveries)
        .get("/webhook-deliveries/{id}", "Read a delivery of a webhook", read_delivery)
        .post(
            "/webhook-deliveries/{id}/actions/redeliver",
            About::one("Repeat a delivery of a webhook", StatusCode::CREATED, "webhook-deliveries"),
            redeliver,
        )
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = integration::Filter {
        id: query.filter("webhook-integration"),
        name: query.filter("name"),
        account: query.filter("account"),
        environment: query.filter("environment"),
        enabled: query.filter("enabled"),
    };
    let listed = integration::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let found = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &found).await?))
}

/// Creates a webhook.
pub(crate) async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut new = WebhookIntegration {
        id: new_id("wh"),
        account_id: the_account(&mut tx).await?.id,
        name: payload.required("name")?,
        enabled: true,
        is_shared: false,
        webhook: Webhook::default(),
        timeout: TIMEOUT,
        max_attempts: MAX_ATTEMPTS,
        events: Events::default(),
        last_triggered_at: None,
        created_at: app.scheduler.clock.now(),
    };
    change(&mut new, &payload)?;
    integration::insert(&mut tx, &new).await.map_err(name_taken)?;
    save_environments(&mut tx, &new, &payload).await?;
    let resource = render(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(Document::created(resource))
}

/// Changes a webhook.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut changed = find(&mut tx, &id).await?;
    change(&mut changed, &payload)?;
    integration::update(&mut tx, &changed).await.map_err(name_taken)?;
    save_environments(&mut tx, &changed, &payload).await?;
    let resource = render(&mut tx, &changed).await?;
    tx.commit().await?;
    Ok(Document::of(resource))
}

/// Deletes a webhook with its deliveries.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    integration::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(changed: &mut WebhookIntegration, payload: &Payload) -> Result<(), ApiError> {
    payload.unchanged("account", Some(&changed.account_id))?;
    if let Some(name) = payload.name("name")? {
        changed.name = name;
    }
    if let Some(enabled) = payload.attribute("enabled")? {
        changed.enabled = enabled;
    }
    if let Some(is_shared) = payload.attribute("is-shared")? {
        changed.is_shared = is_shared;
    }
    if let Some(url) = webhook::url(payload, "url")? {
        changed.webhook.url = url;
    }
    if let Some(headers) = webhook::headers(payload, "headers", &changed.webhook.headers)? {
        changed.webhook.headers = headers;
    }
    if let Some(key) = payload.text("secret-key")? {
        changed.webhook.secret_key = key.map(Secret::new);
    }
    if let Some(timeout) = payload.attribute("timeout")? {
        changed.timeout = timeout;
    }
    if let Some(most) = payload.attribute("max-attempts")? {
        changed.max_attempts = most;
    }
    if let Some(names) = payload.to_many("events")? {
        changed.events = Events(names.iter().map(|name| event(name)).collect::<Result<_, _>>()?);
    }
    if changed.webhook.url.is_none() {
        return Err(ApiError::attribute("url", "This field is required."));
    }
    match changed.events.0.is_empty() {
        true => Err(ApiError::relationship("events", "A webhook is for at least one event.")),
        false => Ok(()),
    }
}

fn event(name: &str) -> Result<Event, ApiError> {
    let found = Event::ALL.into_iter().find(|event| event.name() == name);
    found.ok_or_else(|| {
        let known = Event::ALL.map(Event::name).join(", ");
        let detail = format!("There is no event {name}; there are: {known}.");
        ApiError::relationship("events", detail)
    })
}

async fn save_environments(
    db: &mut Connection,
    changed: &WebhookIntegration,
    payload: &Payload,
) -> Result<(), ApiError> {
    let Some(ids) = payload.to_many("environments")? else { return Ok(()) };
    for id in &ids {
        if environment::find(db, id).await?.is_none() {
            return Err(ApiError::no_related_many("environments", id));
        }
    }
    Ok(integration::set_environments(db, &changed.id, &ids).await?)
}

async fn find(db: &mut Connection, id: &str) -> Result<WebhookIntegration, ApiError> {
    let found = integration::find(db, id).await?;
    found.ok_or_else(|| ApiError::not_found("WebhookIntegration", id))
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "A webhook with this name exists already."),
        false => error.into(),
    }
}

/// The webhooks with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let found = integration::with_ids(db, ids).await?;
    render_all(db, &found).await
}

async fn render(db: &mut Connection, one: &WebhookIntegration) -> Result<Value, ApiError> {
    Ok(render_all(db, std::slice::from_ref(one)).await?.remove(0))
}

async fn render_all(
    db: &mut Connection,
    all: &[WebhookIntegration],
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = all.iter().map(|one| one.id.as_str()).collect();
    let environments = integration::environments_of(db, &ids).await?;
    let render = |one: &WebhookIntegration| {
        let own = environments.iter().filter(|(id, _)| *id == one.id).map(|(_, id)| id);
        let events: Vec<_> = one.events.0.iter().map(|event| event.name().to_owned()).collect();
        json!({
            "type": "webhook-integrations",
            "id": one.id,
            "attributes": {
                "name": one.name,
                "enabled": one.enabled,
                "is-shared": one.is_shared,
                "url": one.webhook.url.as_ref().map(Secret::expose),
                // Never shown again.
                "secret-key": Value::Null,
                "headers": webhook::render_headers(&one.webhook.headers),
                "timeout": one.timeout,
                "max-attempts": one.max_attempts,
                "last-triggered-at": one.last_triggered_at.map(rfc3339),
                "created-at": rfc3339(one.created_at),
            },
            "relationships": {
                "account": to_one("accounts", Some(&one.account_id)),
                "environments": to_many("environments", own),
                "events": to_many("event-definitions", &events),
            },
        })
    };
    Ok(all.iter().map(render).collect())
}

async fn list_deliveries(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = delivery::Filter {
        id: query.filter("webhook-delivery"),
        integration: query.filter("webhook-integration"),
        run: query.filter("run"),
        agent: query.filter("agent"),
    };
    let listed = delivery::list(&mut db, filter, query.view()).await?;
    let resources = listed.rows.iter().map(render_delivery).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read_delivery(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render_delivery(&find_delivery(&mut db, &id).await?)))
}

/// Makes the same call once more.
pub(crate) async fn redeliver(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let earlier = find_delivery(&mut tx, &id).await?;
    let new = earlier.again(new_id("wd"), app.scheduler.clock.now());
    delivery::insert(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(Document::created(render_delivery(&new)))
}

async fn find_delivery(db: &mut Connection, id: &str) -> Result<WebhookDelivery, ApiError> {
    let found = delivery::find(db, id).await?;
    found.ok_or_else(|| ApiError::not_found("WebhookDelivery", id))
}

fn render_delivery(one: &WebhookDelivery) -> Value {
    let (run, agent) = match &one.subject {
        Subject::Run { id, status } => (Some((id, status)), None),
        Subject::Agent(agent) => (None, Some(agent)),
    };
    json!({
        "type": "webhook-deliveries",
        "id": one.id,
        "attributes": {
            "event": one.event,
            "run-status": run.map(|(_, status)| status),
            "agent-name": agent.map(|agent| &agent.name),
            "agent-status": agent.map(|agent| agent.health.name()),
            "status": one.state(),
            "attempts": one.attempts,
            "next-attempt-at": one.next_at.map(rfc3339),
            "attempted-at": one.attempted_at.map(rfc3339),
            "duration-milliseconds": one.duration,
            "answer-status": one.answer_status,
            "answer": one.answer,
            "created-at": rfc3339(one.created_at),
        },
        "relationships": {
            "webhook-integration": to_one("webhook-integrations", Some(&one.integration_id)),
            "run": to_one("runs", run.map(|(id, _)| id.as_str())),
            "agent": to_one("agents", agent.map(|agent| agent.id.as_str())),
        },
    })
}

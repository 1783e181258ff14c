//! Links of hooks with environments: which runs execute a hook, and where.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::hook_link::{self, HookEvents, HookLink};
use crate::store::{Connection, account_hook, environment, is_taken};
use crate::token::new_id;
use protocol::Hook;
use protocol::limits::MAX_ENVIRONMENT_HOOKS;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/hook-environment-links", "List the links of hooks with environments", list)
        .post("/hook-environment-links", "Link a hook to an environment", create)
        .get("/hook-environment-links/{id}", "Read a link of a hook", read)
        .patch("/hook-environment-links/{id}", "Change the events of a link", update)
        .delete("/hook-environment-links/{id}", "Delete a link of a hook", delete)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = hook_link::Filter {
        id: query.filter("hook-environment-link"),
        hook: query.filter("hook"),
        environment: query.filter("environment"),
        event: event_filter(&query)?,
    };
    let listed = hook_link::list(&mut db, filter, query.view()).await?;
    let resources = listed.rows.iter().map(render).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

/// The event that a list of links or hooks is filtered by.
pub(super) fn event_filter(query: &ListQuery) -> Result<Option<Hook>, ApiError> {
    let Some(name) = query.filter("events") else { return Ok(None) };
    let event = Hook::named(name);
    event.map(Some).ok_or_else(|| {
        let known = Hook::ALL.map(Hook::name).join(", ");
        ApiError::parameter("filter[events]", format!("filter[events] takes one of: {known}."))
    })
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

/// Links a hook to an environment.
pub(crate) async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let new = HookLink {
        id: new_id("hel"),
        hook_id: payload.required_to_one("hook")?,
        environment_id: payload.required_to_one("environment")?,
        events: events(payload.required("events")?)?,
        created_at: app.scheduler.clock.now(),
    };
    if account_hook::find(&mut tx, &new.hook_id).await?.is_none() {
        return Err(ApiError::no_related("hook", "Hook", &new.hook_id));
    }
    if environment::find(&mut tx, &new.environment_id).await?.is_none() {
        return Err(ApiError::no_related("environment", "Environment", &new.environment_id));
    }
    hook_link::insert(&mut tx, &new).await.map_err(|error| match is_taken(&error) {
        true => ApiError::relationship(
            "environment",
            "The hook is linked to this environment already: change the events of that link.",
        ),
        false => error.into(),
    })?;
    if hook_link::count(&mut tx, &new.environment_id).await? > MAX_ENVIRONMENT_HOOKS as i64 {
        let detail = format!("An environment has at most {MAX_ENVIRONMENT_HOOKS} hooks.");
        return Err(ApiError::relationship("environment", detail));
    }
    tx.commit().await?;
    Ok(Document::created(render(&new)))
}

/// Changes the events of a link.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut changed = find(&mut tx, &id).await?;
    payload.unchanged("hook", Some(&changed.hook_id))?;
    payload.unchanged("environment", Some(&changed.environment_id))?;
    if let Some(named) = payload.attribute("events")? {
        changed.events = events(named)?;
    }
    hook_link::update(&mut tx, &changed).await?;
    tx.commit().await?;
    Ok(Document::of(render(&changed)))
}

/// Deletes a link.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    hook_link::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The events with these names, each once and in the order of a run.
fn events(named: Vec<Hook>) -> Result<HookEvents, ApiError> {
    let events: Vec<Hook> = Hook::ALL.into_iter().filter(|event| named.contains(event)).collect();
    match events.is_empty() {
        true => Err(ApiError::attribute(
            "events",
            format!(
                "A link is for at least one event of {}.",
                Hook::ALL.map(Hook::name).join(", ")
            ),
        )),
        false => Ok(HookEvents(events)),
    }
}

async fn find(db: &mut Connection, id: &str) -> Result<HookLink, ApiError> {
    let found = hook_link::find(db, id).await?;
    found.ok_or_else(|| ApiError::not_found("HookEnvironmentLink", id))
}

fn render(link: &HookLink) -> Value {
    json!({
        "type": "hook-environment-links",
        "id": link.id,
        "attributes": {
            "events": link.events.names(),
            "created-at": rfc3339(link.created_at),
        },
        "relationships": {
            "environment": to_one("environments", Some(&link.environment_id)),
            "hook": to_one("hooks", Some(&link.hook_id)),
        },
    })
}

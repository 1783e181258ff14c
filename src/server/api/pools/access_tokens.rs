//! Pools' access tokens.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use super::agent_pools;
use super::document::{Document, Payload, to_one};
use super::error::ApiError;
use super::query::ListQuery;
use crate::app::App;
use crate::clock::{Millis, rfc3339};
use crate::store::Connection;
use crate::store::access_token::{self, AccessToken};
use crate::token::{NewToken, new_id};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/agent-pools/{id}/access-tokens", get(list).post(create))
        .route("/access-tokens/{id}", get(read).patch(update).delete(delete))
}

async fn list(
    State(app): State<App>,
    Path(pool_id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    query.allow(&[])?;
    let mut db = app.scheduler.store.read().await?;
    let pool = agent_pools::find(&mut db, &pool_id).await?;
    let listed = access_token::list(&mut db, &pool.id, query.page).await?;
    let now = app.scheduler.clock.now();
    let resources = listed.rows.iter().map(|token| render(token, now)).collect();
    Ok(Document::page(resources, &listed, &query))
}

async fn create(
    State(app): State<App>,
    Path(pool_id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let now = app.scheduler.clock.now();
    let mut tx = app.scheduler.store.write().await?;
    let pool = agent_pools::find(&mut tx, &pool_id).await?;
    let id = new_id("at");
    let issued = NewToken::new(&id);
    let mut token = AccessToken {
        id,
        account_id: pool.account_id,
        pool_id: Some(pool.id),
        name: None,
        description: None,
        secret_hash: issued.secret_hash,
        created_at: now,
        expires_at: expires_at(&payload, now)?,
        last_used_at: None,
    };
    change(&mut token, &payload)?;
    access_token::insert(&mut tx, &token).await?;
    tx.commit().await?;
    let mut resource = render(&token, now);
    // The only time that it is shown.
    resource["attributes"]["token"] = issued.token.expose().into();
    Ok(Document::created(resource))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?, app.scheduler.clock.now())))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut token = find(&mut tx, &id).await?;
    change(&mut token, &payload)?;
    access_token::update(&mut tx, &token).await?;
    tx.commit().await?;
    Ok(Document::of(render(&token, app.scheduler.clock.now())))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let token = find(&mut tx, &id).await?;
    access_token::delete(&mut tx, &id).await?;
    tx.commit().await?;
    // The held polls of the sessions that it ends.
    if let Some(pool) = &token.pool_id {
        app.scheduler.wake.pool(pool);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A pool's token; an admin's can't be reached here.
async fn find(db: &mut Connection, id: &str) -> Result<AccessToken, ApiError> {
    access_token::find(db, id)
        .await?
        .filter(|token| token.pool_id.is_some())
        .ok_or_else(|| ApiError::not_found("AccessToken", id))
}

fn change(token: &mut AccessToken, payload: &Payload) -> Result<(), ApiError> {
    if let Some(name) = payload.text("name")? {
        token.name = name;
    }
    if let Some(description) = payload.text("description")? {
        token.description = description;
    }
    Ok(())
}

/// When a new token expires: `expires-in` is in minutes.
fn expires_at(payload: &Payload, now: Millis) -> Result<Option<Millis>, ApiError> {
    match payload.attribute::<i64>("expires-in")? {
        None => Ok(None),
        Some(minutes @ 1..=52_560_000) => Ok(Some(now + minutes * 60_000)),
        Some(_) => {
            Err(ApiError::attribute("expires-in", "This field takes minutes, from 1 to 100 years."))
        }
    }
}

fn render(token: &AccessToken, now: Millis) -> Value {
    json!({
        "type": "access-tokens",
        "id": token.id,
        "attributes": {
            "name": token.name,
            "description": token.description,
            "created-at": rfc3339(token.created_at),
            "expires-in": token.expires_at.map(|at| (at - token.created_at) / 60_000),
            "expires-at": token.expires_at.map(rfc3339),
            "is-expired": token.is_expired(now),
            "last-used-at": token.last_used_at.map(rfc3339),
        },
        "relationships": {
            "agent-pool": to_one("agent-pools", token.pool_id.as_deref()),
        },
    })
}

//! Environments.

use std::slice;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::agent_pools::usable_pool;
use super::payload::Payload;
use super::query::ListQuery;
use super::tags::Tagged;
use super::the_account;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_many, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::environment::{self, Environment, Filter};
use crate::store::{Connection, Page, is_taken, tag, workspace};
use crate::token::new_id;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/environments", "List environments", list)
        .post("/environments", "Create an environment", create)
        .get("/environments/{id}", "Read an environment", read)
        .patch("/environments/{id}", "Change an environment", update)
        .delete("/environments/{id}", "Delete an environment", delete)
}

/// The environment with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Environment, ApiError> {
    environment::find(db, id).await?.ok_or_else(|| ApiError::not_found("Environment", id))
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("environment"),
        name: query.filter("name"),
        account: query.filter("account"),
    };
    let listed = environment::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &environment).await?))
}

/// Creates an environment.
pub(crate) async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut environment = Environment {
        id: new_id("env"),
        account_id: the_account(&mut tx).await?.id,
        name: payload.required("name")?,
        default_pool_id: None,
        created_at: app.scheduler.clock.now(),
    };
    change(&mut environment, &payload)?;
    environment::insert(&mut tx, &environment).await.map_err(name_taken)?;
    // Only now: which pools it may use depends on its being there.
    set_default_pool(&mut tx, &mut environment, &payload).await?;
    Tagged::Environment(&environment.id).save(&mut tx, &payload).await?;
    let resource = render(&mut tx, &environment).await?;
    tx.commit().await?;
    Ok(Document::created(resource))
}

/// Changes an environment.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut environment = find(&mut tx, &id).await?;
    change(&mut environment, &payload)?;
    set_default_pool(&mut tx, &mut environment, &payload).await?;
    Tagged::Environment(&environment.id).save(&mut tx, &payload).await?;
    let resource = render(&mut tx, &environment).await?;
    tx.commit().await?;
    Ok(Document::of(resource))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    let filter = workspace::Filter { environment: Some(&id), ..Default::default() };
    let one = Page { number: 1, size: 1 };
    if workspace::list(&mut tx, filter, one).await?.total > 0 {
        return Err(ApiError::conflict("The environment has workspaces: delete them first."));
    }
    environment::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(environment: &mut Environment, payload: &Payload) -> Result<(), ApiError> {
    payload.unchanged("account", Some(&environment.account_id))?;
    if let Some(name) = payload.name("name")? {
        environment.name = name;
    }
    Ok(())
}

async fn set_default_pool(
    db: &mut Connection,
    environment: &mut Environment,
    payload: &Payload,
) -> Result<(), ApiError> {
    const NAME: &str = "default-workspace-agent-pool";
    if let Some(pool) = payload.to_one(NAME)? {
        if let Some(pool) = &pool {
            usable_pool(db, NAME, pool, &environment.id).await?;
        }
        environment.default_pool_id = pool;
    }
    environment::update(db, environment).await.map_err(name_taken)
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "An environment with this name exists already."),
        false => error.into(),
    }
}

/// The environments with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let environments = environment::with_ids(db, ids).await?;
    render_all(db, &environments).await
}

async fn render(db: &mut Connection, environment: &Environment) -> Result<Value, ApiError> {
    Ok(render_all(db, slice::from_ref(environment)).await?.remove(0))
}

async fn render_all(
    db: &mut Connection,
    environments: &[Environment],
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = environments.iter().map(|environment| environment.id.as_str()).collect();
    let tags = tag::of_environments(db, &ids).await?;
    let render = |environment: &Environment| {
        let own = tags.iter().filter(|(id, _)| *id == environment.id);
        render_with(environment, own.map(|(_, tag)| tag))
    };
    Ok(environments.iter().map(render).collect())
}

fn render_with<'a>(environment: &Environment, tags: impl Iterator<Item = &'a String>) -> Value {
    json!({
        "type": "environments",
        "id": environment.id,
        "attributes": {
            "name": environment.name,
            "created-at": rfc3339(environment.created_at),
        },
        "relationships": {
            "account": to_one("accounts", Some(&environment.account_id)),
            "default-workspace-agent-pool":
                to_one("agent-pools", environment.default_pool_id.as_deref()),
            "tags": to_many("tags", tags),
        },
    })
}

//! Agent pools.

use std::ops::RangeInclusive;
use std::slice;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{the_account, webhook};
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_many, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::agent_pool::{self, AgentPool, Filter};
use crate::store::webhook::Webhook;
use crate::store::{Connection, agent, environment, is_taken, run, task, workspace};
use crate::token::new_id;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/agent-pools", "List agent pools", list)
        .post("/agent-pools", "Create an agent pool", create)
        .get("/agent-pools/{id}", "Read an agent pool", read)
        .patch("/agent-pools/{id}", "Change an agent pool", update)
        .delete("/agent-pools/{id}", "Delete an agent pool", delete)
}

/// How many runs a pool can be limited to at once.
pub(super) const MAX_CONCURRENCY: RangeInclusive<i64> = 1..=10_000;

/// The pool with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<AgentPool, ApiError> {
    agent_pool::find(db, id).await?.ok_or_else(|| ApiError::not_found("AgentPool", id))
}

/// Checks that the pool in the relationship `name` is there and that an
/// environment may use it.
pub(super) async fn usable_pool(
    db: &mut Connection,
    name: &str,
    pool_id: &str,
    environment_id: &str,
) -> Result<(), ApiError> {
    let pool = agent_pool::find(db, pool_id)
        .await?
        .ok_or_else(|| ApiError::no_related(name, "AgentPool", pool_id))?;
    match agent_pool::is_usable_by(db, &pool, environment_id).await? {
        true => Ok(()),
        false => Err(ApiError::relationship(
            name,
            format!("The agent pool '{}' is not shared with this environment.", pool.name),
        )),
    }
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("agent-pool"),
        name: query.filter("name"),
        environment: query.filter("environment"),
        account: query.filter("account"),
        is_shared: query.filter("is-shared"),
        in_use: query.filter("in-use"),
        vcs_enabled: query.filter("vcs-enabled"),
    };
    let listed = agent_pool::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&app, &mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let pool = find(&mut db, &id).await?;
    Ok(Document::of(render(&app, &mut db, &pool).await?))
}

/// Creates a pool.
pub(crate) async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut pool = AgentPool {
        id: new_id("apool"),
        account_id: the_account(&mut tx).await?.id,
        name: payload.required("name")?,
        is_default: false,
        // Unless somebody says who may use it, everybody may.
        is_shared: environments(&payload)?.is_none_or(|(_, named)| named.is_empty()),
        image: None,
        max_concurrency: None,
        webhook_enabled: false,
        webhook: Webhook::default(),
        created_at: app.scheduler.clock.now(),
    };
    agent_pool::insert(&mut tx, &pool).await.map_err(name_taken)?;
    change(&mut tx, &mut pool, &payload).await?;
    let resource = render(&app, &mut tx, &pool).await?;
    tx.commit().await?;
    Ok(Document::created(resource))
}

/// Changes a pool.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut pool = find(&mut tx, &id).await?;
    change(&mut tx, &mut pool, &payload).await?;
    let resource = render(&app, &mut tx, &pool).await?;
    tx.commit().await?;
    Ok(Document::of(resource))
}

/// Deletes a pool that nothing uses.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    let workspaces = workspace::of_pool(&mut tx, &id).await?;
    if !workspaces.is_empty() {
        let names: Vec<_> = workspaces.into_iter().map(|workspace| workspace.name).collect();
        return Err(ApiError::conflict(format!(
            "Workspaces are linked to the agent pool: {}. Unlink them first.",
            names.join(", ")
        )));
    }
    if !environment::with_default_pool(&mut tx, &id).await?.is_empty() {
        return Err(ApiError::conflict("The agent pool is the default of an environment."));
    }
    if let Some(run) = run::in_pool(&mut tx, &id).await? {
        return Err(ApiError::conflict(format!(
            "The run {run} is under way in the agent pool, or waits there for approval. \
             Let it end, or cancel or discard it first."
        )));
    }
    agent_pool::delete(&mut tx, &id).await?;
    tx.commit().await?;
    // Its agents' polls end: their token is gone.
    app.scheduler.wake.pool(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a pool that is in the database.
async fn change(
    db: &mut Connection,
    pool: &mut AgentPool,
    payload: &Payload,
) -> Result<(), ApiError> {
    payload.unchanged("account", Some(&pool.account_id))?;
    if let Some(name) = payload.name("name")? {
        pool.name = name;
    }
    if let Some(image) = payload.image()? {
        pool.image = image;
    }
    if let Some(most) = payload.change("max-concurrency")? {
        pool.max_concurrency = most;
    }
    webhook::change(pool, payload)?;
    if let Some(is_default) = payload.attribute("default")? {
        if is_default && !pool.is_default {
            agent_pool::clear_default(db, &pool.account_id).await?;
        }
        pool.is_default = is_default;
    }
    if let Some((name, environments)) = environments(payload)? {
        for id in &environments {
            if environment::find(db, id).await?.is_none() {
                return Err(match name {
                    OLDER => ApiError::no_related(name, "Environment", id),
                    name => ApiError::no_related_many(name, id),
                });
            }
        }
        agent_pool::set_environments(db, &pool.id, &environments).await?;
        if !environments.is_empty() {
            pool.is_shared = false;
        }
    }
    if let Some(is_shared) = payload.attribute("is-shared")? {
        pool.is_shared = is_shared;
    }
    agent_pool::update(db, pool).await.map_err(name_taken)?;
    if let Some(workspaces) = payload.to_many("workspaces")? {
        link_workspaces(db, pool, &workspaces).await?;
    }
    check_users(db, pool).await
}

/// The name that `environments` has with clients from when a pool had one.
const OLDER: &str = "environment";

/// The environments that are to use a pool, and the relationship that says so; none: they stay
/// as they are.
fn environments(payload: &Payload) -> Result<Option<(&'static str, Vec<String>)>, ApiError> {
    let named = payload.to_many("environments")?;
    match (payload.to_one(OLDER)?.flatten(), named) {
        (None, named) => Ok(named.map(|named| ("environments", named))),
        (Some(one), None) => Ok(Some((OLDER, vec![one]))),
        (Some(one), Some(named)) if named == [one.as_str()] => Ok(Some((OLDER, named))),
        (Some(_), Some(_)) => Err(ApiError::relationship(
            OLDER,
            "This is the older name of environments, which says something else: write only one \
             of them.",
        )),
    }
}

/// Makes `ids` the workspaces that are linked to the pool.
async fn link_workspaces(
    db: &mut Connection,
    pool: &AgentPool,
    ids: &[String],
) -> Result<(), ApiError> {
    for mut workspace in workspace::of_pool(db, &pool.id).await? {
        if !ids.contains(&workspace.id) {
            workspace.pool_id = None;
            workspace::update(db, &workspace).await?;
        }
    }
    for id in ids {
        let mut workspace = workspace::find(db, id)
            .await?
            .ok_or_else(|| ApiError::no_related_many("workspaces", id))?;
        workspace.pool_id = Some(pool.id.clone());
        workspace::update(db, &workspace).await?;
    }
    Ok(())
}

/// Checks that everybody who uses a pool may use it.
async fn check_users(db: &mut Connection, pool: &AgentPool) -> Result<(), ApiError> {
    for workspace in workspace::of_pool(db, &pool.id).await? {
        if !agent_pool::is_usable_by(db, pool, &workspace.environment_id).await? {
            return Err(ApiError::relationship(
                "environments",
                format!(
                    "The workspace '{}' is linked to the agent pool, and its environment could \
                     not use the pool any more.",
                    workspace.name
                ),
            ));
        }
    }
    let ids = environment::with_default_pool(db, &pool.id).await?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for environment in environment::with_ids(db, &ids).await? {
        if !agent_pool::is_usable_by(db, pool, &environment.id).await? {
            return Err(ApiError::relationship(
                "environments",
                format!("The agent pool is the default of the environment '{}'.", environment.name),
            ));
        }
    }
    Ok(())
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "An agent pool with this name exists already."),
        false => error.into(),
    }
}

/// The pools with these ids.
pub(super) async fn load(
    app: &App,
    db: &mut Connection,
    ids: &[&str],
) -> Result<Vec<Value>, ApiError> {
    let pools = agent_pool::with_ids(db, ids).await?;
    render_all(app, db, &pools).await
}

async fn render(app: &App, db: &mut Connection, pool: &AgentPool) -> Result<Value, ApiError> {
    Ok(render_all(app, db, slice::from_ref(pool)).await?.remove(0))
}

async fn render_all(
    app: &App,
    db: &mut Connection,
    pools: &[AgentPool],
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = pools.iter().map(|pool| pool.id.as_str()).collect();
    let workspaces = workspace::ids_of_pools(db, &ids).await?;
    let default_of = environment::with_default_pools(db, &ids).await?;
    let environments = agent_pool::environments_of(db, &ids).await?;
    let agents = agent::of_pools(db, &ids).await?;
    let waiting = task::waiting(db, &ids).await?;
    let now = app.scheduler.clock.now();
    let render = |pool: &AgentPool| {
        let related = |pairs: &[(String, String)]| -> Vec<String> {
            let of_pool = pairs.iter().filter(|(id, _)| *id == pool.id);
            of_pool.map(|(_, related)| related.clone()).collect()
        };
        let (workspaces, default_of) = (related(&workspaces), related(&default_of));
        let environments = related(&environments);
        let only = match environments.as_slice() {
            [only] if !pool.is_shared => Some(only.as_str()),
            _ => None,
        };
        let agents: Vec<_> = agents.iter().filter(|agent| agent.pool_id == pool.id).collect();
        let free_slots: i64 = agents.iter().map(|agent| app.scheduler.usable_slots(agent)).sum();
        let queue = waiting.iter().find(|(id, ..)| *id == pool.id);
        let (queue_depth, oldest) = queue.map_or((0, None), |(_, depth, since)| (*depth, *since));
        let mut resource = json!({
            "type": "agent-pools",
            "id": pool.id,
            "attributes": {
                "name": pool.name,
                "default": pool.is_default,
                "is-shared": pool.is_shared,
                "is-scalr-managed": false,
                "in-use": !workspaces.is_empty() || !default_of.is_empty(),
                "vcs-enabled": false,
                "image": pool.image,
                "max-concurrency": pool.max_concurrency,
                // For those who start and stop agents by demand.
                "queue-depth": queue_depth,
                "oldest-wait-seconds": oldest.map(|since| (now - since).max(0) / 1000),
                "free-slots": free_slots,
                "created-at": rfc3339(pool.created_at),
            },
            "relationships": {
                "account": to_one("accounts", Some(&pool.account_id)),
                "environment": to_one("environments", only),
                "environments": to_many("environments", &environments),
                "default-environments": to_many("environments", &default_of),
                "workspaces": to_many("workspaces", &workspaces),
                "agents": to_many("agents", agents.into_iter().map(|agent| &agent.id)),
            },
        });
        webhook::render(pool, &mut resource["attributes"]);
        resource
    };
    Ok(pools.iter().map(render).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_pool_of_one_environment_is_written_and_read_under_the_older_name_too() {
        let server = InProcess::new().await;
        let one = server.create("/environments", json!({ "name": "one" }), &[]).await;
        let two = server.create("/environments", json!({ "name": "two" }), &[]).await;
        let name = json!({ "name": "older" });
        let pool = server.create("/agent-pools", name, &[("environment", &one)]).await;
        let path = format!("/agent-pools/{pool}");
        let read = async || {
            let pool = server.api(Method::GET, &path, Value::Null).await["data"].take();
            let environments = pool["relationships"]["environments"]["data"].as_array().unwrap();
            let environments: Vec<_> = environments.iter().map(|one| one["id"].clone()).collect();
            let older = pool["relationships"]["environment"]["data"]["id"].clone();
            (pool["attributes"]["is-shared"].clone(), environments, older)
        };
        assert_eq!(read().await, (json!(false), vec![json!(one)], json!(one)));

        let link = |id: &str| json!({ "type": "environments", "id": id });
        let patch = async |relationships: Value| {
            let body = json!({ "data": { "relationships": relationships } }).to_string();
            let path = format!("{}{path}", super::super::BASE);
            let (status, body) = server.call(Method::PATCH, &path, &server.admin, &[], body).await;
            (status, serde_json::from_slice::<Value>(&body).unwrap())
        };
        let both = json!({
            "environment": { "data": link(&one) },
            "environments": { "data": [link(&two)] },
        });
        let missing = json!({ "environment": { "data": link("env-1234") } });
        for (refused, status) in
            [(both, StatusCode::UNPROCESSABLE_ENTITY), (missing, StatusCode::NOT_FOUND)]
        {
            let (found, answer) = patch(refused).await;
            let error = &answer["errors"][0];
            assert_eq!(found, status, "{answer}");
            let pointer = "/data/relationships/environment";
            assert_eq!(error["source"]["pointer"], pointer, "{answer}");
            assert_eq!(read().await.2, json!(one));
        }
        let many = json!({ "environments": { "data": [link(&one), link(&two)] } });
        assert_eq!(patch(many).await.0, StatusCode::OK);
        let (_, environments, older) = read().await;
        assert_eq!((environments.len(), older), (2, Value::Null));
        assert_eq!(patch(json!({ "environment": { "data": null } })).await.0, StatusCode::OK);
        assert_eq!(read().await.1.len(), 2, "null is what the older name has for many");
    }
}

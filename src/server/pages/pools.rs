//! `/pools`: the agent pools, and a new one.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use crate::api::pools::agent_pools;
use crate::api::pools::agents::{self, Status};
use crate::app::App;
use crate::clock::Millis;
use crate::store::agent_pool::{self, AgentPool, Filter};
use crate::store::environment::{self, Environment};
use crate::store::{Connection, agent, task, workspace};

/// Lists are shown whole.
const ALL: crate::store::Page = crate::store::Page { number: 1, size: 10_000 };

pub(super) fn routes() -> Router<App> {
    Router::new().route("/pools", get(list).post(create)).route("/pools/new", get(ask))
}

#[derive(Serialize)]
struct Pools {
    pools: Vec<PoolRow>,
}

#[derive(Default, Serialize)]
struct PoolRow {
    id: String,
    name: String,
    is_default: bool,
    is_shared: bool,
    environments: usize,
    workspaces: usize,
    online: usize,
    errored: usize,
    offline: usize,
    busy: usize,
    slots: i64,
    queued: i64,
    waiting_since: Option<Millis>,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let pools = agent_pool::list(&mut db, Filter::default(), ALL).await?.rows;
    let pools = rows(&app, &mut db, &pools).await?;
    let page = Page {
        template: "pools.html",
        title: "Pools",
        section: "pools",
        topics: &["agent_pools", "agents", "tasks", "workspaces"],
    };
    page.show(&app, &session, &Pools { pools })
}

async fn rows(
    app: &App,
    db: &mut Connection,
    pools: &[AgentPool],
) -> Result<Vec<PoolRow>, PageError> {
    let ids: Vec<&str> = pools.iter().map(|pool| pool.id.as_str()).collect();
    let environments = agent_pool::environments_of(db, &ids).await?;
    let workspaces = workspace::ids_of_pools(db, &ids).await?;
    let waiting = task::waiting(db, &ids).await?;
    let agents = agent::of_pools(db, &ids).await?;
    let agent_ids: Vec<&str> = agents.iter().map(|agent| agent.id.as_str()).collect();
    let tasks = task::of_agents(db, &agent_ids).await?;
    let count =
        |pairs: &[(String, String)], id: &str| pairs.iter().filter(|(pool, _)| pool == id).count();
    Ok(pools
        .iter()
        .map(|pool| {
            let mut row = PoolRow {
                id: pool.id.clone(),
                name: pool.name.clone(),
                is_default: pool.is_default,
                is_shared: pool.is_shared,
                environments: count(&environments, &pool.id),
                workspaces: count(&workspaces, &pool.id),
                ..PoolRow::default()
            };
            if let Some((_, queued, since)) = waiting.iter().find(|(id, ..)| *id == pool.id) {
                (row.queued, row.waiting_since) = (*queued, *since);
            }
            for agent in agents.iter().filter(|agent| agent.pool_id == pool.id) {
                match agents::status(app, agent, &tasks) {
                    Status::Offline => row.offline += 1,
                    Status::Errored => row.errored += 1,
                    Status::Idle | Status::Busy => {
                        row.online += 1;
                        row.slots += agent.concurrency;
                        let has = |task: &&task::Task| {
                            task.agent_id.as_ref() == Some(&agent.id) && task.state.is_with_agent()
                        };
                        row.busy += tasks.iter().filter(has).count();
                    }
                }
            }
            row
        })
        .collect())
}

/// What the form for a pool shows.
#[derive(Default, Serialize)]
struct PoolForm {
    name: String,
    image: String,
    is_default: bool,
    is_shared: bool,
    environments: Vec<EnvironmentChoice>,
    refusal: Refusal,
}

#[derive(Serialize)]
struct EnvironmentChoice {
    id: String,
    name: String,
    is_chosen: bool,
}

impl PoolForm {
    /// As somebody filled it in.
    fn of(fields: &Fields, environments: Vec<Environment>, refusal: Refusal) -> Self {
        let chosen: Vec<&str> = fields.all("environment").collect();
        let environments = environments.into_iter().map(|environment| EnvironmentChoice {
            is_chosen: chosen.contains(&environment.id.as_str()),
            id: environment.id,
            name: environment.name,
        });
        Self {
            name: fields.get("name").to_owned(),
            image: fields.get("image").to_owned(),
            is_default: fields.has("default"),
            is_shared: fields.get("sharing") != "named",
            environments: environments.collect(),
            refusal,
        }
    }
}

const NEW: Page<'_> =
    Page { template: "pool-form.html", title: "New pool", section: "pools", topics: &[] };

async fn ask(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let environments = environments(&app).await?;
    let form = PoolForm::of(&Fields::default(), environments, Refusal::default());
    NEW.show(&app, &session, &form)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let is_shared = fields.get("sharing") != "named";
    let named: Vec<_> =
        fields.all("environment").map(|id| json!({ "type": "environments", "id": id })).collect();
    let refusal = if !is_shared && named.is_empty() {
        let text = "Choose at least one environment, or share the pool with all.".to_owned();
        Refusal { fields: [("environments".to_owned(), text)].into(), ..Refusal::default() }
    } else {
        let attributes = json!({
            "name": fields.get("name"),
            "image": fields.get("image"),
            "default": fields.has("default"),
            "is-shared": is_shared,
        });
        let named = if is_shared { Vec::new() } else { named };
        let payload = payload(attributes, json!({ "environments": { "data": named } }));
        match agent_pools::create(State(App::clone(&app)), payload).await {
            Ok(made) => {
                let id = made.resource()["id"].as_str().unwrap_or_default();
                let text = format!("Created the pool {}.", fields.get("name"));
                return Ok(frame::redirect(&format!("/pools/{id}"), session::message(&text, &app)));
            }
            Err(error) => Refusal::of(error)?,
        }
    };
    let form = PoolForm::of(&fields, environments(&app).await?, refusal);
    NEW.show_with(StatusCode::UNPROCESSABLE_ENTITY, &app, &session, &form)
}

async fn environments(app: &App) -> Result<Vec<Environment>, PageError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(environment::list(&mut db, environment::Filter::default(), ALL).await?.rows)
}

//! `/pools`: the agent pools.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::error::PageError;
use super::frame::Page;
use super::session::Session;
use crate::api::pools::agents::{self, Status};
use crate::app::App;
use crate::clock::Millis;
use crate::store::agent_pool::{self, AgentPool, Filter};
use crate::store::pool_sample::Load;
use crate::store::{Connection, agent, task, workspace};

/// Lists are shown whole.
pub(super) const ALL: crate::store::Page = crate::store::Page { number: 1, size: 10_000 };

pub(super) fn routes() -> Router<App> {
    Router::new().route("/pools", get(list))
}

#[derive(Serialize)]
struct Pools {
    pools: Vec<PoolRow>,
}

/// A pool, as lists show it.
#[derive(Default, Serialize)]
pub(super) struct PoolRow {
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

/// The load of each pool now, by its id.
pub(crate) async fn loads(app: &App, db: &mut Connection) -> anyhow::Result<Vec<(String, Load)>> {
    let pools = agent_pool::list(db, Filter::default(), ALL).await?.rows;
    let load = |row: PoolRow| {
        let busy = i64::try_from(row.busy).unwrap_or(i64::MAX);
        (row.id, Load { queued: row.queued, busy, slots: row.slots })
    };
    Ok(rows(app, db, &pools).await?.into_iter().map(load).collect())
}

pub(super) async fn rows(
    app: &App,
    db: &mut Connection,
    pools: &[AgentPool],
) -> sqlx::Result<Vec<PoolRow>> {
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

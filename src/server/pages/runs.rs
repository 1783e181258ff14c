//! `/runs`: the runs of all workspaces.

use std::collections::HashMap;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::Query;
use super::error::PageError;
use super::frame::Page;
use super::list::{self, Pages, given};
use super::run_status::{ALL, Shown};
use super::session::Session;
use crate::app::App;
use crate::clock::Millis;
use crate::store::run::{self, Run, Search};
use crate::store::task::{self, Phase};
use crate::store::{Connection, agent_pool, workspace};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/runs", get(show))
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    workspace: String,
    status: String,
    pool: String,
    page: Option<i64>,
}

/// A row in a list of runs.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub id: String,
    title: String,
    status: Shown,
    pub workspace_id: String,
    workspace: String,
    pool: Option<String>,
    is_destroy: bool,
    created_at: Millis,
    milliseconds: Millis,
    /// How many runs of its workspace go first; none if it does not wait for any.
    pub position: Option<usize>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let page = list::page(asked.page)?;
    if let Some(status) = given(&asked.status)
        && ALL.iter().all(|known| known.name() != status)
    {
        return Err(PageError::Address(format!("no run has the status {status}")));
    }
    let pools = agent_pool::names(&mut db).await?;
    if given(&asked.pool).is_some_and(|pool| pools.iter().all(|(id, _)| id != pool)) {
        return Err(PageError::NotFound("pool"));
    }
    let search = Search {
        workspace_id: None,
        status: given(&asked.status),
        workspace: given(&asked.workspace),
        pool_id: given(&asked.pool),
    };
    let listed = run::search(&mut db, search, page).await?;
    let rows = rows(&mut db, &listed.rows, app.scheduler.clock.now()).await?;
    let query =
        [("workspace", asked.workspace.as_str()), ("status", &asked.status), ("pool", &asked.pool)];
    let is_any = query.iter().any(|(_, value)| !value.is_empty());
    let content = json!({
        "runs": rows,
        "show_workspace": true,
        "pages": Pages::of("/runs", &query, page, listed.total)?,
        "statuses": ALL.map(Shown::of),
        "pools": pools.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect::<Vec<_>>(),
        "filter": {
            "workspace": asked.workspace,
            "status": asked.status,
            "pool": asked.pool,
            "is_any": is_any,
        },
    });
    let page = Page { template: "runs.html", title: "Runs", section: "runs", topics: &["runs"] };
    page.show(&app, &session, &content)
}

/// The rows of these runs, whatever their number with as many statements.
pub(super) async fn rows(
    db: &mut Connection,
    runs: &[Run],
    now: Millis,
) -> Result<Vec<Row>, PageError> {
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let of: Vec<&str> = runs.iter().map(|run| run.workspace_id.as_str()).collect();
    let tasks = task::of_runs(db, &ids).await?;
    let workspaces: HashMap<_, _> = workspace::names_of(db, &of).await?.into_iter().collect();
    let pools: HashMap<_, _> = agent_pool::names(db).await?.into_iter().collect();
    let row = |run: &Run| {
        let plan = tasks.iter().find(|task| task.run_id == run.id && task.phase == Phase::Plan);
        let pool = plan.and_then(|plan| pools.get(plan.pool_id.as_ref()?));
        let end = if run.has_ended() { run.updated_at } else { now };
        Row {
            id: run.id.clone(),
            title: run.message.clone().unwrap_or_else(|| run.id.clone()),
            status: Shown::of(run.status),
            workspace_id: run.workspace_id.clone(),
            workspace: workspaces.get(&run.workspace_id).cloned().unwrap_or_default(),
            pool: pool.cloned(),
            is_destroy: run.is_destroy,
            created_at: run.created_at,
            milliseconds: end - run.created_at,
            position: None,
        }
    };
    Ok(runs.iter().map(row).collect())
}

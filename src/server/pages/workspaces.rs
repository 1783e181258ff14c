//! `/workspaces`: all workspaces, by their environments.

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
use super::runs::{self, Row};
use super::session::Session;
use crate::app::App;
use crate::store::{agent_pool, environment, run, workspace};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/workspaces", get(show))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    q: String,
    environment: String,
    page: Option<i64>,
}

#[derive(Serialize)]
struct Group {
    environment: String,
    workspaces: Vec<WorkspaceRow>,
}

#[derive(Serialize)]
struct WorkspaceRow {
    id: String,
    name: String,
    is_locked: bool,
    pool: String,
    run: Option<Row>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let page = list::page(asked.page)?;
    let (environment_id, name) = (given(&asked.environment), given(&asked.q));
    let environments = environment::names(&mut db).await?;
    if environment_id.is_some_and(|of| environments.iter().all(|(id, _)| id != of)) {
        return Err(PageError::NotFound("environment"));
    }
    let listed = workspace::search(&mut db, environment_id, name, page).await?;
    let ids: Vec<&str> = listed.rows.iter().map(|workspace| workspace.id.as_str()).collect();
    let latest = run::latest_of(&mut db, &ids).await?;
    let latest: Vec<&str> = latest.iter().map(|(_, run)| run.as_str()).collect();
    let latest = run::with_ids(&mut db, &latest).await?;
    let latest = runs::rows(&mut db, &latest, app.scheduler.clock.now()).await?;
    let mut latest: HashMap<_, _> =
        latest.into_iter().map(|row| (row.workspace_id.clone(), row)).collect();
    let pools: HashMap<_, _> = agent_pool::names(&mut db).await?.into_iter().collect();
    let names: HashMap<_, _> = environments.iter().cloned().collect();
    let mut groups: Vec<Group> = Vec::new();
    for workspace in listed.rows {
        let environment = names.get(&workspace.environment_id).cloned().unwrap_or_default();
        if groups.last().is_none_or(|group| group.environment != environment) {
            groups.push(Group { environment, workspaces: Vec::new() });
        }
        let pool = workspace.pool_id.as_ref().and_then(|id| pools.get(id)).cloned();
        let row = WorkspaceRow {
            run: latest.remove(&workspace.id),
            id: workspace.id,
            name: workspace.name,
            is_locked: workspace.lock_reason.is_some(),
            pool: pool.unwrap_or_else(|| "default".to_owned()),
        };
        groups.last_mut().expect("one was just made").workspaces.push(row);
    }
    let query = [("q", asked.q.as_str()), ("environment", &asked.environment)];
    let environments = environments.iter().map(|(id, name)| json!({ "id": id, "name": name }));
    let content = json!({
        "groups": groups,
        "pages": Pages::of("/workspaces", &query, page, listed.total)?,
        "environments": environments.collect::<Vec<_>>(),
        "filter": {
            "q": asked.q,
            "environment": asked.environment,
            "is_any": query.iter().any(|(_, value)| !value.is_empty()),
        },
    });
    let page = Page {
        template: "workspaces.html",
        title: "Workspaces",
        section: "workspaces",
        topics: &["workspaces", "runs"],
    };
    page.show(&app, &session, &content)
}

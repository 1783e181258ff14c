//! `/pools/ID`: a pool with its agents, workspaces and tokens, and its deletion.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::{Path, Query};
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::pool_chart::{self, Chart, Span};
use super::pool_users::PoolUsers;
use super::pools::{ALL, PoolRow};
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use super::{agent, pools, webhooks};
use crate::api::pools::{agent_pools, workspaces};
use crate::app::App;
use crate::clock::Millis;
use crate::store::access_token;
use crate::store::agent_pool::{self, AgentPool};
use crate::store::{Connection, environment, task, workspace};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/pools/{id}", get(show))
        .route("/pools/{id}/delete", get(ask_to_delete).post(delete))
        .route("/pools/{id}/workspaces", post(link))
        .route("/pools/{id}/workspaces/{workspace}/unlink", post(unlink))
}

/// The pool with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<AgentPool, PageError> {
    agent_pool::find(db, id).await?.ok_or(PageError::NotFound("pool"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// How far back its pictures go.
    #[serde(default)]
    span: Span,
}

#[derive(Serialize)]
struct PoolPage {
    pool: PoolRow,
    chart: Chart,
    image: Option<String>,
    max_concurrency: Option<i64>,
    /// None: it has no URL.
    webhook: Option<PoolWebhook>,
    shared_with: Vec<String>,
    default_of: Vec<String>,
    agents: Vec<agent::Row>,
    workspaces: Vec<WorkspaceRow>,
    /// Those that can be linked.
    others: Vec<WorkspaceRow>,
    tokens: Vec<TokenRow>,
    refusal: Refusal,
}

#[derive(Serialize)]
struct PoolWebhook {
    enabled: bool,
    site: String,
    /// Their names.
    headers: Vec<String>,
}

#[derive(Serialize)]
struct WorkspaceRow {
    id: String,
    name: String,
    environment: String,
    is_elsewhere: bool,
}

#[derive(Serialize)]
struct TokenRow {
    id: String,
    name: String,
    created_at: Millis,
    last_used_at: Option<Millis>,
    expires_at: Option<Millis>,
    is_expired: bool,
    for_one_agent: bool,
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    render(&app, &session, &id, asked.span, StatusCode::OK, Refusal::default()).await
}

async fn render(
    app: &App,
    session: &Session,
    id: &str,
    span: Span,
    status: StatusCode,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let pool = find(&mut db, id).await?;
    let row = pools::rows(app, &mut db, std::slice::from_ref(&pool)).await?.remove(0);
    let environments = environment::list(&mut db, environment::Filter::default(), ALL).await?.rows;
    let name_of = |id: &str| {
        let found = environments.iter().find(|environment| environment.id == id);
        found.map_or_else(|| id.to_owned(), |environment| environment.name.clone())
    };
    let shared_with = agent_pool::environments(&mut db, id).await?;
    let default_of = environment::with_default_pool(&mut db, id).await?;
    let work = task::work_of_pool(&mut db, id).await?;
    let agents = agent::rows_of_pool(app, &mut db, id, &work).await?;
    let all = workspace::list(&mut db, workspace::Filter::default(), ALL).await?.rows;
    let mut linked = Vec::new();
    let mut others = Vec::new();
    for workspace in all {
        let is_here = workspace.pool_id.as_deref() == Some(id);
        let may_link = agent_pool::is_usable_by(&mut db, &pool, &workspace.environment_id).await?;
        let row = WorkspaceRow {
            environment: name_of(&workspace.environment_id),
            is_elsewhere: workspace.pool_id.is_some(),
            id: workspace.id,
            name: workspace.name,
        };
        if is_here {
            linked.push(row);
        } else if may_link {
            others.push(row);
        }
    }
    let now = app.scheduler.clock.now();
    let chart = pool_chart::read(&mut db, id, span, now).await?;
    let tokens = access_token::list(&mut db, id, ALL).await?.rows.into_iter();
    let tokens = tokens.map(|token| TokenRow {
        is_expired: token.is_expired(now),
        name: token.name.unwrap_or_default(),
        id: token.id,
        created_at: token.created_at,
        last_used_at: token.last_used_at,
        expires_at: token.expires_at,
        for_one_agent: token.for_one_agent,
    });
    let page = Page {
        template: "pool.html",
        title: &pool.name,
        section: "pools",
        topics: &[&format!("pool:{id}"), "workspaces", "environments"],
    };
    let content = PoolPage {
        pool: row,
        chart,
        image: pool.image.clone(),
        max_concurrency: pool.max_concurrency,
        webhook: webhooks::site(&pool.webhook).map(|site| PoolWebhook {
            enabled: pool.webhook_enabled,
            site,
            headers: pool.webhook.headers.iter().map(|header| header.name.clone()).collect(),
        }),
        shared_with: shared_with.iter().map(|id| name_of(id)).collect(),
        default_of: default_of.iter().map(|id| name_of(id)).collect(),
        agents,
        workspaces: linked,
        others,
        tokens: tokens.collect(),
        refusal,
    };
    page.show_with(status, app, session, &content)
}

async fn link(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let workspace = form.fields.get("workspace");
    match set_pool(&app, workspace, Some(&id)).await? {
        None => {
            let text = "Linked the workspace. Its next runs use this pool.";
            Ok(frame::redirect(&format!("/pools/{id}#workspaces"), session::message(text, &app)))
        }
        Some(refusal) => {
            let (session, status) = (&form.session, StatusCode::CONFLICT);
            render(&app, session, &id, Span::default(), status, refusal).await
        }
    }
}

async fn unlink(
    State(app): State<App>,
    Path((id, workspace)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    {
        let mut db = app.scheduler.store.read().await?;
        let linked = workspace::find(&mut db, &workspace).await?;
        let is_here = linked.is_some_and(|linked| linked.pool_id.as_ref() == Some(&id));
        if !is_here {
            return Err(PageError::NotFound("link"));
        }
    }
    match set_pool(&app, &workspace, None).await? {
        None => {
            let text = "Unlinked the workspace.";
            Ok(frame::redirect(&format!("/pools/{id}#workspaces"), session::message(text, &app)))
        }
        Some(refusal) => {
            let (session, status) = (&form.session, StatusCode::CONFLICT);
            render(&app, session, &id, Span::default(), status, refusal).await
        }
    }
}

/// Links a workspace to a pool, or to none; gives why that is not possible.
async fn set_pool(
    app: &App,
    workspace: &str,
    pool: Option<&str>,
) -> Result<Option<Refusal>, PageError> {
    let pool = pool.map(|id| json!({ "type": "agent-pools", "id": id }));
    let related = json!({ "agent-pool": { "data": pool } });
    let changed = async {
        let payload = payload("workspaces", json!({}), related)?;
        workspaces::update(State(App::clone(app)), extract::Path(workspace.to_owned()), payload)
            .await
    };
    match changed.await {
        Ok(_) => Ok(None),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            // The page has one place for it.
            Ok(Some(Refusal { text: Some(refusal.whole()), ..Refusal::default() }))
        }
    }
}

#[derive(Serialize)]
struct Deletion {
    pool: PoolRow,
    agents: Vec<String>,
    tokens: usize,
    users: PoolUsers,
    refusal: Refusal,
}

async fn ask_to_delete(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    confirm(&app, &session, &id, StatusCode::OK, Refusal::default()).await
}

async fn confirm(
    app: &App,
    session: &Session,
    id: &str,
    status: StatusCode,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let pool = find(&mut db, id).await?;
    let row = pools::rows(app, &mut db, std::slice::from_ref(&pool)).await?.remove(0);
    let agents = crate::store::agent::of_pools(&mut db, &[id]).await?;
    let content = Deletion {
        pool: row,
        agents: agents.into_iter().map(|agent| agent.name).collect(),
        tokens: access_token::list(&mut db, id, ALL).await?.rows.len(),
        users: PoolUsers::outside(&mut db, id, &[]).await?,
        refusal,
    };
    let title = format!("Delete {}", pool.name);
    let page = Page { template: "pool-delete.html", title: &title, section: "pools", topics: &[] };
    page.show_with(status, app, session, &content)
}

async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    match agent_pools::delete(State(App::clone(&app)), extract::Path(id.clone())).await {
        Ok(_) => Ok(frame::redirect("/pools", session::message("Deleted the pool.", &app))),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            confirm(&app, &form.session, &id, StatusCode::CONFLICT, refusal).await
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;
    use crate::samples;

    #[tokio::test]
    async fn a_pool_has_pictures_of_its_queue_and_slots_with_the_numbers_in_a_table() {
        let server = InProcess::with_clock(Clock::standing()).await;
        server.working().await;
        server.run().await;
        let pools = server.api(Method::GET, "/agent-pools", Value::Null).await;
        let path = format!("/pools/{}", pools["data"][0]["id"].as_str().unwrap());
        let browser = Browser::new(&server).await;
        assert!(browser.page(&path).await.contains("There is none of this time yet"));
        samples::sample(&server.app).await.unwrap();
        for span in ["hour", "day", "week"] {
            let page = browser.page(&format!("{path}?span={span}")).await;
            assert!(page.contains(" UTC: 1 queued, 1 of 5 slots busy</title>"), "{page}");
            assert!(page.contains("<td data-label=\"Slots\" class=\"number\">5</td>"), "{page}");
            assert!(page.contains(&format!("in the last {span}")), "{page}");
        }
        let (status, _) = browser.get(&format!("{path}?span=year")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}

//! `/hooks`: the hooks of the account, and the environments that they are linked to.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::Query;
use super::error::PageError;
use super::frame::Page;
use super::list::{self, Pages};
use super::session::Session;
use crate::app::App;
use crate::store::account_hook::{self, AccountHook};
use crate::store::hook_link;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/hooks", get(show))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    page: Option<i64>,
}

/// A hook in the list.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    description: Option<String>,
    interpreter: String,
    /// The names of the environments that it is linked to.
    environments: Vec<String>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let page = list::page(asked.page)?;
    let listed = account_hook::list(&mut db, account_hook::Filter::default(), page).await?;
    let ids: Vec<&str> = listed.rows.iter().map(|hook| hook.id.as_str()).collect();
    let links = hook_link::of_hooks(&mut db, &ids).await?;
    let row = |hook: &AccountHook| Row {
        id: hook.id.clone(),
        name: hook.name.clone(),
        description: hook.description.clone(),
        interpreter: hook.interpreter.clone(),
        environments: links
            .iter()
            .filter(|link| link.hook_id == hook.id)
            .map(|link| link.environment.clone())
            .collect(),
    };
    let rows: Vec<Row> = listed.rows.iter().map(row).collect();
    let content = json!({ "hooks": rows, "pages": Pages::of("/hooks", &[], page, listed.total)? });
    let page = Page {
        template: "hooks.html",
        title: "Hooks",
        section: "account",
        topics: &["hooks", "hook_environment_links", "environments"],
    };
    page.show(&app, &session, &content)
}

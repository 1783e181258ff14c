//! `/workspaces/ID/states`: the states that a workspace has had, and what differs between two.

use std::io::BufReader;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PageError;
use super::frame::Page;
use super::list::{self, Pages};
use super::session::Session;
use super::state_diff::{self, Content, Diff};
use super::workspace;
use crate::app::App;
use crate::clock::Millis;
use crate::objects;
use crate::store::Connection;
use crate::store::state_version::{self, StateVersion};

/// The largest state that is compared, in bytes: it is read whole.
const MAX_COMPARED: i64 = 16 * 1024 * 1024;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{id}/states", get(show))
        .route("/workspaces/{id}/states/{state}/download", get(download))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    page: Option<i64>,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct Row {
    id: String,
    number: i64,
    serial: i64,
    resources: i64,
    kib: i64,
    run_id: Option<String>,
    created_at: Millis,
    is_removed: bool,
    /// The version before it on the page.
    previous: Option<String>,
}

#[derive(Serialize)]
struct Comparison {
    before: i64,
    after: i64,
    diff: Diff,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let top = workspace::top(&app, &mut db, &id).await?;
    let page = list::page(asked.page);
    let listed = state_version::list(&mut db, Some(&id), page).await?;
    let mut compared = None;
    if !asked.before.is_empty() && !asked.after.is_empty() {
        let before = find(&mut db, &id, &asked.before).await?;
        let after = find(&mut db, &id, &asked.after).await?;
        compared = Some((before, after));
    }
    drop(db);
    let comparison = match compared {
        Some((before, after)) => Some(compare(&app, before, after).await?),
        None => None,
    };
    let previous = listed.rows.iter().skip(1).map(|version| Some(version.id.clone()));
    let rows = listed.rows.iter().zip(previous.chain([None])).map(|(version, previous)| Row {
        id: version.id.clone(),
        number: version.number,
        serial: version.serial,
        resources: version.resources,
        kib: (version.size + 1023) / 1024,
        run_id: version.run_id.clone(),
        created_at: version.created_at,
        is_removed: version.removed_at.is_some(),
        previous,
    });
    let content = json!({
        "tab": "states",
        "workspace": top,
        "states": rows.collect::<Vec<_>>(),
        "comparison": comparison,
        "before": asked.before,
        "after": asked.after,
        "pages": Pages::of(&format!("/workspaces/{id}/states"), &[], page, listed.total),
    });
    let title = format!("States · {}", top.name);
    let page = Page {
        template: "states.html",
        title: &title,
        section: "workspaces",
        topics: &[&format!("workspace:{id}")],
    };
    page.show(&app, &session, &content)
}

async fn download(
    State(app): State<App>,
    _session: Session,
    Path((id, state)): Path<(String, String)>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, &id, &state).await?;
    drop(db);
    let name =
        format!("attachment; filename=\"{}-{}.tfstate\"", version.workspace_id, version.serial);
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, objects::answer(content(&app, &version)?)?).into_response())
}

/// The state version of a workspace that is still there.
async fn find(
    db: &mut Connection,
    workspace_id: &str,
    id: &str,
) -> Result<StateVersion, PageError> {
    let version = state_version::find(db, id).await?;
    let version = version.filter(|version| version.workspace_id == workspace_id);
    let version = version.ok_or(PageError::NotFound("state"))?;
    match version.removed_at {
        None => Ok(version),
        Some(_) => Err(PageError::Refused(format!(
            "The content of state {} is gone: the server's retention removed it.",
            version.number
        ))),
    }
}

fn content(app: &App, version: &StateVersion) -> Result<std::fs::File, PageError> {
    let key = objects::state(&version.workspace_id, &version.id);
    let content = app.scheduler.objects.get(&key)?;
    Ok(content.with_context(|| format!("the content of {} is gone", version.id))?)
}

async fn compare(
    app: &App,
    before: StateVersion,
    after: StateVersion,
) -> Result<Comparison, PageError> {
    if let Some(large) = [&before, &after].iter().find(|version| version.size > MAX_COMPARED) {
        return Err(PageError::Refused(format!(
            "State {} is larger than {} MiB, too large to compare here. Download both and compare \
             them.",
            large.number,
            MAX_COMPARED / (1024 * 1024)
        )));
    }
    let files = [content(app, &before)?, content(app, &after)?];
    let diff = tokio::task::spawn_blocking(move || {
        let [before, after] =
            files.map(|file| serde_json::from_reader::<_, Content>(BufReader::new(file)));
        anyhow::Ok(state_diff::diff(&before?, &after?))
    });
    let diff = diff.await.map_err(anyhow::Error::from)?;
    // A state is kept whatever is in it: better a strange one than none.
    let diff = diff.map_err(|error| {
        PageError::Refused(format!("The states cannot be compared: {error}. Download both."))
    })?;
    Ok(Comparison { before: before.number, after: after.number, diff })
}

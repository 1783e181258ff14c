//! `/workspaces/ID/states`: the states that a workspace has had, what differs between two, and
//! the way back to one of them.

use std::io::{BufReader, Seek as _};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::{Path, Query};
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::list::{self, Pages};
use super::refusal::Refusal;
use super::session::{self, Session};
use super::state_diff::{self, Content, Diff};
use super::{weight, workspace};
use crate::api::json_api::ApiError;
use crate::api::terraform::state_rollback::make_current;
use crate::app::App;
use crate::clock::Millis;
use crate::objects;
use crate::state_warnings;
use crate::store::Connection;
use crate::store::state_version::{self, StateVersion};

/// The largest state that is compared, in bytes: it is read whole.
const MAX_COMPARED: i64 = 16 * 1024 * 1024;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{id}/states", get(show))
        .route("/workspaces/{id}/states/{state}/download", get(download))
        .route("/workspaces/{id}/states/{state}/rollback", get(ask_to_roll_back).post(roll_back))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    is_current: bool,
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
    let page = list::page(asked.page)?;
    let listed = state_version::list(&mut db, Some(&id), page).await?;
    let current = state_version::current(&mut db, &id).await?.map(|version| version.id);
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
        is_current: current.as_ref() == Some(&version.id),
        previous,
    });
    let content = json!({
        "tab": "states",
        "workspace": top,
        "states": rows.collect::<Vec<_>>(),
        "comparison": comparison,
        "before": asked.before,
        "after": asked.after,
        "pages": Pages::of(&format!("/workspaces/{id}/states"), &[], page, listed.total)?,
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

#[derive(Serialize)]
struct Rollback {
    workspace: workspace::Top,
    id: String,
    number: i64,
    resources: i64,
    created_at: Millis,
    current: Option<StateNow>,
    consequence: &'static str,
    refusal: Refusal,
}

/// The current state that a roll-back replaces.
#[derive(Serialize)]
struct StateNow {
    id: String,
    number: i64,
    resources: i64,
}

async fn ask_to_roll_back(
    State(app): State<App>,
    Path((id, state)): Path<(String, String)>,
    session: Session,
) -> Result<Response, PageError> {
    confirm(&app, &session, &id, &state, Refusal::default()).await
}

async fn confirm(
    app: &App,
    session: &Session,
    id: &str,
    state: &str,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, id, state).await?;
    let current = state_version::current(&mut db, id).await?;
    let status = if refusal.text.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    let content = Rollback {
        workspace: workspace::top(app, &mut db, id).await?,
        id: version.id,
        number: version.number,
        resources: version.resources,
        created_at: version.created_at,
        current: current.map(|current| StateNow {
            id: current.id,
            number: current.number,
            resources: current.resources,
        }),
        consequence: state_warnings::ROLLBACK,
        refusal,
    };
    let title = format!("Roll {} back", content.workspace.name);
    let page =
        Page { template: "state-rollback.html", title: &title, section: "workspaces", topics: &[] };
    page.show_with(status, app, session, &content)
}

async fn roll_back(
    State(app): State<App>,
    Path((id, state)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let number = find(&mut db, &id, &state).await?.number;
    let workspace = workspace::find(&mut db, &id).await?;
    drop(db);
    // Whoever holds the lock may be working on the state.
    let made = match &workspace.lock_reason {
        Some(reason) => Err(ApiError::conflict(format!("The workspace is locked. {reason}"))),
        None => make_current(&app, &workspace, &state).await,
    };
    match made {
        Ok(version) => {
            let message = format!("State {} has the content of state {number}.", version.number);
            let message = session::message(&message, &app);
            Ok(frame::redirect(&format!("/workspaces/{id}/states"), message))
        }
        Err(error) => {
            let refusal = Refusal::of(error)?;
            let refusal = Refusal { text: Some(refusal.whole()), ..Refusal::default() };
            confirm(&app, &form.session, &id, &state, refusal).await
        }
    }
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
        let [before, after] = files.map(read);
        anyhow::Ok(state_diff::diff(&before?, &after?))
    });
    let diff = diff.await.map_err(anyhow::Error::from)?;
    // A state is kept whatever is in it: better a strange one than none.
    let diff = diff.map_err(|error| {
        PageError::Refused(format!("The states cannot be compared: {error}. Download both."))
    })?;
    Ok(Comparison { before: before.number, after: after.number, diff })
}

fn read(file: std::fs::File) -> anyhow::Result<Content> {
    anyhow::ensure!(weight::is_light(BufReader::new(&file))?, "their values take too much memory");
    (&file).rewind()?;
    Ok(serde_json::from_reader(BufReader::new(file))?)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn an_earlier_state_becomes_the_current_one_after_a_question_unless_there_is_a_lock() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let workspace = &server.workspace;
        let path = format!("/workspaces/{workspace}/states");
        let mut states = Vec::new();
        for serial in 1..=2 {
            let state = json!({ "version": 4, "serial": serial, "lineage": "l",
                "outputs": { "n": { "value": serial, "type": "number" } }, "resources": [] });
            let state = STANDARD.encode(state.to_string());
            let related = [("workspace", workspace.as_str())];
            states
                .push(server.create("/state-versions", json!({ "state": state }), &related).await);
        }
        let list = browser.page(&path).await;
        let link = |state: &str| format!("{path}/{state}/rollback");
        assert!(list.contains(&link(&states[0])) && !list.contains(&link(&states[1])), "{list}");
        let page = browser.page(&link(&states[0])).await;
        assert!(page.contains("back to state 1?") && page.contains("State 2 with 0"), "{page}");
        assert_eq!(browser.get(&link("sv-none")).await.0, StatusCode::NOT_FOUND);

        let lock = async |reason| {
            let mut tx = server.app.scheduler.store.write().await.unwrap();
            crate::store::workspace::set_lock(&mut tx, workspace, reason, None).await.unwrap();
            tx.commit().await.unwrap();
        };
        lock(Some("<b>mine")).await;
        let (status, page) = browser.post(&link(&states[0]), &[]).await;
        assert_eq!(status, StatusCode::CONFLICT, "{page}");
        assert!(page.contains("The workspace is locked. &lt;b&gt;mine"), "{page}");
        lock(None).await;

        let (status, answer) = browser.post(&link(&states[0]), &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        assert!(browser.page(&path).await.contains("<th scope=\"row\">3</th>"));
        let outputs = format!("/workspaces/{workspace}/outputs");
        let outputs = server.api(axum::http::Method::GET, &outputs, json!(null)).await;
        assert_eq!(outputs["data"][0]["value"], 1, "{outputs}");
    }
}

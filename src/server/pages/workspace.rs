//! `/workspaces/ID`: the runs of a workspace, and what starts one.

use axum::Router;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_http::timeout::RequestBodyDeadlineLayer;

use super::address::{Path, Query};
use super::error::PageError;
use super::form::{Form, check_header};
use super::frame::{self, Page};
use super::list::{self, Pages};
use super::refusal::Refusal;
use super::run_form::RunForm;
use super::runs::{self, Row};
use super::session::{self, Session};
use super::{run_chart, run_form};
use crate::api::json_api::ApiError;
use crate::api::pools::{call, configuration_versions};
use crate::app::App;
use crate::scheduler::pool_of;
use crate::state_warnings;
use crate::store::run::{self, Search};
use crate::store::workspace::{self, Workspace};
use crate::store::{Connection, environment, state_version};
use crate::upload::{self, Upload};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{id}", get(show))
        .route("/workspaces/{id}/unlock", post(unlock))
}

/// What may take longer than a form.
pub(super) fn upload_route() -> Router<App> {
    Router::new()
        .route("/workspaces/{id}/configuration", post(upload))
        .route("/workspaces/{id}/runs", post(run_form::start))
        .layer(RequestBodyDeadlineLayer::new(upload::TIME))
}

/// What all pages of a workspace show.
#[derive(Debug, Serialize)]
pub(super) struct Top {
    pub id: String,
    pub name: String,
    environment: String,
    lock: Option<String>,
    auto_apply: bool,
    pool: Option<String>,
    current: Option<Row>,
    waiting: usize,
    /// None: its state is far from the limit.
    large_state: Option<String>,
    advice: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    page: Option<i64>,
}

/// The workspace with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Workspace, PageError> {
    workspace::find(db, id).await?.ok_or(PageError::NotFound("workspace"))
}

pub(super) async fn top(app: &App, db: &mut Connection, id: &str) -> Result<Top, PageError> {
    let workspace = find(db, id).await?;
    let environment = environment::find(db, &workspace.environment_id).await?;
    let current: Vec<_> = run::current(db, id).await?.into_iter().collect();
    let current = runs::rows(db, &current, app.scheduler.clock.now()).await?.pop();
    let pool = pool_of(db, &workspace).await?;
    let state = state_version::current(db, id).await?;
    Ok(Top {
        large_state: state.and_then(|state| state_warnings::title(app, state.size)),
        advice: state_warnings::ADVICE,
        waiting: run::queues(db, &[id]).await?.len().saturating_sub(current.iter().len()),
        current,
        pool: pool.map(|pool| pool.name),
        environment: environment.map(|environment| environment.name).unwrap_or_default(),
        id: workspace.id,
        name: workspace.name,
        lock: workspace.lock_reason,
        auto_apply: workspace.auto_apply,
    })
}

async fn show(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    page(&app, &session, &id, asked.page, None).await
}

/// `refused` is the form for a new run, if that was refused.
pub(super) async fn page(
    app: &App,
    session: &Session,
    id: &str,
    number: Option<i64>,
    refused: Option<RunForm>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let top = top(app, &mut db, id).await?;
    let page = list::page(number)?;
    let search = Search { workspace_id: Some(id), ..Search::default() };
    let listed = run::search(&mut db, search, page).await?;
    let queue = run::queues(&mut db, &[id]).await?;
    let mut rows = runs::rows(&mut db, &listed.rows, app.scheduler.clock.now()).await?;
    for row in &mut rows {
        // The first one has its turn.
        let place = queue.iter().position(|(_, waiting)| *waiting == row.id);
        row.position = place.filter(|place| *place > 0);
    }
    let chart = run_chart::read(&mut db, id).await?;
    let status = match refused {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let content = json!({
        "is_refused": refused.is_some(),
        "form": refused.unwrap_or_else(|| RunForm::new(top.auto_apply)),
        "tab": "runs",
        "chart": chart,
        "runs": rows,
        "show_workspace": false,
        "pages": Pages::of(&format!("/workspaces/{id}"), &[], page, listed.total)?,
        "workspace": top,
    });
    let page = Page {
        template: "workspace.html",
        title: &top.name,
        section: "workspaces",
        topics: &[&format!("workspace:{id}")],
    };
    page.show_with(status, app, session, &content)
}

async fn unlock(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    call(&app, form.session.actor(), Method::POST, &format!("/workspaces/{id}/actions/unlock"), "")
        .await?;
    let message = session::message("Unlocked: the next run starts.", &app);
    Ok(frame::redirect(&format!("/workspaces/{id}"), message))
}

/// Takes an archive as a new configuration version, which the answer names. The body is the
/// archive; its form's token is in a header.
async fn upload(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
    request: Request,
) -> Result<Response, PageError> {
    check_header(&session, request.headers())?;
    match upload_configuration(&app, &id, request).await {
        Ok(version) => Ok(version.into_response()),
        // The script shows what is in the answer.
        Err(error) => {
            let why = Refusal::of(error)?.whole();
            Ok((StatusCode::UNPROCESSABLE_ENTITY, why).into_response())
        }
    }
}

/// Makes a configuration version of the archive that is a request's body; its id.
pub(super) async fn upload_configuration(
    app: &App,
    workspace_id: &str,
    request: Request,
) -> Result<String, ApiError> {
    let archive = Upload::from_request(request, app).await.unwrap_or_else(|never| match never {});
    configuration_versions::create_of(app, workspace_id, archive).await
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    const EVIL: &str = "<img src=x onerror=alert(1)>";

    #[tokio::test]
    async fn a_state_near_the_limit_is_said_on_the_pages_of_its_workspace() {
        let server = InProcess::new().await;
        let state = r#"{"version":4,"serial":1,"lineage":"l","outputs":{},"resources":[]}"#;
        let state = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state);
        let related = [("workspace", server.workspace.as_str())];
        server.create("/state-versions", json!({ "state": state }), &related).await;
        let browser = Browser::new(&server).await;
        for (mib, is_large) in [(79, false), (80, true)] {
            let mut tx = server.app.scheduler.store.write().await.unwrap();
            sqlx::query("UPDATE state_versions SET size = $1")
                .bind(mib * 1024 * 1024)
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let page = browser.page(&format!("/workspaces/{}", server.workspace)).await;
            let said = "Its state has 80 MiB; the server takes at most 100 MiB";
            assert_eq!(page.contains(said), is_large, "{page}");
            for path in ["/api/iacp/v3", "/api/v2"] {
                let path = format!("{path}/workspaces/{}/current-state-version", server.workspace);
                let (_, answer) = server.call(Method::GET, &path, &server.admin, &[], "").await;
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                let warning = answer["data"]["attributes"]["warning"].as_str();
                assert_eq!(warning.is_some_and(|text| text.contains(said)), is_large, "{answer}");
            }
        }
    }

    #[tokio::test]
    async fn workspaces_are_found_by_name_and_their_names_are_escaped() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let patch = json!({ "data": { "attributes": { "name": EVIL } } });
        server.api(Method::PATCH, &format!("/workspaces/{}", working.workspace), patch).await;
        let browser = Browser::new(&server).await;
        let all = browser.page("/workspaces").await;
        assert!(all.contains("&lt;img src=x") && all.contains(">main<"), "{all}");
        assert!(all.contains("Planning"), "{all}");
        for path in [
            "/workspaces?q=IMG".to_owned(),
            format!("/workspaces/{}", working.workspace),
            "/runs?workspace=img".to_owned(),
        ] {
            let page = browser.page(&path).await;
            assert!(page.contains("&lt;img src=x") && !page.contains("<img"), "{page}");
            assert!(!page.contains(">main<"), "{page}");
        }
        let none = browser.page("/workspaces?q=nothing").await;
        assert!(none.contains("No workspace matches"), "{none}");
        assert_eq!(browser.get("/workspaces/ws-none").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn runs_that_wait_have_their_place_in_the_queue() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}", working.workspace);
        for message in ["second", "third"] {
            let fields = [("message", message)];
            let (status, answer) = browser.post(&format!("{path}/runs"), &fields).await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
            // Runs of the same millisecond have no order that a test could know.
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
        let page = browser.page(&path).await;
        let place = |message: &str| page.find(&format!(">{message}</a>")).unwrap();
        assert!(page[place("second")..].contains("1 in the queue"), "{page}");
        assert!(page[place("third")..place("second")].contains("2 in the queue"), "{page}");
    }

    #[tokio::test]
    async fn inherited_variables_are_shown_with_their_scope_and_which_one_runs_get() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        let account = &environments["data"][0]["relationships"]["account"]["data"]["id"];
        let (account, workspace) = (account.as_str().unwrap(), server.workspace.as_str());
        for (scope, id, key, value, sensitive) in [
            ("account", account, "region", "of-account", false),
            ("environment", environment, "size", "of-environment", false),
            ("account", account, "password", "hunter2", true),
            ("workspace", workspace, "size", "of-workspace", false),
        ] {
            let attributes = json!({
                "key": key, "value": value, "category": "terraform", "sensitive": sensitive,
            });
            server.create("/vars", attributes, &[(scope, id)]).await;
        }
        let page = browser.page(&format!("/workspaces/{workspace}/variables")).await;
        let (_, inherited) = page.split_once("<h2>Inherited</h2>").unwrap();
        let row = |key: &str| {
            let (_, row) = inherited.split_once(&format!("<th scope=\"row\">{key} ")).unwrap();
            row.split_once("</tr>").unwrap().0.to_owned()
        };
        assert!(
            row("region").contains("of-account") && row("region").contains(">account"),
            "{page}"
        );
        assert!(row("region").contains(">yes<"), "{page}");
        assert!(row("size").contains("of-environment"), "{page}");
        assert!(row("size").contains("another scope takes precedence"), "{page}");
        assert!(row("password").contains("sensitive") && !page.contains("hunter2"), "{page}");
        assert!(!inherited.contains("of-workspace"), "{page}");
    }

    #[tokio::test]
    async fn sensitive_values_are_replaced_and_never_shown() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}/variables", server.workspace);
        let fields = [
            ("key", "password"),
            ("value", "hunter2\r\n  second line\r\n"),
            ("category", "terraform"),
            ("sensitive", "on"),
        ];
        let (status, answer) = browser.post(&path, &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let page = browser.page(&path).await;
        assert!(page.contains("password") && !page.contains("hunter2"), "{page}");
        let stored = async || {
            let mut db = server.app.scheduler.store.read().await.unwrap();
            let all = crate::store::variable::reaching(&mut db, &server.workspace).await;
            all.unwrap().pop().unwrap()
        };
        assert_eq!(stored().await.value.0.expose(), "hunter2\n  second line\n");
        let variable = format!("{path}/{}", stored().await.id);
        let kept = [("key", "renamed"), ("value", ""), ("sensitive", "on")];
        assert_eq!(browser.post(&variable, &kept).await.0, StatusCode::SEE_OTHER);
        assert_eq!(stored().await.key, "renamed");
        assert_eq!(stored().await.value.0.expose(), "hunter2\n  second line\n");
        let (status, page) = browser.post(&variable, &[("key", "renamed"), ("value", "")]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("only together with a new value"), "{page}");
        let (status, _) = browser.post(&format!("{variable}/delete"), &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(browser.page(&path).await.contains("No variables"));
    }

    #[tokio::test]
    async fn settings_that_the_api_refuses_change_nothing_and_stay_in_the_form() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}/settings", server.workspace);
        let attributes = async || -> Value {
            let path = format!("/workspaces/{}", server.workspace);
            server.api(Method::GET, &path, Value::Null).await["data"]["attributes"].clone()
        };
        let before = attributes().await;
        let wrong = [("name", "other"), ("terraform-version", "latest"), ("image", "mine:1")];
        let (status, page) = browser.post(&path, &wrong).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("terraform-version-note\"><svg"), "{page}");
        assert!(page.contains("value=\"mine:1\""), "{page}");
        assert_eq!(attributes().await, before);
        let right = [
            ("name", "other"),
            ("terraform-version", "1.9.8"),
            ("plan-timeout-seconds", "600"),
            ("destroy-schedule", "0 20 * * *"),
            ("pre-plan", "make policy\r\nmake more"),
            ("auto-apply", "on"),
        ];
        assert_eq!(browser.post(&path, &right).await.0, StatusCode::SEE_OTHER);
        let after = attributes().await;
        assert_eq!(after["name"], "other");
        assert_eq!(after["plan-timeout-seconds"], 600);
        assert_eq!(after["destroy-schedule"], "0 20 * * *");
        assert_eq!(after["apply-schedule"], Value::Null);
        assert_eq!(after["hooks"]["pre-plan"], "make policy\nmake more");
        assert_eq!(after["auto-apply"], true);
        assert_eq!(after["deletion-protection-enabled"], false);
        let page = browser.page(&path).await;
        assert!(page.contains("value=\"600\"") && page.contains("value=\"0 20 * * *\""), "{page}");
    }
}

//! The form for a new workspace, and the question before one is deleted.

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;

use super::address::{Path, Query};
use super::environments;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::Refusal;
use super::session::{self, Session};
use super::workspace;
use crate::api::pools::call;
use crate::app::App;
use crate::store::{agent_pool, environment, state_version, workspace as store};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/new", get(ask).post(create))
        .route("/workspaces/{id}/delete", get(ask_to_delete).post(delete))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    environment: String,
}

async fn ask(
    State(app): State<App>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut fields = Fields::default();
    fields.add("environment".to_owned(), asked.environment);
    show(&app, &session, &fields, Refusal::default()).await
}

/// `fields` are as somebody filled them in.
async fn show(
    app: &App,
    session: &Session,
    fields: &Fields,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let refusal = refusal.beside(&["name", "environment", "agent-pool"]);
    let mut db = app.scheduler.store.read().await?;
    let content = json!({
        "name": fields.get("name"),
        "environment": fields.get("environment"),
        "environments": environments::choices(environment::names(&mut db).await?),
        "pool": fields.get("agent-pool"),
        "pools": environments::choices(agent_pool::names(&mut db).await?),
        "refusal": refusal,
    });
    let page = Page {
        template: "workspace-form.html",
        title: "New workspace",
        section: "workspaces",
        topics: &[],
    };
    page.show_with(refusal.status(), app, session, &content)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let to = |kind, id: &str| match id {
        "" => json!({ "data": null }),
        id => json!({ "data": { "type": kind, "id": id } }),
    };
    let document = json!({ "data": {
        "type": "workspaces",
        "attributes": { "name": fields.get("name") },
        "relationships": {
            "environment": to("environments", fields.get("environment")),
            "agent-pool": to("agent-pools", fields.get("agent-pool")),
        },
    } });
    match call(&app, session.actor(), Method::POST, "/workspaces", document.to_string()).await {
        Ok(made) => {
            let id = made["data"]["id"].as_str().unwrap_or_default();
            let text = format!("Created the workspace {}.", fields.get("name"));
            Ok(frame::redirect(&format!("/workspaces/{id}"), session::message(&text, &app)))
        }
        Err(error) => show(&app, &session, &fields, Refusal::of_call(error)?).await,
    }
}

async fn ask_to_delete(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    confirm(&app, &session, &id, Refusal::default()).await
}

async fn confirm(
    app: &App,
    session: &Session,
    id: &str,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let top = workspace::top(app, &mut db, id).await?;
    let contents = store::contents(&mut db, id).await?;
    let state = state_version::current(&mut db, id).await?;
    let content = json!({
        "resources": state.map_or(0, |state| state.resources),
        "states": contents.states,
        "runs": contents.runs,
        "variables": contents.variables,
        "workspace": top,
        "refusal": refusal.whole(),
    });
    let title = format!("Delete {}", top.name);
    let page = Page {
        template: "workspace-delete.html",
        title: &title,
        section: "workspaces",
        topics: &[],
    };
    let status = if refusal.is_empty() { StatusCode::OK } else { StatusCode::CONFLICT };
    page.show_with(status, app, session, &content)
}

async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let path = format!("/workspaces/{id}");
    match call(&app, form.session.actor(), Method::DELETE, &path, "").await {
        Ok(_) => {
            Ok(frame::redirect("/workspaces", session::message("Deleted the workspace.", &app)))
        }
        Err(error) => confirm(&app, &form.session, &id, Refusal::of_call(error)?).await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_workspace_is_made_with_a_pool_and_deleted_after_a_question() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        let pool = server.create("/agent-pools", json!({ "name": "eu" }), &[]).await;
        let page = browser.page(&format!("/workspaces/new?environment={environment}")).await;
        assert!(page.contains(&format!("value=\"{environment}\" selected")), "{page}");

        let fields = [("name", "dns"), ("environment", environment), ("agent-pool", &pool)];
        let (status, answer) = browser.post("/workspaces/new", &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let listed = server.api(Method::GET, "/workspaces?filter[name]=dns", Value::Null).await;
        let made = &listed["data"][0];
        assert_eq!(made["relationships"]["agent-pool"]["data"]["id"], pool.as_str(), "{made}");

        // The name is taken; what was chosen stays in the form.
        let (status, page) = browser.post("/workspaces/new", &fields).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{page}");
        assert!(page.contains("id=\"name-note\"") && page.contains("value=\"dns\""), "{page}");
        assert!(page.contains(&format!("value=\"{pool}\" selected")), "{page}");

        let path = format!("/workspaces/{}/delete", made["id"].as_str().unwrap());
        let page = browser.page(&path).await;
        assert!(page.contains("0 runs") && page.contains("Delete dns"), "{page}");
        let (status, answer) = browser.post(&path, &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        assert_eq!(browser.get(&path).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_workspace_with_a_run_under_way_is_not_deleted() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}/delete", working.workspace);
        let (status, page) = browser.post(&path, &[]).await;
        assert_eq!(status, StatusCode::CONFLICT, "{page}");
        assert!(page.contains("is under way"), "{page}");
    }

    #[tokio::test]
    async fn resources_that_nothing_would_know_any_more_are_counted_before_a_deletion() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let state = json!({
            "version": 4, "serial": 1, "lineage": "l", "outputs": {},
            "resources": [{ "mode": "managed", "type": "terraform_data", "name": "one",
                "provider": "provider[\"terraform.io/builtin/terraform\"]",
                "instances": [{ "schema_version": 0, "attributes": { "id": "x" } }] }],
        });
        let state = state.to_string();
        let attributes = json!({
            "serial": 1, "lineage": "l",
            "md5": hex::encode(<md5::Md5 as md5::Digest>::digest(state.as_bytes())),
            "state": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state),
        });
        server.create("/state-versions", attributes, &[("workspace", &server.workspace)]).await;
        let page = browser.page(&format!("/workspaces/{}/delete", server.workspace)).await;
        assert!(page.contains("Its state has 1 resource.") && page.contains("1 state version<"));
    }
}

//! `/environments`: the groups of workspaces, and their forms.

use axum::Router;
use axum::extract::{self, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::address::Path;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use super::tags::Tags;
use crate::api::json_api::ApiError;
use crate::api::pools::{Payload, call, environments as api};
use crate::app::App;
use crate::store::agent_pool;
use crate::store::environment::{self, Summary};

/// The relationship with the default pool.
const POOL: &str = "default-workspace-agent-pool";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/environments", get(list))
        .route("/environments/new", get(ask).post(create))
        .route("/environments/{id}", get(ask_to_change).post(change))
        .route("/environments/{id}/delete", get(ask_to_delete).post(delete))
}

/// Ids and names for a list to choose from.
pub(super) fn choices(names: Vec<(String, String)>) -> Vec<Value> {
    names.into_iter().map(|(id, name)| json!({ "id": id, "name": name })).collect()
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let rows = environment::summaries(&mut db).await?;
    let content = json!({ "environments": rows.iter().map(render).collect::<Vec<_>>() });
    let page = Page {
        template: "environments.html",
        title: "Environments",
        section: "workspaces",
        topics: &["environments", "workspaces"],
    };
    page.show(&app, &session, &content)
}

fn render(summary: &Summary) -> Value {
    json!({
        "id": summary.id,
        "name": summary.name,
        "default_pool": summary.default_pool,
        "workspaces": summary.workspaces,
        "variables": summary.variables,
    })
}

async fn find(app: &App, id: &str) -> Result<Summary, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let rows = environment::summaries(&mut db).await?;
    rows.into_iter().find(|row| row.id == id).ok_or(PageError::NotFound("environment"))
}

async fn ask(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    show_form(&app, &session, None, Filled::default(), Refusal::default()).await
}

async fn ask_to_change(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let path = format!("/environments/{id}");
    let mut document = call(&app, session.actor(), Method::GET, &path, "").await?;
    let resource = document["data"].take();
    let tags = {
        let mut db = app.scheduler.store.read().await?;
        Tags::of_resource(&mut db, &resource).await?
    };
    let pool = &resource["relationships"][POOL]["data"]["id"];
    let filled = Filled {
        name: resource["attributes"]["name"].as_str().unwrap_or_default(),
        pool: pool.as_str().unwrap_or_default(),
        tags: tags.text(),
    };
    show_form(&app, &session, Some(&id), filled, Refusal::default()).await
}

/// What the fields of the form have.
#[derive(Default)]
struct Filled<'a> {
    name: &'a str,
    /// The id of the default pool, or empty.
    pool: &'a str,
    tags: String,
}

/// `id` is none if it is a new one.
async fn show_form(
    app: &App,
    session: &Session,
    id: Option<&str>,
    filled: Filled<'_>,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let refusal = refusal.beside(&["name", POOL, "tags"]);
    let pools = {
        let mut db = app.scheduler.store.read().await?;
        choices(agent_pool::names(&mut db).await?)
    };
    let title = if id.is_some() { "Edit an environment" } else { "New environment" };
    let content = json!({
        "id": id,
        "heading": title,
        "name": filled.name,
        "pool": filled.pool,
        "tags": filled.tags,
        "pools": pools,
        "refusal": refusal,
    });
    let page =
        Page { template: "environment-form.html", title, section: "workspaces", topics: &[] };
    page.show_with(refusal.status(), app, session, &content)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    save(&app, &form, None, "Created").await
}

async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    save(&app, &form, Some(&id), "Saved").await
}

async fn save(app: &App, form: &Form, id: Option<&str>, done: &str) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let tags = Tags::of(fields);
    let saved = async {
        let (state, payload) = (State(App::clone(app)), resource(fields, &tags)?);
        match id {
            Some(id) => api::update(state, extract::Path(id.to_owned()), payload).await,
            None => api::create(state, payload).await,
        }
    };
    match saved.await {
        Ok(_) => {
            let text = format!("{done} the environment {}.", fields.get("name"));
            Ok(frame::redirect("/environments", session::message(&text, app)))
        }
        Err(error) => {
            let filled = Filled {
                name: fields.get("name"),
                pool: fields.get("default-pool"),
                tags: tags.text(),
            };
            show_form(app, session, id, filled, Refusal::of(error)?).await
        }
    }
}

/// The environment as the API takes it.
fn resource(fields: &Fields, tags: &Tags) -> Result<Payload, ApiError> {
    let pool = Some(fields.get("default-pool")).filter(|id| !id.is_empty());
    let pool = pool.map(|id| json!({ "type": "agent-pools", "id": id }));
    let attributes = json!({ "name": fields.get("name") });
    let related = json!({ POOL: { "data": pool } });
    Ok(payload("environments", attributes, related)?.tagged(tags.names()))
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
    let environment = find(app, id).await?;
    let title = format!("Delete {}", environment.name);
    let content = json!({ "environment": render(&environment), "refusal": refusal.whole() });
    let page = Page {
        template: "environment-delete.html",
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
    let path = format!("/environments/{id}");
    match call(&app, form.session.actor(), Method::DELETE, &path, "").await {
        Ok(_) => {
            let message = session::message("Deleted the environment.", &app);
            Ok(frame::redirect("/environments", message))
        }
        Err(error) => confirm(&app, &form.session, &id, Refusal::of_call(error)?).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn an_environment_is_made_changed_and_deleted_once_it_is_empty() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let pool = server.create("/agent-pools", json!({ "name": "eu" }), &[]).await;
        let fields = [("name", "<b>staging"), ("default-pool", "")];
        let (status, answer) = browser.post("/environments/new", &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let (status, page) = browser.post("/environments/new", &fields).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{page}");
        assert!(page.contains("exists already"), "{page}");

        let all = server.api(Method::GET, "/environments", Value::Null).await;
        let mut made = all["data"].as_array().unwrap().iter();
        let made = made.rfind(|one| one["attributes"]["name"] == "<b>staging");
        let id = made.unwrap()["id"].as_str().unwrap();
        let path = format!("/environments/{id}");
        let changed = [("name", "<b>stage"), ("default-pool", pool.as_str())];
        let (status, answer) = browser.post(&path, &changed).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let list = browser.page("/environments").await;
        assert!(list.contains("&lt;b&gt;stage<") && list.contains(">eu<"), "{list}");
        assert!(browser.page(&path).await.contains(&format!("value=\"{pool}\" selected")));

        let name = json!({ "name": "dns" });
        let workspace = server.create("/workspaces", name, &[("environment", id)]).await;
        let path = format!("{path}/delete");
        assert!(browser.page(&path).await.contains("1 workspace<"));
        assert_eq!(browser.post(&path, &[]).await.0, StatusCode::CONFLICT);
        server.api(Method::DELETE, &format!("/workspaces/{workspace}"), Value::Null).await;
        assert_eq!(browser.post(&path, &[]).await.0, StatusCode::SEE_OTHER);
        assert_eq!(browser.get(&path).await.0, StatusCode::NOT_FOUND);
    }
}

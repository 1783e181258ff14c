//! The form for a new pool, and for a pool that is changed.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::address::Path;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::pool;
use super::pool_users::PoolUsers;
use super::pools::ALL;
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use super::webhook_headers::{self, HeaderRow};
use crate::api::json_api::ApiError;
use crate::api::pools::{Payload, agent_pools};
use crate::app::App;
use crate::store::agent_pool;
use crate::store::environment::{self, Environment};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/pools/new", get(ask).post(create))
        .route("/pools/{id}/edit", get(ask_to_change).post(change))
}

#[derive(Default, Serialize)]
struct PoolForm {
    /// The pool's id; none: it is a new one.
    id: Option<String>,
    /// The pool's name as it is, not as it is to be.
    heading: String,
    name: String,
    image: String,
    max_concurrency: String,
    is_default: bool,
    is_shared: bool,
    environments: Vec<EnvironmentChoice>,
    webhook_enabled: bool,
    webhook_url: String,
    headers: Vec<HeaderRow>,
    /// Who needs the pool in environments that are not chosen.
    users: PoolUsers,
    refusal: Refusal,
}

#[derive(Serialize)]
struct EnvironmentChoice {
    id: String,
    name: String,
    is_chosen: bool,
}

impl PoolForm {
    /// As somebody filled it in.
    fn of(fields: &Fields, environments: Vec<Environment>, refusal: Refusal) -> Self {
        let chosen: Vec<&str> = fields.all("environment").collect();
        Self {
            id: None,
            heading: "New pool".to_owned(),
            name: fields.get("name").to_owned(),
            image: fields.get("image").to_owned(),
            max_concurrency: fields.get("max-concurrency").to_owned(),
            is_default: fields.has("default"),
            is_shared: fields.get("sharing") != "named",
            environments: choices(environments, &chosen),
            webhook_enabled: fields.has("webhook-enabled"),
            webhook_url: fields.get("webhook-url").to_owned(),
            headers: webhook_headers::rows_of(fields),
            users: PoolUsers::default(),
            refusal,
        }
    }

    fn show(
        &self,
        status: StatusCode,
        app: &App,
        session: &Session,
    ) -> Result<Response, PageError> {
        let page = Page {
            template: "pool-form.html",
            title: &self.heading,
            section: "pools",
            topics: &[],
        };
        page.show_with(status, app, session, self)
    }
}

fn choices(environments: Vec<Environment>, chosen: &[&str]) -> Vec<EnvironmentChoice> {
    let choice = |environment: Environment| EnvironmentChoice {
        is_chosen: chosen.contains(&environment.id.as_str()),
        id: environment.id,
        name: environment.name,
    };
    environments.into_iter().map(choice).collect()
}

async fn ask(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let form = PoolForm::of(&Fields::default(), environments(&app).await?, Refusal::default());
    form.show(StatusCode::OK, &app, &session)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let made = async { agent_pools::create(State(App::clone(&app)), resource(&fields)?).await };
    match made.await {
        Ok(made) => {
            let id = made.resource()["id"].as_str().unwrap_or_default();
            let text = format!("Created the pool {}.", fields.get("name"));
            Ok(frame::redirect(&format!("/pools/{id}"), session::message(&text, &app)))
        }
        Err(error) => {
            let form = PoolForm::of(&fields, environments(&app).await?, Refusal::of(error)?);
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

async fn ask_to_change(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let environments = environments(&app).await?;
    let mut db = app.scheduler.store.read().await?;
    let pool = pool::find(&mut db, &id).await?;
    let named = agent_pool::environments(&mut db, &id).await?;
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let url = pool.webhook.url.as_ref().map(|url| url.expose().to_owned());
    let form = PoolForm {
        id: Some(pool.id),
        heading: format!("Edit {}", pool.name),
        name: pool.name,
        image: pool.image.unwrap_or_default(),
        max_concurrency: pool.max_concurrency.map(|most| most.to_string()).unwrap_or_default(),
        is_default: pool.is_default,
        is_shared: pool.is_shared,
        environments: choices(environments, &named),
        webhook_enabled: pool.webhook_enabled,
        webhook_url: url.unwrap_or_default(),
        headers: webhook_headers::rows(&pool.webhook.headers),
        users: PoolUsers::default(),
        refusal: Refusal::default(),
    };
    form.show(StatusCode::OK, &app, &session)
}

async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let pool = {
        let mut db = app.scheduler.store.read().await?;
        pool::find(&mut db, &id).await?
    };
    let changed = async {
        let path = extract::Path(id.clone());
        agent_pools::update(State(App::clone(&app)), path, resource(&fields)?).await
    };
    match changed.await {
        Ok(_) => {
            let message = session::message("Saved.", &app);
            Ok(frame::redirect(&format!("/pools/{id}"), message))
        }
        Err(error) => {
            let refusal = Refusal::of(error)?;
            let users = match refusal.fields.contains_key("environments") {
                true => {
                    let chosen: Vec<&str> = fields.all("environment").collect();
                    let mut db = app.scheduler.store.read().await?;
                    PoolUsers::outside(&mut db, &id, &chosen).await?
                }
                false => PoolUsers::default(),
            };
            let form = PoolForm {
                id: Some(id),
                heading: format!("Edit {}", pool.name),
                users,
                ..PoolForm::of(&fields, environments(&app).await?, refusal)
            };
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

/// The pool as the API takes it.
fn resource(fields: &Fields) -> Result<Payload, ApiError> {
    let is_shared = fields.get("sharing") != "named";
    let environment = |id: &str| json!({ "type": "environments", "id": id });
    let named: Vec<_> = match is_shared {
        true => Vec::new(),
        false => fields.all("environment").map(environment).collect(),
    };
    if !is_shared && named.is_empty() {
        // A form without a tick; to the API it would be a pool for nobody.
        let text = "Choose at least one environment, or share the pool with all.";
        return Err(ApiError::relationship("environments", text));
    }
    let attributes = json!({
        "name": fields.get("name"),
        "image": fields.get("image"),
        "max-concurrency": fields.number("max-concurrency"),
        "default": fields.has("default"),
        "is-shared": is_shared,
        "webhook-enabled": fields.has("webhook-enabled"),
        "webhook-url": fields.get("webhook-url"),
        "webhook-headers": webhook_headers::attribute(fields),
    });
    payload("agent-pools", attributes, json!({ "environments": { "data": named } }))
}

async fn environments(app: &App) -> Result<Vec<Environment>, PageError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(environment::list(&mut db, environment::Filter::default(), ALL).await?.rows)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_pools_limit_is_set_shown_and_taken_away() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        for wrong in ["0", "10001", "many", "1.5"] {
            let fields = [("name", "limited"), ("max-concurrency", wrong)];
            let (status, page) = browser.post("/pools/new", &fields).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
            let text = "takes a whole number of runs from 1 to 10000, or is left empty.";
            assert!(page.contains(text), "{page}");
            assert!(page.contains(&format!("value=\"{wrong}\"")), "{page}");
        }
        let fields = [("name", "limited"), ("max-concurrency", "3")];
        let (_, location) = browser.post_for_location("/pools/new", &fields).await;
        let path = location.unwrap();
        assert!(browser.page(&path).await.contains("at most 3<"));
        let edit = format!("{path}/edit");
        assert!(browser.page(&edit).await.contains("value=\"3\""));
        let fields = [("name", "limited"), ("max-concurrency", "")];
        assert_eq!(browser.post(&edit, &fields).await.0, StatusCode::SEE_OTHER);
        assert!(!browser.page(&path).await.contains("at most"));
    }

    #[tokio::test]
    async fn who_needs_a_pool_is_linked_where_it_is_not_narrowed_and_not_deleted() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let pools = server.api(Method::GET, "/agent-pools", Value::Null).await;
        let pool = pools["data"][0]["id"].as_str().unwrap();
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        let default = json!({ "data": { "type": "agent-pools", "id": pool } });
        let related = json!({ "default-workspace-agent-pool": default });
        let patch = json!({ "data": { "relationships": related } });
        server.api(Method::PATCH, &format!("/environments/{environment}"), patch).await;
        let other = server.create("/environments", json!({ "name": "other" }), &[]).await;

        let fields = [("name", "pool"), ("sharing", "named"), ("environment", other.as_str())];
        let (status, refused) = browser.post(&format!("/pools/{pool}/edit"), &fields).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
        for page in [refused, browser.page(&format!("/pools/{pool}/delete")).await] {
            for link in [
                format!("href=\"/workspaces/{}/settings\"", server.workspace),
                format!("href=\"/environments/{environment}\""),
            ] {
                assert!(page.contains(&link), "{link}: {page}");
            }
        }
    }

    #[tokio::test]
    async fn a_pools_webhook_is_set_and_shown_without_its_secrets() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let fields = [
            ("name", "serverless"),
            ("webhook-enabled", "on"),
            ("webhook-url", "https://starter.example.com/start?key=hunter1"),
            ("header-name-0", "Authorization"),
            ("header-value-0", "Bearer hunter2"),
            ("header-sensitive-0", "on"),
        ];
        let (status, page) = browser.post("/pools/new", &fields[..2]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("A webhook that is enabled needs a URL."), "{page}");
        let (status, location) = browser.post_for_location("/pools/new", &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let path = location.unwrap();
        let page = browser.page(&path).await;
        assert!(page.contains("https://starter.example.com"), "{page}");
        assert!(page.contains(">with Authorization<") && !page.contains("hunter"), "{page}");

        let edit = format!("{path}/edit");
        let page = browser.page(&edit).await;
        assert!(page.contains("key=hunter1") && !page.contains("hunter2"), "{page}");
        let disabled = [fields[0], fields[2], fields[3], fields[5]];
        assert_eq!(browser.post(&edit, &disabled).await.0, StatusCode::SEE_OTHER);
        assert!(browser.page(&path).await.contains(">disabled<"));
        let mut db = server.app.scheduler.store.read().await.unwrap();
        let id = path.rsplit('/').next().unwrap();
        let kept = agent_pool::find(&mut db, id).await.unwrap().unwrap();
        assert!(!kept.webhook_enabled);
        assert_eq!(kept.webhook.headers[0].value.expose(), "Bearer hunter2");
    }
}

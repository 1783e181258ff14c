//! `/pools/ID/tokens`: a new token of a pool, shown once, and the revocation of one.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::pool;
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use crate::api::pools::access_tokens;
use crate::app::App;
use crate::store::access_token::{self, AccessToken};
use crate::store::{Connection, agent};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/pools/{id}/tokens/new", get(ask).post(create))
        .route("/pools/{id}/tokens/{token}/revoke", get(ask_to_revoke).post(revoke))
}

#[derive(Serialize)]
struct TokenForm {
    id: String,
    pool: String,
    name: String,
    expires_in: String,
    refusal: Refusal,
}

#[derive(Serialize)]
struct NewToken {
    id: String,
    pool: String,
    token: String,
}

/// A token that was just made.
pub(super) struct Issued {
    pub id: String,
    pub token: String,
}

/// Makes a token of a pool, as the API does.
pub(super) async fn issue(
    app: &App,
    pool_id: &str,
    attributes: Value,
) -> Result<Result<Issued, Refusal>, PageError> {
    let payload = payload(attributes, json!({}));
    let path = Path(pool_id.to_owned());
    match access_tokens::create(State(App::clone(app)), path, payload).await {
        Ok(made) => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let resource = made.resource();
            let token = text(&resource["attributes"]["token"]);
            Ok(Ok(Issued { id: text(&resource["id"]), token }))
        }
        Err(error) => Ok(Err(Refusal::of(error)?)),
    }
}

async fn ask(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let fields = Fields::default();
    show_form(&app, &session, &id, &fields, Refusal::default(), StatusCode::OK).await
}

async fn show_form(
    app: &App,
    session: &Session,
    id: &str,
    fields: &Fields,
    refusal: Refusal,
    status: StatusCode,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let content = TokenForm {
        id: id.to_owned(),
        pool: pool::find(&mut db, id).await?.name,
        name: fields.get("name").to_owned(),
        expires_in: fields.get("expires-in").to_owned(),
        refusal,
    };
    let page =
        Page { template: "token-form.html", title: "New token", section: "pools", topics: &[] };
    page.show_with(status, app, session, &content)
}

async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let name = fields.get("name");
    let mut attributes = json!({ "name": name });
    if let Ok(days) = fields.get("expires-in").parse::<i64>() {
        attributes["expires-in"] = (days.saturating_mul(24 * 60)).into();
    }
    let issued = match issue(&app, &id, attributes).await? {
        Ok(issued) => issued,
        Err(refusal) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return show_form(&app, &session, &id, &fields, refusal, status).await;
        }
    };
    let mut db = app.scheduler.store.read().await?;
    let pool = pool::find(&mut db, &id).await?.name;
    let page =
        Page { template: "token-new.html", title: "New token", section: "pools", topics: &[] };
    page.show(&app, &session, &NewToken { id, pool, token: issued.token })
}

#[derive(Serialize)]
struct Revocation {
    pool_id: String,
    pool: String,
    id: String,
    name: String,
    agents: Vec<String>,
}

async fn find(db: &mut Connection, pool_id: &str, id: &str) -> Result<AccessToken, PageError> {
    let token = access_token::find(db, id).await?;
    token
        .filter(|token| token.pool_id.as_deref() == Some(pool_id))
        .ok_or(PageError::NotFound("token"))
}

async fn ask_to_revoke(
    State(app): State<App>,
    Path((pool_id, id)): Path<(String, String)>,
    session: Session,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let token = find(&mut db, &pool_id, &id).await?;
    let agents = agent::of_token(&mut db, &id).await?;
    let content = Revocation {
        pool: pool::find(&mut db, &pool_id).await?.name,
        pool_id,
        name: token.name.unwrap_or_default(),
        id,
        agents: agents.into_iter().map(|agent| agent.name).collect(),
    };
    let page = Page {
        template: "token-revoke.html",
        title: "Revoke a token",
        section: "pools",
        topics: &[],
    };
    page.show(&app, &session, &content)
}

async fn revoke(
    State(app): State<App>,
    Path((pool_id, id)): Path<(String, String)>,
    _form: Form,
) -> Result<Response, PageError> {
    {
        let mut db = app.scheduler.store.read().await?;
        find(&mut db, &pool_id, &id).await?;
    }
    match access_tokens::delete(State(App::clone(&app)), Path(id)).await {
        Ok(_) => {
            let message = session::message("Revoked the token.", &app);
            Ok(frame::redirect(&format!("/pools/{pool_id}#tokens"), message))
        }
        Err(error) => Err(PageError::Refused(Refusal::of(error)?.whole())),
    }
}

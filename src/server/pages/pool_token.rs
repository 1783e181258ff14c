//! `/pools/ID/tokens`: a new token of a pool, shown once, also in the place of an earlier one, and
//! the revocation of one.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::{Path, Query};
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
    replaced: Option<Replaced>,
    refusal: Refusal,
}

#[derive(Serialize)]
struct NewToken {
    id: String,
    pool: String,
    token: String,
    replaced: Option<Replaced>,
}

/// A token that a new one is made for.
#[derive(Serialize)]
struct Replaced {
    id: String,
    name: String,
    /// The agents that use it.
    agents: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// The id of the token that the new one replaces.
    replaces: String,
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
    let made = async {
        let payload = payload("access-tokens", attributes, json!({}))?;
        access_tokens::create(State(App::clone(app)), extract::Path(pool_id.to_owned()), payload)
            .await
    };
    match made.await {
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
    Query(asked): Query<Asked>,
    session: Session,
) -> Result<Response, PageError> {
    let mut fields = Fields::default();
    fields.add("replaces".to_owned(), asked.replaces);
    show_form(&app, &session, &id, &fields, Refusal::default(), StatusCode::OK).await
}

/// The token that a form says is replaced.
async fn replaced(
    db: &mut Connection,
    pool_id: &str,
    fields: &Fields,
) -> Result<Option<Replaced>, PageError> {
    let id = fields.get("replaces");
    if id.is_empty() {
        return Ok(None);
    }
    let token = find(db, pool_id, id).await?;
    let agents = agent::of_token(db, id).await?.into_iter().map(|agent| agent.name).collect();
    Ok(Some(Replaced {
        name: token.name.unwrap_or_else(|| token.id.clone()),
        id: token.id,
        agents,
    }))
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
        replaced: replaced(&mut db, id, fields).await?,
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
    // A token that is not there is not replaced.
    let replaced = replaced(&mut *app.scheduler.store.read().await?, &id, &fields).await?;
    let name = fields.get("name");
    // What is no number of days, the API refuses: a token without an end is none by mistake.
    let expires_in = match fields.number("expires-in").as_i64() {
        Some(days) => days.saturating_mul(24 * 60).into(),
        None => fields.number("expires-in"),
    };
    let attributes = json!({ "name": name, "expires-in": expires_in });
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
    page.show(&app, &session, &NewToken { id, pool, token: issued.token, replaced })
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
    match access_tokens::delete(State(App::clone(&app)), extract::Path(id)).await {
        Ok(_) => {
            let message = session::message("Revoked the token.", &app);
            Ok(frame::redirect(&format!("/pools/{pool_id}#tokens"), message))
        }
        Err(error) => Err(PageError::Refused(Refusal::of(error)?.whole())),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::{InProcess, register};
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_token_is_replaced_by_one_that_the_agents_of_the_old_one_are_told_to_use() {
        let server = InProcess::new().await;
        server.tell("register", &server.pool_token, &register()).await;
        let pools = server.api(Method::GET, "/agent-pools", Value::Null).await;
        let pool = pools["data"][0]["id"].as_str().unwrap();
        let path = format!("/agent-pools/{pool}/access-tokens");
        let tokens = server.api(Method::GET, &path, Value::Null).await;
        let old = tokens["data"][0]["id"].as_str().unwrap();
        let browser = Browser::new(&server).await;
        let form = format!("/pools/{pool}/tokens/new");
        let link = format!("{form}?replaces={old}");
        assert!(browser.page(&format!("/pools/{pool}")).await.contains(&link));
        let page = browser.page(&link).await;
        assert!(page.contains("until you revoke it: 1 agent uses it."), "{page}");
        let unknown = browser.get(&format!("{form}?replaces=at-none")).await;
        assert_eq!(unknown.0, StatusCode::NOT_FOUND);
        let refused = browser.post(&form, &[("name", "new"), ("replaces", "at-none")]).await;
        assert_eq!(refused.0, StatusCode::NOT_FOUND);
        let (status, page) = browser.post(&form, &[("name", "new"), ("replaces", old)]).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(page.contains("scalr-agent configure --token-file token"), "{page}");
        assert!(page.contains("(one)") && page.contains(&format!("{old}/revoke")), "{page}");
        let tokens = server.api(Method::GET, &path, Value::Null).await;
        assert_eq!(tokens["meta"]["pagination"]["total-count"], 2, "the old one is still there");
    }
}

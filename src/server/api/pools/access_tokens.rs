//! Access tokens: admins' and pools'.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{agent_pools, the_account};
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::{Millis, rfc3339};
use crate::store::access_token::{self, AccessToken};
use crate::store::{Connection, WriteTransaction};
use crate::token::{NewToken, new_id};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/agent-pools/{id}/access-tokens", "List the tokens of an agent pool", list)
        .post("/agent-pools/{id}/access-tokens", "Create a token of an agent pool", create)
        .get("/access-tokens", "List the tokens of admins", list_admins)
        .post("/access-tokens", "Create a token of an admin", create_admin)
        .get("/access-tokens/{id}", "Read a token", read)
        .patch("/access-tokens/{id}", "Change a token", update)
        .delete("/access-tokens/{id}", "Revoke a token", delete)
}

async fn list(
    State(app): State<App>,
    Path(pool_id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let pool = agent_pools::find(&mut db, &pool_id).await?;
    let listed = access_token::list(&mut db, &pool.id, query.view()).await?;
    let now = app.scheduler.clock.now();
    let resources = listed.rows.iter().map(|token| render(token, now)).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn list_admins(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let listed = access_token::list_admins(&mut db, query.view()).await?;
    let now = app.scheduler.clock.now();
    let resources = listed.rows.iter().map(|token| render(token, now)).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

/// Creates a token of a pool.
pub(crate) async fn create(
    State(app): State<App>,
    Path(pool_id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let pool = agent_pools::find(&mut tx, &pool_id).await?;
    issue(tx, pool.account_id, Some(pool.id), &payload, app.scheduler.clock.now()).await
}

/// Creates an admin's token.
pub(crate) async fn create_admin(
    State(app): State<App>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let account = the_account(&mut tx).await?;
    issue(tx, account.id, None, &payload, app.scheduler.clock.now()).await
}

async fn issue(
    mut tx: WriteTransaction,
    account_id: String,
    pool_id: Option<String>,
    payload: &Payload,
    now: Millis,
) -> Result<Document, ApiError> {
    let id = new_id("at");
    let issued = NewToken::new(&id);
    let mut token = AccessToken {
        id,
        account_id,
        pool_id,
        name: None,
        description: None,
        secret_hash: issued.secret_hash,
        created_at: now,
        expires_at: expires_at(payload, now)?,
        last_used_at: None,
        for_one_agent: payload.attribute("for-one-agent")?.unwrap_or(false),
        agent_id: None,
    };
    change(&mut token, payload)?;
    access_token::insert(&mut tx, &token).await?;
    tx.commit().await?;
    let mut resource = render(&token, now);
    // The only time that it is shown.
    resource["attributes"]["token"] = issued.token.expose().into();
    Ok(Document::created(resource))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?, app.scheduler.clock.now())))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut token = find(&mut tx, &id).await?;
    for name in ["expires-in", "for-one-agent"] {
        if payload.change::<Value>(name)?.is_some() {
            return Err(ApiError::attribute(name, "This field is set only when a token is made."));
        }
    }
    change(&mut token, &payload)?;
    access_token::update(&mut tx, &token).await?;
    tx.commit().await?;
    Ok(Document::of(render(&token, app.scheduler.clock.now())))
}

/// Revokes a token.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let token = find(&mut tx, &id).await?;
    if access_token::is_last_admin(&mut tx, &token, app.scheduler.clock.now()).await? {
        return Err(ApiError::conflict(format!(
            "The token {id} is the last admin's token that works. Make another one first, or \
             revoke it on the server's host: `scalr-server admin-token revoke {id} --force`."
        )));
    }
    access_token::delete(&mut tx, &id).await?;
    tx.commit().await?;
    // The held polls of the sessions that it ends.
    if let Some(pool) = &token.pool_id {
        app.scheduler.wake.pool(pool);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn find(db: &mut Connection, id: &str) -> Result<AccessToken, ApiError> {
    access_token::find(db, id).await?.ok_or_else(|| ApiError::not_found("AccessToken", id))
}

fn change(token: &mut AccessToken, payload: &Payload) -> Result<(), ApiError> {
    if let Some(name) = payload.text("name")? {
        token.name = name;
    }
    if let Some(description) = payload.text("description")? {
        token.description = description;
    }
    Ok(())
}

/// When a new token expires: `expires-in` is in minutes.
fn expires_at(payload: &Payload, now: Millis) -> Result<Option<Millis>, ApiError> {
    let minutes = payload.attribute::<i64>("expires-in")?;
    Ok(minutes.map(|minutes| now + minutes * 60_000))
}

fn render(token: &AccessToken, now: Millis) -> Value {
    json!({
        "type": "access-tokens",
        "id": token.id,
        "attributes": {
            "name": token.name,
            "description": token.description,
            "created-at": rfc3339(token.created_at),
            "expires-in": token.expires_at.map(|at| (at - token.created_at) / 60_000),
            "expires-at": token.expires_at.map(rfc3339),
            "is-expired": token.is_expired(now),
            "last-used-at": token.last_used_at.map(rfc3339),
            "for-one-agent": token.for_one_agent,
        },
        "relationships": {
            "agent-pool": to_one("agent-pools", token.pool_id.as_deref()),
            "agent": to_one("agents", token.agent_id.as_deref()),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};

    use crate::clock::Clock;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn admins_tokens_are_made_listed_and_revoked() {
        let server = InProcess::new().await;
        let call = async |method, path: &str, token: &str| {
            let path = format!("/api/iacp/v3{path}");
            let (status, body) = server.call(method, &path, token, &[], "").await;
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let document = json!({ "data": { "attributes": { "name": "ci", "expires-in": 60 } } });
        let made = server.api(Method::POST, "/access-tokens", document).await;
        let token = made["data"]["attributes"]["token"].as_str().unwrap();
        let id = made["data"]["id"].as_str().unwrap();
        assert_eq!(call(Method::GET, "/environments", token).await.0, StatusCode::OK);

        let listed = server.api(Method::GET, "/access-tokens", Value::Null).await;
        assert_eq!(listed["data"].as_array().unwrap().len(), 2, "and no pool's: {listed}");
        let ci = &listed["data"][1]["attributes"];
        assert_eq!((&ci["name"], &ci["is-expired"]), (&json!("ci"), &json!(false)));
        assert!(ci["last-used-at"].is_string() && ci["expires-at"].is_string(), "{ci}");
        assert!(!listed.to_string().contains(token.split_once('.').unwrap().1), "{listed}");

        let first = server.admin.split_once('.').unwrap().0;
        let revoke = |id: &str| format!("/access-tokens/{id}");
        assert_eq!(call(Method::DELETE, &revoke(first), token).await.0, StatusCode::NO_CONTENT);
        let (status, _) = call(Method::GET, "/environments", &server.admin).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (status, why) = call(Method::DELETE, &revoke(id), token).await;
        assert_eq!(status, StatusCode::CONFLICT, "{why}");
        assert!(why.contains("--force"), "{why}");
    }

    #[tokio::test]
    async fn an_expired_admins_token_is_refused_with_its_expiry() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let document = json!({ "data": { "attributes": { "expires-in": 60 } } });
        let made = server.api(Method::POST, "/access-tokens", document).await;
        let token = made["data"]["attributes"]["token"].as_str().unwrap();
        server.app.scheduler.clock.advance(Duration::from_secs(3_600));
        let path = "/api/iacp/v3/environments";
        let (status, body) = server.call(Method::GET, path, token, &[], "").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let why = String::from_utf8_lossy(&body);
        assert!(why.contains("expired at 2023-11-14T23:13:20Z"), "{why}");
        // Who does not have the secret learns nothing of it.
        let guess = format!("{}.guess", token.split_once('.').unwrap().0);
        let (_, body) = server.call(Method::GET, path, &guess, &[], "").await;
        assert!(!String::from_utf8_lossy(&body).contains("expired"));
        // An expired one is not the last one that works.
        let made = made["data"]["id"].as_str().unwrap();
        server.api(Method::DELETE, &format!("/access-tokens/{made}"), Value::Null).await;
    }
}

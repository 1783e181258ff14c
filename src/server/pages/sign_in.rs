//! How a session begins: with a link that works once, or with an admin's token. Other ways, a
//! company's sign-in for example, end in the same [`session::begin`].

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::{Path, Query};
use super::cookie::Cookie;
use super::error::PageError;
use super::form::{Form, VisitorForm};
use super::kept_form;
use super::session::form_token;
use super::{frame, session};
use crate::admin;
use crate::api::pools::BASE;
use crate::app::{App, Parts};
use crate::clock::{Millis, rfc3339};
use crate::connections::Connection;
use crate::scheduler::millis;
use crate::store::{page_session, sign_in_code};
use crate::token::{NewToken, PresentedToken, new_id};

/// The largest form, in bytes: anybody may send one.
const MAX_FORM: usize = 8 * 1024;

/// How long a link works.
const LINK: Duration = Duration::from_secs(15 * 60);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sign-in", get(ask).post(with_token))
        .route("/sign-in/{code}", get(ask_to_use_link).post(with_link))
        .route("/sign-out", post(sign_out))
        .layer(DefaultBodyLimit::max(MAX_FORM))
}

/// What only this host's administrators may call.
pub(crate) fn local_routes() -> Router<App> {
    Router::new().route(&format!("{BASE}/sign-in-links"), post(local_link))
}

/// A link that signs one browser in, and when it stops working.
///
/// # Errors
/// The database can't be written.
pub(crate) async fn new_link(app: &Parts) -> anyhow::Result<(String, Millis)> {
    let id = new_id("code");
    let issued = NewToken::new(&id);
    let expires_at = app.scheduler.clock.now() + millis(LINK);
    let mut tx = app.scheduler.store.write().await?;
    sign_in_code::insert(&mut tx, &id, &issued.secret_hash, expires_at).await?;
    tx.commit().await.context("cannot save a sign-in code")?;
    Ok((app.link(&format!("/sign-in/{}", issued.token.expose())), expires_at))
}

async fn local_link(State(app): State<App>) -> Result<Json<Value>, StatusCode> {
    match new_link(&app).await {
        Ok((link, expires_at)) => {
            let attributes = json!({ "link": link, "expires-at": rfc3339(expires_at) });
            let data = json!({ "type": "sign-in-links", "attributes": attributes });
            Ok(Json(json!({ "data": data })))
        }
        Err(error) => {
            tracing::error!("{error:#}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

#[derive(Serialize)]
struct SignIn<'a> {
    next: &'a str,
    /// Empty: none.
    error: &'a str,
}

async fn ask(
    State(app): State<App>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    if session::find(&app, &headers).await?.is_some() {
        return Ok(Redirect::to(own_path(&asked.next)).into_response());
    }
    let content = SignIn { next: &asked.next, error: "" };
    show(&app, &headers, "sign-in.html", StatusCode::OK, &content)
}

async fn ask_to_use_link(
    State(app): State<App>,
    headers: HeaderMap,
    Path(code): Path<String>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let works = match PresentedToken::parse(&code) {
        Some(shown) => {
            let hash = sign_in_code::find(&mut db, &shown.id, app.scheduler.clock.now()).await?;
            hash.is_some_and(|hash| shown.matches(&hash))
        }
        None => false,
    };
    let content = json!({ "works": works });
    let status = if works { StatusCode::OK } else { StatusCode::NOT_FOUND };
    show(&app, &headers, "sign-in-link.html", status, &content)
}

async fn with_link(
    State(app): State<App>,
    Path(code): Path<String>,
    connection: Option<Extension<Connection>>,
    form: VisitorForm,
) -> Result<Response, PageError> {
    let address = address(connection.as_ref());
    let refuse = || {
        let content = json!({ "works": false });
        show(&app, &form.headers, "sign-in-link.html", StatusCode::NOT_FOUND, &content)
    };
    // Whoever failed too often keeps no writer waiting.
    if !app.sign_ins.may_try(address) {
        return refuse();
    }
    let mut tx = app.scheduler.store.write().await?;
    let now = app.scheduler.clock.now();
    if let Some(shown) = PresentedToken::parse(&code)
        && let Some(hash) = sign_in_code::find(&mut tx, &shown.id, now).await?
        && shown.matches(&hash)
    {
        sign_in_code::delete(&mut tx, &shown.id, now).await?;
        let name = "administrator".to_owned();
        let cookie = session::begin(&app, &mut tx, None, name, &form.headers).await?;
        tx.commit().await?;
        tracing::info!("signed in with a link");
        // To the start, unless a form was kept.
        return Ok(frame::redirect(kept_form::PATH, cookie));
    }
    app.sign_ins.failed(address);
    refuse()
}

async fn with_token(
    State(app): State<App>,
    connection: Option<Extension<Connection>>,
    form: VisitorForm,
) -> Result<Response, PageError> {
    let address = address(connection.as_ref());
    let next = form.fields.get("next");
    let refuse = |status, error| {
        let content = SignIn { next, error };
        show(&app, &form.headers, "sign-in.html", status, &content)
    };
    if !app.sign_ins.may_try(address) {
        let text = "Too many attempts failed. Wait a minute, then try again.";
        return refuse(StatusCode::TOO_MANY_REQUESTS, text);
    }
    let mut tx = app.scheduler.store.write().await?;
    let now = app.scheduler.clock.now();
    let token = match PresentedToken::parse(form.fields.get("token")) {
        Some(shown) => admin::of_token(&mut tx, &shown).await?,
        None => None,
    };
    let Some(token) = token else {
        app.sign_ins.failed(address);
        let text = "This is not an admin token of this server, or it was revoked.";
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, text);
    };
    if token.is_expired(now) {
        let text = "This token has expired. Make another one on the server's host: \
                    scalr-server admin-token create";
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, text);
    }
    crate::store::access_token::touch(&mut tx, &token, now).await?;
    let name = token.name.clone().unwrap_or_else(|| token.id.clone());
    let cookie = session::begin(&app, &mut tx, Some(token.id.clone()), name, &form.headers).await?;
    tx.commit().await?;
    tracing::info!(token = token.id, "signed in with a token");
    Ok(frame::redirect(own_path(next), cookie))
}

async fn sign_out(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let mut tx = app.scheduler.store.write().await?;
    page_session::delete(&mut tx, &form.session.id).await?;
    tx.commit().await?;
    Ok(frame::redirect("/sign-in", Cookie::Session.remove(&app.url)))
}

/// Shows a form that is tied to the visitor's cookie.
fn show(
    app: &App,
    headers: &HeaderMap,
    template: &'static str,
    status: StatusCode,
    content: &impl Serialize,
) -> Result<Response, PageError> {
    let known = Cookie::Visitor.of(headers, &app.url);
    let known =
        known.filter(|value| value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit()));
    let visitor = known.unwrap_or_else(|| hex::encode(rand::random::<[u8; 32]>()));
    let html = frame::show_to_visitor(template, "Sign in", &form_token(&visitor), content)?;
    let mut answer = (status, Html(html)).into_response();
    answer.headers_mut().append(SET_COOKIE, Cookie::Visitor.set(&visitor, &app.url));
    Ok(answer)
}

/// A path of this server and no other address: `//host` is one.
fn own_path(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path && is_plain { next } else { "/" }
}

fn address(connection: Option<&Extension<Connection>>) -> Option<IpAddr> {
    connection.map(|Extension(connection)| connection.address())
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;

    #[test]
    fn the_sign_in_leads_to_paths_of_this_server_alone() {
        assert_eq!(own_path("/pools/apool-1?tab=x"), "/pools/apool-1?tab=x");
        for other in ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\nb", "x"]
        {
            assert_eq!(own_path(other), "/", "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_large_form_of_a_visitor_is_refused_before_anything_is_made_of_it() {
        let server = InProcess::new().await;
        for path in ["/sign-in", "/sign-in/code-1.00"] {
            for body in ["x".repeat(MAX_FORM + 1), "a&".repeat(MAX_FORM / 2 + 1)] {
                let (status, _) = server.call(Method::POST, path, "", &[], body).await;
                assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_failed_too_often_keeps_no_writer_waiting() {
        let server = InProcess::new().await;
        let visitor = "0".repeat(64);
        let cookie = Cookie::Visitor.set(&visitor, &server.app.url);
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let body = format!("form-token={}&token=t-1.00", form_token(&visitor));
        let post = async |path| {
            let headers = [("cookie", cookie.as_str())];
            server.call(Method::POST, path, "", &headers, body.clone()).await.0
        };
        for _ in 0..10 {
            assert_eq!(post("/sign-in").await, StatusCode::UNPROCESSABLE_ENTITY);
        }
        let _writer = server.app.scheduler.store.write().await.unwrap();
        for (path, status) in [
            ("/sign-in", StatusCode::TOO_MANY_REQUESTS),
            ("/sign-in/code-1.00", StatusCode::NOT_FOUND),
        ] {
            let answer = tokio::time::timeout(Duration::from_secs(20), post(path)).await;
            assert_eq!(answer.expect(path), status);
        }
    }
}

//! Who is signed in.
//!
//! A session is a row in the database and a cookie with its token. It ends after [`IDLE`]
//! without a request, after [`LONGEST`] in any case, and with the token that it was made with.
//! Pages ask for a [`Session`] and learn who it is, not how they signed in.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::cookie::Cookie;
use super::error::PageError;
use crate::app::App;
use crate::clock::Millis;
use crate::connections::{Owner, authenticated};
use crate::scheduler::millis;
use crate::store::Connection;
use crate::store::page_session::{self, PageSession};
use crate::store::run_event::Actor;
use crate::token::{NewToken, PresentedToken, new_id};
use protocol::Secret;

/// How long a session lasts without a request.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);

/// How often an answer that is held open for a session looks whether that has ended.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });

/// How long a session lasts at most.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Somebody who is signed in. As an extractor it sends everybody else to sign in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The session's id.
    pub id: String,
    /// Who it is, for people.
    pub name: String,
    /// What each form of theirs has in it.
    pub form_token: String,
    /// What the page before said.
    pub message: Option<String>,
}

impl Session {
    /// Who does what they ask for.
    pub(super) fn actor(&self) -> Actor {
        Actor::session(&self.id, &self.name)
    }

    /// Waits until the session has ended, for answers that are held open. It asks in a task of
    /// its own: an answer that nobody reads would keep a connection to the database.
    pub(super) fn ended(&self, app: &App) -> impl Future<Output = ()> + use<> {
        let (app, id) = (App::clone(app), self.id.clone());
        let watch = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Ok(mut db) = app.scheduler.store.read().await else { return };
                if !matches!(find_open(&app, &mut db, &id).await, Ok(Some(_))) {
                    return;
                }
            }
        }));
        async move { drop(watch.await) }
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, PageError> {
        match find(app, &parts.headers).await? {
            Some(session) => {
                // One of too many connections ends with the answer.
                let _ = authenticated(&parts.extensions, Owner::Token(&session.id));
                Ok(session)
            }
            None => {
                // What a form would have done is not done by a link after the sign-in.
                let is_page = parts.method == Method::GET;
                let next = parts.uri.path_and_query().filter(|_| is_page);
                Err(PageError::SignIn { next: next.map(ToString::to_string) })
            }
        }
    }
}

/// The session that a request belongs to.
pub(super) async fn find(app: &App, headers: &HeaderMap) -> Result<Option<Session>, PageError> {
    let now = app.scheduler.clock.now();
    let presented = presented(app, headers).await?;
    let Some((session, token)) = presented.filter(|(session, _)| now < ends_at(session)) else {
        return Ok(None);
    };
    let mut db = app.scheduler.store.read().await?;
    page_session::touch(&mut db, &session, now).await?;
    let message = Cookie::Message.of(headers, &app.url);
    let message = message.map(|text| percent_decode_str(&text).decode_utf8_lossy().into_owned());
    Ok(Some(Session {
        form_token: form_token(token.expose()),
        id: session.id,
        name: session.name,
        message,
    }))
}

/// The session that a request names and its token, also if it was not used for too long.
pub(super) async fn presented(
    app: &App,
    headers: &HeaderMap,
) -> Result<Option<(PageSession, Secret)>, PageError> {
    let cookie = Cookie::Session.of(headers, &app.url);
    let Some((token, shown)) = cookie.and_then(|token| {
        let shown = PresentedToken::parse(&token)?;
        Some((Secret::new(token), shown))
    }) else {
        return Ok(None);
    };
    let mut db = app.scheduler.store.read().await?;
    let found = page_session::find(&mut db, &shown.id, app.scheduler.clock.now()).await?;
    let found = found.filter(|session| shown.matches(&session.secret_hash));
    Ok(found.map(|session| (session, token)))
}

/// The session with this id, if it has not ended.
async fn find_open(app: &App, db: &mut Connection, id: &str) -> sqlx::Result<Option<PageSession>> {
    let now = app.scheduler.clock.now();
    let found = page_session::find(db, id, now).await?;
    Ok(found.filter(|session| now < ends_at(session)))
}

/// Begins a session of `name`; gives the header that makes the browser keep it.
pub(super) async fn begin(
    app: &App,
    db: &mut Connection,
    access_token_id: Option<String>,
    name: String,
    headers: &HeaderMap,
) -> Result<HeaderValue, PageError> {
    let now = app.scheduler.clock.now();
    let ended = presented(app, headers).await?;
    // Those that were idle for too long stay that long: somebody may have a form of theirs open.
    page_session::delete_over(db, now - millis(LONGEST)).await?;
    let id = new_id("web");
    let issued = NewToken::new(&id);
    let session = PageSession {
        id,
        access_token_id,
        secret_hash: issued.secret_hash,
        name,
        user_agent: user_agent(headers),
        created_at: now,
        last_used_at: now,
    };
    page_session::insert(db, &session).await?;
    if let Some((ended, _)) = ended {
        app.kept_forms.hand_on(&ended, &session);
    }
    Ok(Cookie::Session.set(issued.token.expose(), &app.url))
}

/// Until when a session lasts that is not used any more.
pub(super) fn ends_at(session: &PageSession) -> Millis {
    (session.last_used_at + millis(IDLE)).min(session.created_at + millis(LONGEST))
}

/// The header that shows `text` on the next page.
pub(super) fn message(text: &str, app: &App) -> HeaderValue {
    Cookie::Message.set(&utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(), &app.url)
}

/// What a form has in it whose browser has `cookie`: another site knows neither.
pub(super) fn form_token(cookie: &str) -> String {
    hex::encode(Sha256::digest(format!("form {cookie}")))
}

fn user_agent(headers: &HeaderMap) -> String {
    let header = headers.get("user-agent").and_then(|value| value.to_str().ok());
    header.unwrap_or_default().chars().take(255).collect()
}

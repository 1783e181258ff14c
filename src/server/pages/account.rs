//! `/account`: who is signed in where.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use super::address::Path;
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::session::{self, Session};
use crate::app::App;
use crate::clock::Millis;
use crate::store::page_session;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/account", get(show)).route("/account/sessions/{id}/end", post(end))
}

#[derive(Serialize)]
struct Account {
    sessions: Vec<SessionRow>,
}

#[derive(Serialize)]
struct SessionRow {
    id: String,
    name: String,
    browser: String,
    is_this: bool,
    created_at: Millis,
    last_used_at: Millis,
    ends_at: Millis,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let now = app.scheduler.clock.now();
    let sessions = page_session::list(&mut db).await?;
    let sessions = sessions.into_iter().filter(|found| session::ends_at(found) > now);
    let sessions = sessions.map(|found| SessionRow {
        is_this: found.id == session.id,
        browser: browser(&found.user_agent),
        ends_at: session::ends_at(&found),
        id: found.id,
        name: found.name,
        created_at: found.created_at,
        last_used_at: found.last_used_at,
    });
    let page = Page {
        template: "account.html",
        title: "Account",
        section: "account",
        topics: &["page_sessions"],
    };
    page.show(&app, &session, &Account { sessions: sessions.collect() })
}

async fn end(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let mut tx = app.scheduler.store.write().await?;
    let was_there = page_session::delete(&mut tx, &id).await?;
    tx.commit().await?;
    if id == form.session.id {
        return Err(PageError::SignIn { next: None });
    }
    let text = if was_there { "Session ended." } else { "That session had ended already." };
    Ok(frame::redirect("/account", session::message(text, &app)))
}

/// Browser and system, out of what browsers say of themselves for historical reasons.
fn browser(user_agent: &str) -> String {
    let first = |names: &[(&'static str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    let browser = first(&[
        ("Firefox/", "Firefox"),
        ("Edg/", "Edge"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iPadOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        _ => user_agent.chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_name() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(browser(chrome), "Chrome on Linux");
        assert_eq!(browser("curl/8.5.0"), "curl/8.5.0");
    }
}

//! The form that was sent after its session had ended: whoever signs in again in the same browser
//! as the same one finds it filled in as after a refusal, and sends it again or not. Secrets in it
//! are in no answer, as in no form that is refused.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use tower::ServiceExt as _;

use super::error::PageError;
use super::form::Fields;
use super::session::Session;
use crate::app::App;
use crate::reopened;

/// Where a kept form is shown.
pub(super) const PATH: &str = "/kept-form";

pub(super) fn routes() -> Router<App> {
    Router::new().route(PATH, get(show))
}

/// A form that is opened again; the extension of a request.
#[derive(Clone)]
pub(super) struct Reopened {
    pub session: Session,
    pub fields: Fields,
}

/// Opens the form as if it had been refused. Nothing is written: see [`reopened`].
async fn show(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let elsewhere = Redirect::to("/").into_response();
    let Some(form) = app.kept_forms.of(&session.id) else { return Ok(elsewhere) };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = form.path.parse().map_err(|_| PageError::NotFound("page"))?;
    let fields = Fields::from(form.fields);
    request.extensions_mut().insert(Reopened { session, fields });
    let routes = super::routes().with_state(app);
    let answer = reopened::scope(routes.oneshot(request)).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    Ok(if answer.status() == StatusCode::UNPROCESSABLE_ENTITY { answer } else { elsewhere })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    const SECRET: &str = "hunter2";
    const AFTER_ITS_END: Duration = Duration::from_secs(13 * 60 * 60);

    #[tokio::test]
    async fn what_was_typed_is_there_again_after_the_same_one_has_signed_in() {
        let clock = Clock::standing();
        let server = InProcess::with_clock(clock.clone()).await;
        let variables = format!("/workspaces/{}/variables", server.workspace);
        let settings = format!("/workspaces/{}/settings", server.workspace);
        let own = "value=\"typed\"";
        for (path, fields) in [
            (
                variables.as_str(),
                &[("key", "typed"), ("category", "shell"), ("value", SECRET), ("sensitive", "on")]
                    [..],
            ),
            (settings.as_str(), &[("name", "typed")]),
            ("/pools/new", &[("name", "typed"), ("header-value-0", SECRET)]),
            ("/hooks/new", &[("name", "typed"), ("interpreter", "sh"), ("script", "true")]),
            ("/environments/new", &[("name", "typed")]),
            ("/workspaces/new", &[("name", "typed")]),
        ] {
            let browser = Browser::new(&server).await;
            clock.advance(AFTER_ITS_END);
            let (status, location) = browser.post_for_location(path, fields).await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
            assert_eq!(location.as_deref(), Some("/sign-in?next=%2Fkept%2Dform"), "{path}");
            let other = browser.sign_in_again("somebody else").await;
            let (status, _) = other.get(PATH).await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{path}: it is not theirs");

            let browser = Browser::new(&server).await;
            clock.advance(AFTER_ITS_END);
            browser.post(path, fields).await;
            let again = browser.sign_in_again("admin").await;
            let (status, page) = again.get(PATH).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {page}");
            assert!(page.contains(own) && page.contains(reopened::WHY), "{path}: {page}");
            assert!(!page.contains(SECRET), "{path}: {page}");
        }
        // Nothing of all this was sent.
        for path in ["/vars", "/hooks"] {
            let listed = server.api(Method::GET, path, Value::Null).await;
            assert_eq!(listed["data"].as_array().unwrap().len(), 0, "{listed}");
        }
        let workspace = format!("/workspaces/{}", server.workspace);
        let workspace = server.api(Method::GET, &workspace, Value::Null).await;
        assert_eq!(workspace["data"]["attributes"]["name"], "main");
    }

    #[tokio::test]
    async fn a_form_of_another_site_or_of_a_session_that_was_ended_is_not_kept() {
        let clock = Clock::standing();
        let server = InProcess::with_clock(clock.clone()).await;
        let browser = Browser::new(&server).await;
        let signed_out = Browser::new(&server).await;
        signed_out.post("/sign-out", &[]).await;
        let location = signed_out.post_for_location("/hooks/new", &[("name", "typed")]).await.1;
        assert_eq!(location.as_deref(), Some("/sign-in"));
        clock.advance(AFTER_ITS_END);
        let forged = "name=typed&form-token=other".to_owned();
        let (status, _) = browser.send(Method::POST, "/hooks/new", forged).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn nothing_is_written_while_a_form_is_opened_again() {
        let server = InProcess::new().await;
        let store = &server.app.scheduler.store;
        assert!(reopened::scope(store.write()).await.is_err());
        assert!(store.write().await.is_ok());
    }
}

//! Uploads that go on after their token was revoked or has expired: one takes up to 15 minutes.
//! They end, and [`super::connections`] ends the connection with them. What else is held, such as
//! a poll, is woken when its session ends.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::sleep;

use super::app::{App, Bearer};
use super::store::{access_token, session};
use super::token::PresentedToken;

/// How often the token of an open upload is looked up.
const LOOK: Duration = Duration::from_secs(2);

/// The longest body that is there at once, in bytes. Ten thousand agents have a poll open.
const SHORT: u64 = 64 * 1024;

/// Ends an upload with 401 when its token is not valid any more.
pub(crate) async fn end_with_token(app: &App, request: Request, next: Next) -> Response {
    let is_long = request.body().size_hint().exact().is_none_or(|length| length > SHORT);
    let token = PresentedToken::parse(Bearer::of(request.headers()).0.expose());
    match token.filter(|token| is_long && can_be_revoked(token)) {
        // In a box of its own: a poll that is held keeps no place for this.
        Some(token) => Box::pin(end_when_over(app, &token, next.run(request))).await,
        None => next.run(request).await,
    }
}

/// An answer, unless the token is over before. Both are waited for at once: an answer that waited
/// while the token is looked up would keep the place in the database's queue that the look-up
/// waits for.
async fn end_when_over(
    app: &App,
    token: &PresentedToken,
    answer: impl Future<Output = Response>,
) -> Response {
    tokio::select! {
        answer = answer => answer,
        () = until_over(app, token) => {
            let why = "this token was revoked or has expired\n";
            (StatusCode::UNAUTHORIZED, why).into_response()
        }
    }
}

/// Those of tasks last as long as their attempt: what a run leaves counts, whatever becomes of
/// its agent.
fn can_be_revoked(token: &PresentedToken) -> bool {
    token.id.starts_with("sess-") || token.id.starts_with("at-")
}

/// Waits until a token was revoked or has expired.
async fn until_over(app: &App, token: &PresentedToken) {
    loop {
        sleep(LOOK).await;
        // Of a database that does not answer, the request itself learns.
        if is_over(app, token).await.unwrap_or(false) {
            return;
        }
    }
}

async fn is_over(app: &App, token: &PresentedToken) -> sqlx::Result<bool> {
    let mut db = app.scheduler.store.read().await?;
    if token.id.starts_with("sess-") {
        let found = session::find(&mut db, &token.id).await?;
        return Ok(found.is_none_or(|session| session.end_reason.is_some()));
    }
    let found = access_token::find(&mut db, &token.id).await?;
    Ok(found.is_none_or(|token| token.is_expired(app.scheduler.clock.now())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::middleware::from_fn_with_state;
    use axum::routing::put;
    use futures_util::future::join_all;
    use tokio::time::timeout;
    use tower::ServiceExt as _;

    use super::*;
    use crate::in_process::InProcess;

    /// An upload that is answered after its token was looked up, and for which a connection to
    /// the database is needed at the time of that.
    async fn uploaded(State(app): State<App>) -> StatusCode {
        let _db = app.scheduler.store.read().await.unwrap();
        sleep(LOOK + LOOK / 4).await;
        StatusCode::OK
    }

    async fn end(State(app): State<App>, request: Request, next: Next) -> Response {
        end_with_token(&app, request, next).await
    }

    #[tokio::test]
    async fn uploads_that_have_a_connection_go_on_while_their_tokens_are_looked_up() {
        let server = InProcess::new().await;
        let agent = server.working().await;
        let routes = Router::new()
            .route("/", put(uploaded))
            .layer(from_fn_with_state(Arc::clone(&server.app), end))
            .with_state(Arc::clone(&server.app));
        let uploads = (0..16).map(|_| {
            let request =
                Request::put("/").header("authorization", format!("Bearer {}", agent.session));
            let body = vec![0; SHORT as usize + 1];
            routes.clone().oneshot(request.body(Body::from(body)).unwrap())
        });
        let answers = timeout(10 * LOOK, join_all(uploads)).await.unwrap();
        for answer in answers {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    }
}

//! Uploads that go on after their token was revoked or has expired: one takes up to 15 minutes.
//! They end, and [`super::connections`] ends the connection with them. What else is held, such as
//! a poll, is woken when its session ends.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::pin;
use tokio::time::sleep;

use super::app::{App, Bearer};
use super::store::{access_token, session};
use super::token::PresentedToken;

/// How often the token of an open upload is looked up.
const LOOK: Duration = Duration::from_secs(2);

/// The longest body that is there at once, in bytes. Ten thousand agents have a poll open.
const SHORT: u64 = 64 * 1024;

/// Ends an upload with 401 when its token is not valid any more.
pub(crate) async fn end_with_token(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let is_long = request.body().size_hint().exact().is_none_or(|length| length > SHORT);
    let token = PresentedToken::parse(Bearer::of(request.headers()).0.expose());
    let answer = next.run(request);
    let Some(token) = token.filter(|_| is_long) else { return answer.await };
    pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep(LOOK) => {
                // Of a database that does not answer, the request itself learns.
                if is_over(&app, &token).await.unwrap_or(false) {
                    let why = "this token was revoked or has expired\n";
                    return (StatusCode::UNAUTHORIZED, why).into_response();
                }
            }
        }
    }
}

/// Whether a token is of a kind that can be revoked, and was. Those of tasks last as long as
/// their attempt: what a run leaves counts, whatever becomes of its agent.
async fn is_over(app: &App, token: &PresentedToken) -> sqlx::Result<bool> {
    let mut db = app.scheduler.store.read().await?;
    if token.id.starts_with("sess-") {
        let found = session::find(&mut db, &token.id).await?;
        return Ok(found.is_none_or(|session| session.end_reason.is_some()));
    }
    if !token.id.starts_with("at-") {
        return Ok(false);
    }
    let found = access_token::find(&mut db, &token.id).await?;
    Ok(found.is_none_or(|token| token.is_expired(app.scheduler.clock.now())))
}

//! Who may call: whoever has an admin's token.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use crate::api::json_api::ApiError;
use crate::api::pools::access;
use crate::app::{App, Bearer};
use crate::connections::authenticated;
use crate::store::access_token::AccessToken;
use crate::store::run_event::Actor;
use crate::token::PresentedToken;

/// Lets a request through if its token is an admin's.
pub(super) async fn check(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = Bearer::of(request.headers()).0;
    let shown = PresentedToken::parse(token.expose()).ok_or_else(ApiError::unauthorized)?;
    let admin = access::check_admin(&app, &shown).await?;
    authenticated(request.extensions());
    let actor = Actor::access_token(&admin.id, admin.name.as_deref());
    request.extensions_mut().insert(actor);
    request.extensions_mut().insert(Admin(admin));
    Ok(next.run(request).await)
}

/// The token of the admin who calls.
#[derive(Clone, Debug)]
pub(super) struct Admin(pub AccessToken);

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::unauthorized)
    }
}

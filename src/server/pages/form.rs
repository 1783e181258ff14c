//! Forms that were sent. One without the token that its page had in it is refused: another
//! site made the browser send it.

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use url::form_urlencoded;

use super::cookie::Cookie;
use super::error::PageError;
use super::kept_form::{self, Reopened};
use super::session::{self, Session, form_token};
use crate::app::App;

/// How many fields a form has at most; the rest is left out.
const MAX_FIELDS: usize = 1000;

/// The field with the token.
pub(super) const TOKEN: &str = "form-token";

/// The form of somebody who is signed in.
#[derive(Debug)]
pub(super) struct Form {
    /// Who sent it.
    pub session: Session,
    /// What is in it.
    pub fields: Fields,
}

impl FromRequest<App> for Form {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &App) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        if let Some(Reopened { session, fields }) = parts.extensions.remove() {
            return Ok(Self { session, fields });
        }
        let session = match Session::from_request_parts(&mut parts, app).await {
            Err(PageError::SignIn { .. }) => {
                let is_kept = keep(Request::from_parts(parts, body), app).await?;
                let next = is_kept.then(|| kept_form::PATH.to_owned());
                return Err(PageError::SignIn { next });
            }
            session => session?,
        };
        let fields = Fields::of_form(Request::from_parts(parts, body), app, &session).await?;
        Ok(Self { session, fields })
    }
}

/// Keeps a form whose session has ended, for whoever signs in again; whether it does.
async fn keep(request: Request, app: &App) -> Result<bool, PageError> {
    let Some((session, token)) = session::presented(app, request.headers()).await? else {
        return Ok(false);
    };
    let (headers, path) = (request.headers().clone(), request.uri().path().to_owned());
    let fields = Fields::read(request, app).await?;
    fields.check(&headers, &form_token(token.expose()))?;
    Ok(app.kept_forms.keep(&session, path, fields.0))
}

/// The form of a visitor who is not signed in.
#[derive(Debug)]
pub(super) struct VisitorForm {
    /// The request's head.
    pub headers: HeaderMap,
    /// What is in it.
    pub fields: Fields,
}

impl FromRequest<App> for VisitorForm {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &App) -> Result<Self, PageError> {
        let headers = request.headers().clone();
        let fields = Fields::read(request, app).await?;
        let visitor = Cookie::Visitor.of(&headers, &app.url).ok_or(PageError::Forged)?;
        fields.check(&headers, &form_token(&visitor))?;
        Ok(Self { headers, fields })
    }
}

/// The fields of a form.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl From<Vec<(String, String)>> for Fields {
    fn from(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }
}

impl Fields {
    /// A field without the spaces around it; empty if it was not sent.
    pub(super) fn get(&self, name: &'static str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// A number as the API takes it; an empty field is null. What is no number stays a text,
    /// which the API refuses by the field's name.
    pub(super) fn number(&self, name: &'static str) -> Value {
        match self.get(name) {
            "" => Value::Null,
            text => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        }
    }

    /// A field as it was written, but for the line ends that browsers make of its own.
    pub(super) fn raw(&self, name: &str) -> String {
        let value = self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value);
        value.map_or_else(String::new, |value| value.replace("\r\n", "\n"))
    }

    /// All fields of a name: the boxes that are ticked.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.trim())
    }

    /// Whether a box is ticked.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// The fields of somebody who is signed in, with the token checked.
    pub(super) async fn of_form(
        request: Request,
        app: &App,
        session: &Session,
    ) -> Result<Self, PageError> {
        let headers = request.headers().clone();
        let fields = Self::read(request, app).await?;
        fields.check(&headers, &session.form_token)?;
        Ok(fields)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    async fn read(request: Request, app: &App) -> Result<Self, PageError> {
        let body = Bytes::from_request(request, app).await.map_err(PageError::Unread)?;
        Ok(Self(form_urlencoded::parse(&body).into_owned().take(MAX_FIELDS).collect()))
    }

    pub(super) fn check(&self, headers: &HeaderMap, token: &str) -> Result<(), PageError> {
        check(self.get(TOKEN), headers, token)
    }
}

/// Checks a request of a script, which has the token in the header `x-form-token`.
pub(super) fn check_header(session: &Session, headers: &HeaderMap) -> Result<(), PageError> {
    let sent = headers.get("x-form-token").and_then(|token| token.to_str().ok());
    check(sent.unwrap_or_default(), headers, &session.form_token)
}

/// Checks that a request comes from a page of this server: it has that page's token.
fn check(sent: &str, headers: &HeaderMap, token: &str) -> Result<(), PageError> {
    let is_own: bool = sent.as_bytes().ct_eq(token.as_bytes()).into();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_from_here = matches!(site, None | Some(b"same-origin" | b"none"));
    if is_own && is_from_here { Ok(()) } else { Err(PageError::Forged) }
}

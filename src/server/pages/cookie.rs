//! Cookies: those of a request, and new ones.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use url::Url;

/// A cookie of the pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cookie {
    /// The token of a session.
    Session,
    /// What forms are tied to that are sent before there is a session.
    Visitor,
    /// A message for the next page.
    Message,
}

impl Cookie {
    /// Its value in a request.
    pub(super) fn of(self, headers: &HeaderMap, url: &Url) -> Option<String> {
        let name = self.name(url);
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    }

    /// The header that sets it until the browser is closed. `value` has nothing but
    /// characters that a cookie may have.
    pub(super) fn set(self, value: &str, url: &Url) -> HeaderValue {
        self.header(value, "", url)
    }

    /// The header that removes it.
    pub(super) fn remove(self, url: &Url) -> HeaderValue {
        self.header("", "; Max-Age=0", url)
    }

    fn header(self, value: &str, lifetime: &str, url: &Url) -> HeaderValue {
        // Lax: a link in a chat opens its page.
        let same_site = match self {
            Self::Session | Self::Message => "Lax",
            Self::Visitor => "Strict",
        };
        let secure = if is_secure(url) { "; Secure" } else { "" };
        let name = self.name(url);
        let text =
            format!("{name}={value}; Path=/; HttpOnly; SameSite={same_site}{secure}{lifetime}");
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// With `__Host-`, browsers take the cookie from no other host of the same domain.
    fn name(self, url: &Url) -> &'static str {
        match (self, is_secure(url)) {
            (Self::Session, true) => "__Host-session",
            (Self::Session, false) => "session",
            (Self::Visitor, true) => "__Host-visitor",
            (Self::Visitor, false) => "visitor",
            (Self::Message, true) => "__Host-message",
            (Self::Message, false) => "message",
        }
    }
}

fn is_secure(url: &Url) -> bool {
    url.scheme() == "https"
}

//! `/oauth/authorize`: whether `terraform login` gets a token. The answer, a code that works
//! once, goes to the program that asks, on the browser's own computer and nowhere else.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;
use url::{Host, Url};

use super::address::Query;
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::headers;
use super::session::Session;
use crate::api::terraform::login::{AUTHORIZE, CLIENT};
use crate::app::App;
use crate::connections::Connection;
use crate::scheduler::millis;
use crate::store::login_code::{self, LoginCode};
use crate::token::{NewToken, new_id};

/// How long a code works. The program has it at once, and uses it at once.
const CODE: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<App> {
    Router::new().route(AUTHORIZE, get(ask).post(answer))
}

/// What a program asks for (RFC 6749, section 4.1.1, and RFC 7636, section 4.3).
struct LoginRequest {
    redirect_uri: Url,
    code_challenge: String,
    state: String,
}

impl LoginRequest {
    /// Reads it; `get` gives the parameter of a name, empty if it is missing. The text says why
    /// it is refused.
    fn read<'a>(get: impl Fn(&'static str) -> &'a str) -> Result<Self, &'static str> {
        if get("client_id") != CLIENT {
            return Err("Only terraform login gets a token here.");
        }
        let redirect_uri = loopback(get("redirect_uri"))
            .ok_or("The token would not go to a terraform login on this computer.")?;
        if get("response_type") != "code" {
            return Err("The request has no response_type=code.");
        }
        let challenge = get("code_challenge");
        let is_sha256 = challenge.len() == 43
            && challenge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if get("code_challenge_method") != "S256" || !is_sha256 {
            return Err("The request has no code challenge (PKCE) with the method S256.");
        }
        let (code_challenge, state) = (challenge.to_owned(), get("state").to_owned());
        Ok(Self { redirect_uri, code_challenge, state })
    }

    /// The fields that make a form ask for it again.
    fn fields(&self) -> [(&'static str, &str); 6] {
        [
            ("client_id", CLIENT),
            ("response_type", "code"),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_challenge_method", "S256"),
            ("code_challenge", &self.code_challenge),
            ("state", &self.state),
        ]
    }
}

/// The address of a program on the browser's own computer, as Terraform builds it.
fn loopback(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_here = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    // What it means to us is what it means to the browser: nothing was left out or rewritten.
    (is_here && url.scheme() == "http" && url.path() == "/login" && url.as_str() == text)
        .then_some(())?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_bare.then_some(url)
}

#[derive(Serialize)]
struct Consent<'a> {
    request: &'a [(&'static str, &'a str)],
    /// Where the program listens.
    program: &'a str,
    server: &'a str,
    token_name: &'a str,
    /// What is wrong with the name; empty: nothing.
    error: &'a str,
}

async fn ask(
    State(app): State<App>,
    connection: Option<Extension<Connection>>,
    session: Session,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let get = |name: &'static str| {
        let found = parameters.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    match LoginRequest::read(get) {
        Ok(request) => {
            let name = match connection {
                Some(Extension(connection)) => {
                    format!("terraform login on {}", connection.address().to_canonical())
                }
                None => "terraform login".to_owned(),
            };
            show(&app, &session, &request, &name, "")
        }
        Err(why) => Ok(refused(why)),
    }
}

fn show(
    app: &App,
    session: &Session,
    request: &LoginRequest,
    token_name: &str,
    error: &str,
) -> Result<Response, PageError> {
    let origin = request.redirect_uri.origin().ascii_serialization();
    let content = Consent {
        request: &request.fields(),
        program: origin.trim_start_matches("http://"),
        server: app.url.as_str().trim_end_matches('/'),
        token_name,
        error,
    };
    let page = Page {
        template: "login-consent.html",
        title: "Log Terraform in",
        section: "account",
        topics: &[],
    };
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let mut answer = page.show_with(status, app, session, &content)?;
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, headers::with_form_to(&origin));
    Ok(answer)
}

async fn answer(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let request = match LoginRequest::read(|name| fields.get(name)) {
        Ok(request) => request,
        Err(why) => return Ok(refused(why)),
    };
    if fields.get("decision") != "allow" {
        // Terraform answers an error with an empty page, and waits on: the person ends it.
        let text = "No token was made. Press Ctrl-C where terraform login waits.";
        return Ok(frame::plain(StatusCode::OK, "Denied", text));
    }
    let name = fields.get("token-name");
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return show(&app, &session, &request, name, "A name has 1 to 255 printable characters.");
    }
    allow(&app, &session, &request, name).await
}

/// Sends the browser to the program, with a code.
async fn allow(
    app: &App,
    session: &Session,
    request: &LoginRequest,
    token_name: &str,
) -> Result<Response, PageError> {
    let now = app.scheduler.clock.now();
    let id = new_id("code");
    let issued = NewToken::new(&id);
    let code = LoginCode {
        id,
        page_session_id: session.id.clone(),
        secret_hash: issued.secret_hash,
        code_challenge: request.code_challenge.clone(),
        redirect_uri: request.redirect_uri.to_string(),
        token_name: token_name.to_owned(),
        expires_at: now + millis(CODE),
    };
    let mut tx = app.scheduler.store.write().await?;
    login_code::insert(&mut tx, &code, now).await?;
    tx.commit().await?;
    let mut program = request.redirect_uri.clone();
    program
        .query_pairs_mut()
        .append_pair("code", issued.token.expose())
        .append_pair("state", &request.state);
    Ok(Redirect::to(program.as_str()).into_response())
}

fn refused(why: &str) -> Response {
    let text = format!("{why} No token was made.");
    frame::plain(StatusCode::BAD_REQUEST, "Login refused", &text)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;
    use url::form_urlencoded::Serializer;

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    // The example of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const PROGRAM: &str = "http://localhost:10003/login";

    const REQUEST: [(&str, &str); 6] = [
        ("client_id", "terraform-cli"),
        ("response_type", "code"),
        ("redirect_uri", PROGRAM),
        ("code_challenge_method", "S256"),
        ("code_challenge", CHALLENGE),
        ("state", "a state & more"),
    ];

    fn encode(fields: &[(&str, &str)]) -> String {
        Serializer::new(String::new()).extend_pairs(fields).finish()
    }

    /// The request with another value of one parameter.
    fn with(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let other = |(found, old)| (found, if found == name { value } else { old });
        REQUEST.into_iter().map(other).collect()
    }

    async fn allow(browser: &Browser<'_>) -> String {
        let decision = [("decision", "allow"), ("token-name", "laptop")];
        let fields = [&REQUEST[..], &decision[..]].concat();
        let (status, location) = browser.post_for_location(AUTHORIZE, &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let location = Url::parse(&location.unwrap()).unwrap();
        assert!(location.as_str().starts_with(PROGRAM), "{location}");
        let value = |name| location.query_pairs().find(|(found, _)| found == name).unwrap().1;
        assert_eq!(value("state"), "a state & more");
        value("code").into_owned()
    }

    async fn exchange(server: &InProcess, code: &str, other: &[(&str, &str)]) -> (u16, Value) {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("client_id", "terraform-cli"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", PROGRAM),
        ];
        for (name, value) in other {
            fields.retain(|(found, _)| found != name);
            fields.push((name, value));
        }
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let (status, body) =
            server.call(Method::POST, "/oauth/token", "", &headers, encode(&fields)).await;
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_code_is_exchanged_once_for_an_admins_token() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let html = browser.page(&format!("{AUTHORIZE}?{}", encode(&REQUEST))).await;
        assert!(html.contains("localhost:10003") && html.contains("pools.example.com"), "{html}");
        let code = allow(&browser).await;
        let (status, made) = exchange(&server, &code, &[]).await;
        assert_eq!((status, &made["token_type"]), (200, &"bearer".into()), "{made}");
        let token = made["access_token"].as_str().unwrap();
        let path = "/api/iacp/v3/access-tokens";
        let (status, listed) = server.call(Method::GET, path, token, &[], "").await;
        assert_eq!(status, StatusCode::OK);
        assert!(String::from_utf8_lossy(&listed).contains("\"laptop\""));
        let (status, again) = exchange(&server, &code, &[]).await;
        assert_eq!((status, &again["error"]), (400, &"invalid_grant".into()));
    }

    #[tokio::test]
    async fn a_code_is_for_the_program_that_asked_and_ends_with_a_wrong_attempt() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        for wrong in [
            ("code_verifier", CHALLENGE),
            ("code_verifier", ""),
            ("client_id", "another"),
            ("redirect_uri", "http://localhost:10004/login"),
        ] {
            let code = allow(&browser).await;
            let (status, refused) = exchange(&server, &code, &[wrong]).await;
            assert_eq!((status, &refused["error"]), (400, &"invalid_grant".into()), "{wrong:?}");
            assert_eq!(exchange(&server, &code, &[]).await.0, 400, "{wrong:?}: it still works");
        }
        let code = allow(&browser).await;
        let (_, refused) = exchange(&server, &code, &[("grant_type", "password")]).await;
        assert_eq!(refused["error"], "unsupported_grant_type");
        let id = code.split_once('.').unwrap().0;
        assert_eq!(exchange(&server, &format!("{id}.0000"), &[]).await.0, 400);
        assert_eq!(exchange(&server, &code, &[]).await.0, 200, "guesses do not end a code");
    }

    #[tokio::test]
    async fn a_code_ends_after_a_minute_and_with_the_session_of_its_browser() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let browser = Browser::new(&server).await;
        let code = allow(&browser).await;
        server.app.scheduler.clock.advance(CODE);
        assert_eq!(exchange(&server, &code, &[]).await.0, 400);
        let code = allow(&browser).await;
        browser.post("/sign-out", &[]).await;
        assert_eq!(exchange(&server, &code, &[]).await.0, 400);
    }

    #[tokio::test]
    async fn only_a_program_on_the_browsers_computer_gets_a_code() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        for wrong in [
            with("client_id", "another"),
            with("response_type", "token"),
            with("code_challenge_method", "plain"),
            with("code_challenge", ""),
            with("code_challenge", "short"),
            with("redirect_uri", ""),
            with("redirect_uri", "https://localhost:10003/login"),
            with("redirect_uri", "http://localhost.evil.example:10003/login"),
            with("redirect_uri", "http://localhost@evil.example/login"),
            with("redirect_uri", "http://evil.example/login"),
            with("redirect_uri", "http://localhost:10003/other"),
            with("redirect_uri", "http://localhost:10003/login?a=b"),
            with("redirect_uri", "http://localhost:10003/login#a"),
            with("redirect_uri", "http://192.0.2.1:10003/login"),
            with("redirect_uri", "javascript:alert(1)"),
        ] {
            let (status, html) = browser.get(&format!("{AUTHORIZE}?{}", encode(&wrong))).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong:?}");
            assert!(html.contains("No token was made."), "{html}");
            let fields = [&wrong[..], &[("decision", "allow"), ("token-name", "x")]].concat();
            let (status, location) = browser.post_for_location(AUTHORIZE, &fields).await;
            assert_eq!((status, location), (StatusCode::BAD_REQUEST, None), "{wrong:?}");
        }
        let denied = [&REQUEST[..], &[("decision", "deny")]].concat();
        let (status, location) = browser.post_for_location(AUTHORIZE, &denied).await;
        assert_eq!((status, location), (StatusCode::OK, None));
    }

    #[tokio::test]
    async fn only_a_form_of_somebody_who_is_signed_in_gets_a_code() {
        let server = InProcess::new().await;
        let path = format!("{AUTHORIZE}?{}", encode(&REQUEST));
        let (status, _) = server.call(Method::GET, &path, "", &[], "").await;
        assert_eq!(status, StatusCode::SEE_OTHER, "to sign in");
        let (status, _) = server.call(Method::GET, &path, &server.admin, &[], "").await;
        assert_eq!(status, StatusCode::SEE_OTHER, "a token is no session");
        let browser = Browser::new(&server).await;
        let fields = [&REQUEST[..], &[("decision", "allow"), ("token-name", "x")]].concat();
        let (status, _) = browser.send(Method::POST, AUTHORIZE, encode(&fields)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "no form token");
    }
}

//! What agents are installed from: the install script, the definitions of the
//! package repositories, and the repositories themselves.

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tera::{Context, Tera};
use tower_http::services::ServeDir;
use url::Url;

use super::app::App;

const INSTALL: &str = include_str!("../../scripts/install.sh");
const SOURCES: &str = include_str!("../../templates/repository/scalr-agent.sources.tera");
const REPO: &str = include_str!("../../templates/repository/scalr-agent.repo.tera");

/// The line of the install script that the server's URL is put into.
const URL_LINE: &str = "SERVER_URL=\"\"";

/// `/install.sh` and `/packages`.
pub fn routes(app: &App) -> Router<App> {
    let routes = Router::new()
        .route("/install.sh", get(install_script))
        .route("/packages/scalr-agent.sources", get(sources))
        .route("/packages/scalr-agent.repo", get(repo));
    match &app.packages {
        Some(folder) => routes.nest_service("/packages", ServeDir::new(folder)),
        None => routes.route("/packages/{*path}", get(no_packages)),
    }
}

async fn install_script(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], fill_in_url(INSTALL, &app.url))
}

async fn sources(State(app): State<App>) -> Result<Response, StatusCode> {
    definition(SOURCES, &app)
}

async fn repo(State(app): State<App>) -> Result<Response, StatusCode> {
    definition(REPO, &app)
}

async fn no_packages(uri: Uri) -> impl IntoResponse {
    let text =
        format!("There is no {}: this server was started without --packages DIR.\n", uri.path());
    (StatusCode::NOT_FOUND, text)
}

fn definition(template: &'static str, app: &App) -> Result<Response, StatusCode> {
    match render(template, &app.link("")) {
        Ok(text) => Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()),
        Err(error) => {
            tracing::error!("cannot render a repository's definition: {error}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn render(template: &str, url: &str) -> tera::TeraResult<String> {
    let mut context = Context::new();
    context.insert("url", url);
    Tera::one_off(template, &context, false)
}

/// The script with the server's URL in its marked line. A URL has none of the
/// characters that mean something between single quotes.
fn fill_in_url(script: &str, url: &Url) -> String {
    let url = url.as_str().trim_end_matches('/').replace('\'', "%27");
    script.replacen(URL_LINE, &format!("SERVER_URL='{url}'"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_script_gets_the_url() {
        let url = Url::parse("https://pools.example.com:8443").unwrap();
        let script = fill_in_url(INSTALL, &url);
        assert!(script.contains("\nSERVER_URL='https://pools.example.com:8443'\n"), "{script}");
        assert_eq!(script.matches("SERVER_URL=").count(), INSTALL.matches("SERVER_URL=").count());
    }

    #[test]
    fn definitions_name_repository_and_key() {
        for (template, repository) in [(SOURCES, "/packages/apt"), (REPO, "/packages/yum")] {
            let text = render(template, "https://pools.example.com").unwrap();
            assert!(text.contains(&format!("https://pools.example.com{repository}")), "{text}");
            assert!(text.contains("scalr-agent.asc"), "{text}");
        }
    }
}

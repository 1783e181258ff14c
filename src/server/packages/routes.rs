//! `/install.sh`, `/ca.pem` and `/packages`.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, get_service};
use sha2::{Digest as _, Sha256};
use tera::{Context, Tera};
use tower_http::services::ServeDir;
use url::Url;

use super::trust::Pins;
use crate::app::App;

const INSTALL: &str = include_str!("../../../scripts/install.sh");
const SOURCES: &str = include_str!("../../../templates/repository/scalr-agent.sources.tera");
const REPO: &str = include_str!("../../../templates/repository/scalr-agent.repo.tera");

/// What package tools call the repository.
const ID: &str = "scalr-agent";

/// Where apt is to find the key; it can't fetch one.
const APT_KEY: &str = "/usr/share/keyrings/scalr-agent.asc";

/// The folder of the rpms of Enterprise Linux 7, which not every repository has.
const EL7: &str = "yum-el7";

/// The line of the install script that the server's URL is put into.
const URL_LINE: &str = "SERVER_URL=\"\"";

/// The line of the install script that the SHA-256 of the key's file is put into.
const KEY_LINE: &str = "KEY_SHA256=\"\"";

/// The line of the install script that the SHA-256 of each setup program is put into.
const SETUP_LINE: &str = "SETUP_SHA256=\"\"";

/// The install script of a server whose packages are not what it trusts. It is a script: what
/// `curl | sh` does with an error ends well, and says nothing.
const REFUSAL: &str = "\
#!/bin/sh
echo 'install.sh: the server refuses to install: its packages are not signed with the key that it trusts
  The log of the server says which file it is, and what to do.' >&2
exit 9
";

/// All of them.
pub(crate) fn routes(app: &App) -> Router<App> {
    let routes = Router::new()
        .route("/install.sh", get(install_script))
        .route("/ca.pem", get(authority))
        .route("/packages/scalr-agent.sources", get(sources))
        .route("/packages/scalr-agent.repo", get(repo))
        .route("/packages/scalr-agent-el7.repo", get(el7_repo));
    match &app.packages {
        Some(packages) => {
            let files = get_service(ServeDir::new(&packages.folder)).layer(from_fn(cache_control));
            routes.route("/packages/scalr-agent.asc", get(key)).nest_service("/packages", files)
        }
        None => routes.route("/packages/{*path}", get(no_packages)),
    }
}

/// How long a cache on the way may keep a file, in seconds: as long as one stays
/// that no index names any more.
const A_WEEK: &str = "max-age=604800";

/// A cache on the way may keep what has the same content for ever. It has to ask
/// again for an index: one that is older than its signature is a wrong one.
async fn cache_control(request: Request, next: Next) -> Response {
    let is_final = is_final(request.uri().path());
    let mut answer = next.run(request).await;
    let value = if is_final && answer.status().is_success() { A_WEEK } else { "no-cache" };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(value));
    answer
}

/// Whether what is at this path below `/packages` never becomes another.
fn is_final(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.contains("/by-hash/")
        || path.ends_with(".deb")
        || path.ends_with(".rpm")
        || ((path.starts_with("/yum/repodata/") || path.starts_with("/yum-el7/repodata/"))
            && !name.starts_with("repomd.xml"))
}

/// The script knows this server, its setup programs and the key of its packages, so
/// that it installs no others, whatever the packages' folder, a cache or a mirror holds.
async fn install_script(State(app): State<App>) -> impl IntoResponse {
    let pins = match &app.packages {
        Some(packages) => packages.pins().await,
        None => Ok(Pins::default()),
    };
    let script = pins.map_or_else(|_| REFUSAL.to_owned(), |pins| fill_in(INSTALL, &app.url, &pins));
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], script)
}

/// The trusted key, not the one that lies beside the packages.
async fn key(State(app): State<App>) -> Response {
    let key = match &app.packages {
        Some(packages) => packages.key().await.ok(),
        None => None,
    };
    match key {
        Some(key) => {
            let headers = [(CONTENT_TYPE, "application/pgp-keys"), (CACHE_CONTROL, "no-cache")];
            (headers, key).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The SHA-256 of the file with the key of the packages, if there is one.
pub(crate) fn key_sha256(app: &App) -> Option<String> {
    app.packages.as_ref()?.key_sha256()
}

/// The SHA-256 of what `/ca.pem` answers.
pub(crate) fn authority_sha256(app: &App) -> Option<String> {
    app.authority.as_ref().map(|pem| hex::encode(Sha256::digest(pem)))
}

/// The authority that hosts have to trust before they trust this answer: whoever fetches it
/// compares its SHA-256 with what the server printed.
async fn authority(State(app): State<App>) -> Response {
    match &app.authority {
        Some(pem) => ([(CONTENT_TYPE, "application/x-pem-file")], pem.clone()).into_response(),
        None => {
            let text = "This server has no certificate authority of its own.\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

async fn sources(State(app): State<App>) -> Result<Response, StatusCode> {
    definition(SOURCES, "apt", APT_KEY, &app)
}

async fn repo(State(app): State<App>) -> Result<Response, StatusCode> {
    definition(REPO, "yum", &app.link("/packages/scalr-agent.asc"), &app)
}

/// None where it would name what is not there, and break each later call of yum.
async fn el7_repo(State(app): State<App>) -> Result<Response, StatusCode> {
    if app.packages.as_ref().is_some_and(|packages| !packages.folder.join(EL7).is_dir()) {
        let text = "This server has no packages for Enterprise Linux 7. Where its packages are \
                    made: `scalr-agent-setup package --type rpm-el7`, then `scalr-agent-setup \
                    repository`.\n";
        return Ok((StatusCode::NOT_FOUND, text).into_response());
    }
    definition(REPO, EL7, &app.link("/packages/scalr-agent.asc"), &app)
}

async fn no_packages(uri: Uri) -> impl IntoResponse {
    let text =
        format!("There is no {}: this server was started without --packages DIR.\n", uri.path());
    (StatusCode::NOT_FOUND, text)
}

fn definition(template: &str, part: &str, key: &str, app: &App) -> Result<Response, StatusCode> {
    match render(template, &app.link("/packages"), part, key) {
        Ok(text) => Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()),
        Err(error) => {
            tracing::error!("cannot render a repository's definition: {error}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn render(template: &str, base: &str, part: &str, key: &str) -> tera::TeraResult<String> {
    let mut context = Context::new();
    // It is on the host, if it is anywhere.
    context.insert("ca_cert", "");
    for (name, value) in [("id", ID), ("base", base), ("part", part), ("key", key)] {
        context.insert(name, value);
    }
    Tera::one_off(template, &context, false)
}

/// The script with the server's URL and its pins in their marked lines. A URL has none
/// of the characters that mean something between single quotes.
fn fill_in(script: &str, url: &Url, pins: &Pins) -> String {
    let url = url.as_str().trim_end_matches('/').replace('\'', "%27");
    script
        .replacen(URL_LINE, &format!("SERVER_URL='{url}'"), 1)
        .replacen(KEY_LINE, &format!("KEY_SHA256='{}'", pins.key), 1)
        .replacen(SETUP_LINE, &format!("SETUP_SHA256='{}'", pins.setup), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_install_script_gets_the_url_and_the_sums_of_key_and_programs() {
        let url = Url::parse("https://pools.example.com:8443").unwrap();
        let pins = Pins { key: "ba78".to_owned(), setup: "aarch64:16bf".to_owned() };
        let script = fill_in(INSTALL, &url, &pins);
        for line in [
            "SERVER_URL='https://pools.example.com:8443'",
            "KEY_SHA256='ba78'",
            "SETUP_SHA256='aarch64:16bf'",
        ] {
            assert!(script.contains(&format!("\n{line}\n")), "{line}: {script}");
        }
        assert_eq!(script.lines().count(), INSTALL.lines().count());
    }

    #[test]
    fn an_index_is_asked_for_again() {
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for path in [
            "/apt/pool/main/s/scalr-agent/scalr-agent_0.1.0-1_amd64.deb",
            &format!("/apt/dists/stable/main/binary-amd64/by-hash/SHA256/{sum}"),
            &format!("/yum/repodata/{sum}-primary.xml.gz"),
            &format!("/yum-el7/repodata/{sum}-primary.xml.gz"),
        ] {
            assert!(is_final(path), "{path}");
        }
        for path in [
            "/apt/dists/stable/InRelease",
            "/apt/dists/stable/main/binary-amd64/Packages.gz",
            "/yum/repodata/repomd.xml",
            "/yum/repodata/repomd.xml.asc",
            "/yum-el7/repodata/repomd.xml",
            "/scalr-agent.asc",
            "/scalr-agent-setup-x86_64",
        ] {
            assert!(!is_final(path), "{path}");
        }
    }

    #[test]
    fn without_packages_there_is_nothing_to_compare() {
        let url = Url::parse("https://pools.example.com").unwrap();
        let script = fill_in(INSTALL, &url, &Pins::default());
        assert!(script.contains("\nKEY_SHA256=''\nSETUP_SHA256=''\n"), "{script}");
    }

    #[test]
    fn definitions_name_repository_and_key() {
        for (template, part) in [(SOURCES, "apt"), (REPO, "yum"), (REPO, EL7)] {
            let text = render(template, "https://pools.example.com/packages", part, "KEY").unwrap();
            let address = format!("https://pools.example.com/packages/{part}\n");
            assert!(text.contains(&address), "{text}");
            assert!(text.contains("KEY"), "{text}");
        }
    }
}

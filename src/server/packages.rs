//! What agents are installed from: the install script, the definitions of the
//! package repositories, and the repositories themselves.

use std::fs;
use std::path::Path;

use anyhow::Result;
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

use super::app::App;
use cli::Failure;

const INSTALL: &str = include_str!("../../scripts/install.sh");
const SOURCES: &str = include_str!("../../templates/repository/scalr-agent.sources.tera");
const REPO: &str = include_str!("../../templates/repository/scalr-agent.repo.tera");

/// What package tools call the repository.
const ID: &str = "scalr-agent";

/// Where apt is to find the key; it can't fetch one.
const APT_KEY: &str = "/usr/share/keyrings/scalr-agent.asc";

/// The folder of the rpms of Enterprise Linux 7, which not every repository has.
const EL7: &str = "yum-el7";

/// The public key that the packages are signed with, in their folder.
const KEY: &str = "scalr-agent.asc";

/// The line of the install script that the server's URL is put into.
const URL_LINE: &str = "SERVER_URL=\"\"";

/// The line of the install script that the SHA-256 of the key's file is put into.
const KEY_LINE: &str = "KEY_SHA256=\"\"";

/// The line of the install script that the SHA-256 of each setup program is put into.
const SETUP_LINE: &str = "SETUP_SHA256=\"\"";

/// The architectures of setup programs, as `uname -m` has them.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

/// `/install.sh`, `/ca.pem` and `/packages`.
pub(crate) fn routes(app: &App) -> Router<App> {
    let routes = Router::new()
        .route("/install.sh", get(install_script))
        .route("/ca.pem", get(authority))
        .route("/packages/scalr-agent.sources", get(sources))
        .route("/packages/scalr-agent.repo", get(repo))
        .route("/packages/scalr-agent-el7.repo", get(el7_repo));
    match &app.packages {
        Some(folder) => {
            let files = get_service(ServeDir::new(folder)).layer(from_fn(cache_control));
            routes.nest_service("/packages", files)
        }
        None => routes.route("/packages/{*path}", get(no_packages)),
    }
}

/// Refuses a folder that no host can install from.
///
/// # Errors
/// It is not there or can't be read, or `scalr-agent-setup repository` did not write it.
pub(crate) fn require_repository(folder: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Failure::Usage.because(format!(
            "cannot serve the packages in {} (--packages, SCALR_SERVER_PACKAGES): {why}",
            folder.display()
        ))
    };
    let entries = fs::read_dir(folder).map_err(|error| refuse(&error.to_string()))?;
    if folder.join(KEY).is_file() {
        return Ok(());
    }
    let has_packages = entries.filter_map(std::result::Result::ok).any(|entry| {
        let name = entry.file_name();
        [".deb", ".rpm"].iter().any(|end| name.to_string_lossy().ends_with(end))
    });
    let why = match has_packages {
        true => "it has packages, and no signed repository of them",
        false => "it is no signed repository",
    };
    Err(refuse(&format!(
        "{why}: there is no {KEY}\nMake one, and name that folder: scalr-agent-setup repository \
         --packages DIR --key KEY --output OTHER-DIR"
    )))
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
/// that it installs no others, whatever a cache or a mirror on the way holds.
async fn install_script(State(app): State<App>) -> impl IntoResponse {
    let pins = match &app.packages {
        Some(folder) => Pins::of(folder).await,
        None => Pins::default(),
    };
    let script = fill_in(INSTALL, &app.url, &pins);
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], script)
}

/// What the install script compares with, in hexadecimal; empty where there is none.
#[derive(Default)]
struct Pins {
    /// The SHA-256 of the key's file.
    key: String,
    /// Words, each an architecture and the SHA-256 of its setup program.
    setup: String,
}

impl Pins {
    /// Read each time: the folder may be replaced while the server runs.
    async fn of(folder: &Path) -> Self {
        let mut setup = Vec::new();
        for machine in MACHINES {
            let file = folder.join(format!("scalr-agent-setup-{machine}.sha256"));
            let line = tokio::fs::read_to_string(file).await.unwrap_or_default();
            setup.extend(checksum(&line).map(|sum| format!("{machine}:{sum}")));
        }
        let key = sum_of_key(folder).await.unwrap_or_default();
        Self { key, setup: setup.join(" ") }
    }
}

/// The SHA-256 in a line of `sha256sum`: nothing else gets into a script.
fn checksum(line: &str) -> Option<&str> {
    let sum = line.split_whitespace().next()?;
    (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(sum)
}

/// The SHA-256 of the file with the key of the packages, if there is one.
pub(crate) async fn key_sha256(app: &App) -> Option<String> {
    sum_of_key(app.packages.as_ref()?).await
}

async fn sum_of_key(folder: &Path) -> Option<String> {
    let key = tokio::fs::read(folder.join(KEY)).await.ok()?;
    Some(hex::encode(Sha256::digest(key)))
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
    if app.packages.as_ref().is_some_and(|folder| !folder.join(EL7).is_dir()) {
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

    #[tokio::test]
    async fn the_install_script_gets_the_url_and_the_sums_of_key_and_programs() {
        // The SHA-256 of "abc" (FIPS 180-2, B.1).
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(KEY), "abc").unwrap();
        let file = folder.path().join("scalr-agent-setup-aarch64.sha256");
        std::fs::write(file, format!("{sum}  scalr-agent-setup-aarch64\n")).unwrap();
        let url = Url::parse("https://pools.example.com:8443").unwrap();
        let script = fill_in(INSTALL, &url, &Pins::of(folder.path()).await);
        for line in [
            "SERVER_URL='https://pools.example.com:8443'",
            &format!("KEY_SHA256='{sum}'"),
            &format!("SETUP_SHA256='aarch64:{sum}'"),
        ] {
            assert!(script.contains(&format!("\n{line}\n")), "{line}: {script}");
        }
        assert_eq!(script.lines().count(), INSTALL.lines().count());
    }

    #[test]
    fn only_a_checksum_gets_into_the_install_script() {
        for line in ["", "abc  x", &"'; reboot #".repeat(8), &"g".repeat(64)] {
            assert_eq!(checksum(line), None, "{line}");
        }
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

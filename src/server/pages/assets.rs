//! Stylesheet, scripts and icon. Their addresses have a hash of their content, so browsers may
//! keep them for ever.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};
use tera::{Function, Kwargs, State, TeraResult};

use super::address::Path;
use super::error::PageError;
use super::palette;
use crate::app::App;

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        Asset::new("icon.svg", SVG, include_str!("../../../templates/pages/assets/icon.svg")),
        Asset::new("palette.css", CSS, palette::style_sheet()),
        Asset::new("runs.css", CSS, include_str!("../../../templates/pages/assets/runs.css")),
        Asset::new(
            "state-bad.svg",
            SVG,
            include_str!("../../../templates/pages/assets/state-bad.svg"),
        ),
        Asset::new(
            "state-busy.svg",
            SVG,
            include_str!("../../../templates/pages/assets/state-busy.svg"),
        ),
        Asset::new(
            "state-good.svg",
            SVG,
            include_str!("../../../templates/pages/assets/state-good.svg"),
        ),
        Asset::new(
            "state-off.svg",
            SVG,
            include_str!("../../../templates/pages/assets/state-off.svg"),
        ),
        Asset::new(
            "state-waiting.svg",
            SVG,
            include_str!("../../../templates/pages/assets/state-waiting.svg"),
        ),
        Asset::new("style.css", CSS, include_str!("../../../templates/pages/assets/style.css")),
        Asset::new("copy.js", SCRIPT, include_str!("../../../templates/pages/assets/copy.js")),
        Asset::new("live.js", SCRIPT, include_str!("../../../templates/pages/assets/live.js")),
        Asset::new(
            "preview.js",
            SCRIPT,
            include_str!("../../../templates/pages/assets/preview.js"),
        ),
        Asset::new("keys.js", SCRIPT, include_str!("../../../templates/pages/assets/keys.js")),
        Asset::new("log.js", SCRIPT, include_str!("../../../templates/pages/assets/log.js")),
        Asset::new(
            "state-icon.js",
            SCRIPT,
            include_str!("../../../templates/pages/assets/state-icon.js"),
        ),
        Asset::new("time.js", SCRIPT, include_str!("../../../templates/pages/assets/time.js")),
        Asset::new("upload.js", SCRIPT, include_str!("../../../templates/pages/assets/upload.js")),
    ]
});

struct Asset {
    name: &'static str,
    /// The name with the hash.
    file: String,
    kind: &'static str,
    text: Cow<'static, str>,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let hash = hex::encode(&Sha256::digest(&*text)[..8]);
        let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
        Self { name, file: format!("{stem}-{hash}.{end}"), kind, text }
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/assets/{file}", get(asset))
}

async fn asset(Path(file): Path<String>) -> Result<Response, PageError> {
    let asset = ASSETS.iter().find(|asset| asset.file == file);
    let asset = asset.ok_or(PageError::NotFound("file"))?;
    let headers = [
        (CONTENT_TYPE, asset.kind),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, &*asset.text).into_response())
}

/// The function `asset`: the address of the asset `name`.
pub(super) struct Address;

impl Function<TeraResult<String>> for Address {
    fn call(&self, arguments: Kwargs, _: &State<'_>) -> TeraResult<String> {
        let name: &str = arguments.must_get("name")?;
        let asset = ASSETS.iter().find(|asset| asset.name == name);
        let asset =
            asset.ok_or_else(|| tera::Error::message(format!("there is no asset {name}")))?;
        Ok(format!("/assets/{}", asset.file))
    }
}

//! The server itself: what hosts need to know before they trust it.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::json;

use crate::api::json_api::{ApiError, Document};
use crate::app::App;
use crate::packages;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/server", get(read))
}

async fn read(State(app): State<App>) -> Result<Document, ApiError> {
    Ok(Document::of(json!({
        "type": "servers",
        "id": "server",
        "attributes": {
            "url": app.link(""),
            "version": env!("CARGO_PKG_VERSION"),
            "serves-packages": app.packages.is_some(),
            "ca-sha256": packages::authority_sha256(&app),
            "packages-key-sha256": packages::key_sha256(&app),
        },
    })))
}

//! The server itself: what hosts need to know before they trust it.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::calls::{About, Calls, Content};
use crate::api::json_api::{ApiError, Document, MEDIA_TYPE};
use crate::api::value_type::ValueType::{Flag, OrNull, Text};
use crate::api::value_type::properties;
use crate::app::App;
use crate::packages;

pub(super) fn calls() -> Calls {
    Calls::default().get(
        "/server",
        About::from("Read about the server")
            .answers(StatusCode::OK, Content::Other(MEDIA_TYPE, schema)),
        read,
    )
}

fn schema() -> Value {
    let attributes = properties(&[
        ("url", Text),
        ("version", Text),
        ("serves-packages", Flag),
        ("ca-sha256", OrNull(&Text)),
        ("packages-key-sha256", OrNull(&Text)),
    ]);
    json!({
        "type": "object",
        "required": ["data"],
        "properties": { "data": {
            "type": "object",
            "required": ["type", "id", "attributes"],
            "properties": {
                "type": { "const": "servers" },
                "id": { "const": "server" },
                "attributes": { "type": "object", "properties": attributes },
            },
        } },
    })
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

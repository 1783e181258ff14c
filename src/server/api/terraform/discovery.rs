//! Where Terraform finds the services of this server.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{BASE, login};
use crate::api::calls::{About, Calls, Content};
use crate::api::pools;

pub(super) fn calls() -> Calls {
    let about = About::from("Find the services of this server").answers(
        StatusCode::OK,
        Content::Other("application/json", || json!({ "type": "object" })),
    );
    Calls::default().get("/.well-known/terraform.json", about, services).without_token()
}

async fn services() -> Json<Value> {
    let terraform = format!("{BASE}/");
    Json(json!({
        "iacp.v3": format!("{}/", pools::BASE),
        "login.v1": login::service(),
        "state.v2": terraform,
        "tfe.v2": terraform,
        "tfe.v2.1": terraform,
        "tfe.v2.2": terraform,
    }))
}

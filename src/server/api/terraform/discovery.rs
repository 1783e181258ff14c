//! Where Terraform finds the services of this server.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{BASE, login};
use crate::api::pools;
use crate::app::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/.well-known/terraform.json", get(services))
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

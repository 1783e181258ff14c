//! Configuration versions: Terraform makes one for each run, and uploads its folder to it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::calls::{About, Calls, document_of};
use crate::api::json_api::{ApiError, Data, Document, MEDIA_TYPE, to_one};
use crate::api::pools::{Payload, configuration_versions, schema_of_attributes, workspaces};
use crate::app::App;
use crate::store::configuration_version::ConfigurationVersion;

pub(super) fn calls() -> Calls {
    Calls::default()
        .post(
            "/workspaces/{id}/configuration-versions",
            About::one(
                "Create a configuration version",
                StatusCode::CREATED,
                "configuration-versions",
            )
            .takes(MEDIA_TYPE, false, schema),
            create,
        )
        .get(
            "/configuration-versions/{id}",
            About::one("Read a configuration version", StatusCode::OK, "configuration-versions"),
            read,
        )
}

fn schema() -> Value {
    document_of(json!({
        "properties": { "attributes": {
            "type": "object",
            "properties": schema_of_attributes("configuration-versions", &["speculative"]),
        } },
    }))
}

/// Makes a configuration version. That its runs start only when they are asked for is what
/// Terraform wants anyway.
async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    Data(sent): Data<Payload>,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let workspace = workspaces::find(&mut tx, &id).await?;
    let is_speculative = sent.attribute("speculative")?.unwrap_or(false);
    let (version, link) =
        configuration_versions::insert(&app, &mut tx, workspace, is_speculative).await?;
    tx.commit().await?;
    let mut resource = render(&version);
    // The only time that it is shown.
    resource["attributes"]["upload-url"] = link.into();
    Ok(Document::created(resource))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&configuration_versions::find(&mut db, &id).await?)))
}

fn render(version: &ConfigurationVersion) -> Value {
    json!({
        "type": "configuration-versions",
        "id": version.id,
        "attributes": {
            "auto-queue-runs": false,
            "source": "tfe-api",
            "speculative": version.is_speculative,
            "status": match version {
                ConfigurationVersion { removed_at: Some(_), .. } => "archived",
                ConfigurationVersion { uploaded: true, .. } => "uploaded",
                _ => "pending",
            },
        },
        "relationships": { "workspace": to_one("workspaces", Some(&version.workspace_id)) },
    })
}

//! Outputs of states. A list leaves out the values of sensitive ones; one that is asked for
//! itself has its value.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::query::ListQuery;
use super::state_versions;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document};
use crate::api::pools::state_versions::{Output, outputs_of};
use crate::api::pools::workspaces;
use crate::app::App;
use crate::store::state_version::{self, StateVersion};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get(
            "/workspaces/{id}/current-state-version-outputs",
            About::page("List the outputs of a workspace", "state-version-outputs"),
            current,
        )
        .get(
            "/state-versions/{id}/outputs",
            About::page("List the outputs of a state version", "state-version-outputs"),
            list,
        )
        .get(
            "/state-version-outputs/{id}",
            About::one("Read an output", StatusCode::OK, "state-version-outputs"),
            read,
        )
}

async fn current(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    drop(db);
    match current {
        Some(version) => page(&app, &version, &query).await,
        None => Ok(Document::page(Vec::new(), 0, query.page)),
    }
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let version = state_versions::find(&app, &id).await?;
    page(&app, &version, &query).await
}

/// All outputs: Terraform does not ask for a second page.
async fn page(app: &App, version: &StateVersion, query: &ListQuery) -> Result<Document, ApiError> {
    let outputs = outputs_of(app, version).await?;
    let render = |(name, output): (&String, &Output)| render(version, name, output, false);
    let resources: Vec<Value> = outputs.iter().map(render).collect();
    let total = i64::try_from(resources.len()).unwrap_or(i64::MAX);
    Ok(Document::page(resources, total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let not_found = || ApiError::not_found("StateVersionOutput", &id);
    let (version, name) = id.split_once('.').ok_or_else(not_found)?;
    let name = hex::decode(name).ok().and_then(|name| String::from_utf8(name).ok());
    let name = name.ok_or_else(not_found)?;
    let version = state_versions::find(&app, version).await?;
    let output = outputs_of(&app, &version).await?.remove(&name).ok_or_else(not_found)?;
    Ok(Document::of(render(&version, &name, &output, true)))
}

fn render(version: &StateVersion, name: &str, output: &Output, is_shown: bool) -> Value {
    // The id says where the output is: it has no row of its own. Terraform accepts ids of
    // letters and digits only, but names of all languages.
    let id = format!("{}.{}", version.id, hex::encode(name));
    let value = if output.sensitive && !is_shown { Value::Null } else { output.value.clone() };
    json!({
        "type": "state-version-outputs",
        "id": id,
        "attributes": {
            "name": name,
            "sensitive": output.sensitive,
            "type": kind(&output.kind),
            "detailed-type": output.kind,
            "value": value,
        },
    })
}

/// What a type in a state is in short: `string`, `number`, `bool`, `array` or `object`.
fn kind(detailed: &Value) -> &str {
    match detailed {
        Value::String(kind) => kind,
        Value::Array(parts) => match parts.first().and_then(Value::as_str) {
            Some("list" | "set" | "tuple") => "array",
            _ => "object",
        },
        _ => "string",
    }
}

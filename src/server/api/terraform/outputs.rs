//! Outputs of states. A list leaves out the values of sensitive ones; one that is asked for
//! itself has its value.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::query::ListQuery;
use super::state_versions;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document, MEDIA_TYPE};
use crate::api::outputs::{Output, OutputsTurn};
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
    turn: OutputsTurn,
) -> Result<Response, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    drop(db);
    page(&app, current.as_ref(), &query, turn).await
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
    turn: OutputsTurn,
) -> Result<Response, ApiError> {
    let version = state_versions::find(&app, &id).await?;
    page(&app, Some(&version), &query, turn).await
}

/// All outputs: Terraform does not ask for a second page.
async fn page(
    app: &App,
    version: Option<&StateVersion>,
    query: &ListQuery,
    turn: OutputsTurn,
) -> Result<Response, ApiError> {
    let outputs = match version {
        Some(version) => turn.outputs_of(app, version).await?,
        None => BTreeMap::new(),
    };
    let of_version =
        |version| outputs.iter().map(move |(name, output)| render(version, name, output, false));
    let data: Vec<Resource<'_>> = version.into_iter().flat_map(of_version).collect();
    let total = i64::try_from(data.len()).unwrap_or(i64::MAX);
    let meta = Document::page(Vec::new(), total, query.page).body["meta"].take();
    turn.answer(MEDIA_TYPE, &Answer { data, meta: Some(meta) })
}

async fn read(
    State(app): State<App>,
    Path(id): Path<String>,
    turn: OutputsTurn,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::not_found("StateVersionOutput", &id);
    let (version, name) = id.split_once('.').ok_or_else(not_found)?;
    let name = hex::decode(name).ok().and_then(|name| String::from_utf8(name).ok());
    let name = name.ok_or_else(not_found)?;
    let version = state_versions::find(&app, version).await?;
    let output = turn.outputs_of(&app, &version).await?.remove(&name).ok_or_else(not_found)?;
    turn.answer(MEDIA_TYPE, &Answer { data: render(&version, &name, &output, true), meta: None })
}

#[derive(Serialize)]
struct Answer<T> {
    data: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
}

#[derive(Serialize)]
struct Resource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Attributes<'a> {
    name: &'a str,
    sensitive: bool,
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    detailed_type: &'a RawValue,
    value: Option<&'a RawValue>,
}

fn render<'a>(
    version: &StateVersion,
    name: &'a str,
    output: &'a Output,
    is_shown: bool,
) -> Resource<'a> {
    let attributes = Attributes {
        name,
        sensitive: output.sensitive,
        kind: kind(output.kind.get()),
        detailed_type: &output.kind,
        value: (!output.sensitive || is_shown).then_some(&output.value),
    };
    // The id says where the output is: it has no row of its own. Terraform accepts ids of
    // letters and digits only, but names of all languages.
    let id = format!("{}.{}", version.id, hex::encode(name));
    Resource { kind: "state-version-outputs", id, attributes }
}

/// What a type in a state is in short: `string`, `number`, `bool`, `array` or `object`.
fn kind(detailed: &str) -> Cow<'static, str> {
    if let Ok(kind) = serde_json::from_str::<String>(detailed) {
        return kind.into();
    }
    let Some(parts) = detailed.strip_prefix('[') else { return "string".into() };
    // Only the first part: there may be many.
    match serde_json::Deserializer::from_str(parts).into_iter::<String>().next() {
        Some(Ok(first)) if ["list", "set", "tuple"].contains(&first.as_str()) => "array".into(),
        _ => "object".into(),
    }
}

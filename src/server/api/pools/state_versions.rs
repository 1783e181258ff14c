//! State versions, and the outputs that stand in the current one.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::state_upload::StateUpload;
use super::{BASE, quotas, workspaces};
use crate::api::calls::{About, Calls, Content};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::api::outputs::OutputsTurn;
use crate::api::value_type::ValueType::{Anything, Flag, LongText, Object, OrNull};
use crate::app::App;
use crate::clock::rfc3339;
use crate::objects;
use crate::scheduler::{Error, NewState, Saved};
use crate::state_warnings;
use crate::store::Connection;
use crate::store::state_version::{self, StateVersion};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/state-versions", "List state versions", list)
        .post("/state-versions", "Upload a state", create)
        .get("/state-versions/{id}", "Read a state version", read)
        .get("/state-versions/{id}/download", download_about("Download a state"), download)
        .get(
            "/workspaces/{id}/current-state-version",
            "Read the current state version of a workspace",
            current,
        )
        .get("/workspaces/{id}/outputs", outputs_about(), outputs)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let listed = state_version::list(&mut db, query.filter("workspace"), query.view()).await?;
    let resources = listed.rows.iter().map(|version| render(&app, version)).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&app, &find(&mut db, &id).await?)))
}

async fn current(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    let current = current.ok_or_else(|| ApiError::not_found("StateVersion", "current"))?;
    Ok(Document::of(render(&app, &current)))
}

async fn create(State(app): State<App>, upload: StateUpload) -> Result<Document, ApiError> {
    let StateUpload { payload, state, md5 } = upload;
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::related(&mut db, &payload).await?;
    drop(db);
    quotas::check(&app, &workspace, state.length()).await?;
    let force = payload.attribute("force")?.unwrap_or(false);
    if payload.attribute::<String>("md5")?.is_some_and(|said| !said.eq_ignore_ascii_case(&md5)) {
        return Err(differs("md5"));
    }
    let saved = async {
        let state = NewState::read(state).await.map_err(of_state)?;
        check_claims(&payload, &state)?;
        app.scheduler.save_uploaded_state(&workspace.id, state, force).await.map_err(of_state)
    };
    match saved.await? {
        Saved::New(version) | Saved::Same(version) => {
            let mut resource = render(&app, &version);
            if let Some(reason) = &workspace.lock_reason {
                let text = format!("The workspace is locked: no run starts. {reason}");
                state_warnings::add(&mut resource, &text);
            }
            Ok(Document::created(resource))
        }
    }
}

/// How both APIs describe [`download`].
pub(in crate::api) fn download_about(summary: &'static str) -> About {
    About::from(summary)
        .answers(StatusCode::OK, Content::Other("application/json", || json!({ "type": "object" })))
}

/// The content of a state version.
pub(in crate::api) async fn download(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, &id).await?;
    drop(db);
    if let Some(removed_at) = version.removed_at {
        return Err(ApiError::gone(&format!("content of state version {id}"), removed_at));
    }
    let content = objects::answer(content(&app, &version)?)?;
    Ok(([(CONTENT_TYPE, "application/json")], content).into_response())
}

fn outputs_about() -> About {
    About::from("Read the outputs of a workspace").answers(
        StatusCode::OK,
        Content::Other("application/json", || {
            let output = Object(&[
                ("name", LongText),
                ("value", OrNull(&Anything)),
                ("type", Anything),
                ("sensitive", Flag),
            ]);
            json!({
                "type": "object",
                "required": ["data"],
                "properties": { "data": { "type": "array", "items": output.schema() } },
            })
        }),
    )
}

/// An output in an answer.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    value: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: &'a RawValue,
    sensitive: bool,
}

/// The outputs of the current state; a sensitive one without its value.
async fn outputs(
    State(app): State<App>,
    Path(id): Path<String>,
    turn: OutputsTurn,
) -> Result<Response, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    drop(db);
    let outputs = match current {
        Some(current) => turn.outputs_of(&app, &current).await?,
        None => BTreeMap::new(),
    };
    let data = outputs.iter().map(|(name, output)| Shown {
        name,
        value: (!output.sensitive).then_some(&output.value),
        kind: &output.kind,
        sensitive: output.sensitive,
    });
    let data: Vec<Shown<'_>> = data.collect();
    turn.answer("application/json", &BTreeMap::from([("data", data)]))
}

pub(in crate::api) async fn find(db: &mut Connection, id: &str) -> Result<StateVersion, ApiError> {
    state_version::find(db, id).await?.ok_or_else(|| ApiError::not_found("StateVersion", id))
}

/// The file with a state.
pub(in crate::api) fn content(app: &App, version: &StateVersion) -> Result<File, ApiError> {
    let key = objects::state(&version.workspace_id, &version.id);
    let content = app.scheduler.objects.get(&key)?;
    Ok(content.with_context(|| format!("the content of {} is gone", version.id))?)
}

/// Checks what the client says about a state against the state.
fn check_claims(payload: &Payload, state: &NewState) -> Result<(), ApiError> {
    if payload.attribute::<i64>("serial")?.is_some_and(|serial| serial != state.serial) {
        return Err(differs("serial"));
    }
    if payload.attribute::<String>("lineage")?.is_some_and(|lineage| lineage != state.lineage) {
        return Err(differs("lineage"));
    }
    Ok(())
}

fn differs(name: &str) -> ApiError {
    ApiError::attribute(name, "This differs from what stands in the state.")
}

fn of_state(error: Error) -> ApiError {
    match error {
        Error::Invalid(why) => ApiError::attribute("state", why),
        error => error.into(),
    }
}

/// The state versions with these ids.
pub(super) async fn load(
    app: &App,
    db: &mut Connection,
    ids: &[&str],
) -> Result<Vec<Value>, ApiError> {
    let versions = state_version::with_ids(db, ids).await?;
    Ok(versions.iter().map(|version| render(app, version)).collect())
}

fn render(app: &App, version: &StateVersion) -> Value {
    let download = format!("{BASE}/state-versions/{}/download", version.id);
    json!({
        "type": "state-versions",
        "id": version.id,
        "attributes": {
            "serial": version.serial,
            "lineage": version.lineage,
            "sha256": version.sha256,
            "size": version.size,
            "resource-count": version.resources,
            "created-at": rfc3339(version.created_at),
            "removed-at": version.removed_at.map(rfc3339),
            "warning": state_warnings::warning(app, version.size),
        },
        "relationships": {
            "workspace": to_one("workspaces", Some(&version.workspace_id)),
            "run": to_one("runs", version.run_id.as_deref()),
        },
        "links": { "download": app.link(&download) },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_state_with_malformed_outputs_is_kept_and_they_are_refused() {
        let server = InProcess::new().await;
        let state = json!({ "version": 4, "serial": 1, "lineage": "x", "outputs": { "a": 1 } });
        let state = STANDARD.encode(state.to_string());
        let related = [("workspace", server.workspace.as_str())];
        server.create("/state-versions", json!({ "state": state }), &related).await;
        let path = format!("/api/iacp/v3/workspaces/{}/outputs", server.workspace);
        let (status, answer) = server.call(Method::GET, &path, &server.admin, &[], "").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    }

    #[tokio::test]
    async fn outputs_of_more_than_four_mebibytes_are_refused_and_large_resources_are_not() {
        let server = InProcess::new().await;
        let long = "x".repeat(5 * 1024 * 1024);
        let digits: serde_json::Value = serde_json::from_str("1e300").unwrap();
        let resources = json!([{ "mode": "managed", "instances": [{ "x": &long, "n": digits }] }]);
        let small = json!({ "a": { "type": "string", "value": "v" } });
        let large = json!({ "a": { "type": "string", "value": &long } });
        let path = format!("/api/iacp/v3/workspaces/{}/outputs", server.workspace);
        for (serial, outputs, wanted) in
            [(1, small, StatusCode::OK), (2, large, StatusCode::UNPROCESSABLE_ENTITY)]
        {
            let state = json!({
                "version": 4, "serial": serial, "lineage": "x",
                "resources": &resources, "outputs": outputs, "check_results": &long,
            });
            let state = STANDARD.encode(state.to_string());
            let related = [("workspace", server.workspace.as_str())];
            server.create("/state-versions", json!({ "state": state }), &related).await;
            let (status, answer) = server.call(Method::GET, &path, &server.admin, &[], "").await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(status, wanted, "{answer}");
            let names_limit = answer.contains("more than 4194304 bytes");
            assert_eq!(names_limit, wanted != StatusCode::OK, "{answer}");
        }
    }
}

//! Run triggers: an applied run of the upstream workspace starts one of the downstream workspace.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::run_trigger::{self, RunTrigger};
use crate::store::{Connection, is_taken, workspace};
use crate::token::new_id;

pub(super) fn calls() -> Calls {
    Calls::default()
        .post("/run-triggers", "Create a run trigger", create)
        .get("/run-triggers/{id}", "Read a run trigger", read)
        .delete("/run-triggers/{id}", "Delete a run trigger", delete)
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let trigger = RunTrigger {
        id: new_id("rt"),
        upstream_id: related(&mut tx, &payload, "upstream").await?,
        downstream_id: related(&mut tx, &payload, "downstream").await?,
        created_at: app.scheduler.clock.now(),
    };
    if run_trigger::leads_to(&mut tx, &trigger.downstream_id, &trigger.upstream_id).await? {
        return Err(ApiError::relationship(
            "downstream",
            "A run of the downstream workspace leads to one of the upstream workspace: the two \
             would start each other's runs without an end.",
        ));
    }
    run_trigger::insert(&mut tx, &trigger).await.map_err(|error| match is_taken(&error) {
        true => ApiError::relationship("downstream", "There is such a trigger already."),
        false => error.into(),
    })?;
    tx.commit().await?;
    Ok(Document::created(render(&trigger)))
}

async fn related(db: &mut Connection, payload: &Payload, name: &str) -> Result<String, ApiError> {
    let id = payload.required_to_one(name)?;
    match workspace::find(db, &id).await? {
        Some(_) => Ok(id),
        None => Err(ApiError::no_related(name, "Workspace", &id)),
    }
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    run_trigger::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(db: &mut Connection, id: &str) -> Result<RunTrigger, ApiError> {
    run_trigger::find(db, id).await?.ok_or_else(|| ApiError::not_found("RunTrigger", id))
}

fn render(trigger: &RunTrigger) -> Value {
    json!({
        "type": "run-triggers",
        "id": trigger.id,
        "attributes": { "created-at": rfc3339(trigger.created_at) },
        "relationships": {
            "upstream": to_one("workspaces", Some(&trigger.upstream_id)),
            "downstream": to_one("workspaces", Some(&trigger.downstream_id)),
        },
    })
}

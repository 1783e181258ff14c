//! Rollback: an earlier state becomes the current one, as a new version with the next serial.

use std::fs::File;
use std::io::BufReader;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use struson::reader::{JsonReader as _, JsonStreamReader, ReaderSettings};
use struson::writer::{JsonStreamWriter, JsonWriter as _};

use super::access::Admin;
use super::state_versions::{self, render};
use crate::api::calls::{About, Calls, document_of, schema_named};
use crate::api::json_api::{ApiError, Data, Document, MEDIA_TYPE};
use crate::api::pools::{quotas, state_versions as pool_state_versions, workspaces};
use crate::app::App;
use crate::objects::Draft;
use crate::scheduler::{NewState, Saved, check_lock};
use crate::state_warnings;
use crate::store::state_version::{self, StateVersion};
use crate::store::workspace::Workspace;

pub(super) fn calls() -> Calls {
    Calls::default().patch(
        "/workspaces/{id}/state-versions",
        About::one(
            "Make an earlier state version the current one",
            StatusCode::CREATED,
            "state-versions",
        )
        .takes(MEDIA_TYPE, true, schema),
        roll_back,
    )
}

fn schema() -> Value {
    document_of(json!({
        "required": ["relationships"],
        "properties": { "relationships": {
            "type": "object",
            "required": ["rollback-state-version"],
            "properties": { "rollback-state-version": schema_named("to-one") },
        } },
    }))
}

#[derive(Debug, Default, Deserialize)]
struct Rollback {
    relationships: Relationships,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Relationships {
    rollback_state_version: Related,
}

#[derive(Debug, Default, Deserialize)]
struct Related {
    data: Id,
}

#[derive(Debug, Default, Deserialize)]
struct Id {
    id: String,
}

async fn roll_back(
    State(app): State<App>,
    Path(id): Path<String>,
    Admin(by): Admin,
    Data(sent): Data<Rollback>,
) -> Result<Document, ApiError> {
    let earlier = sent.relationships.rollback_state_version.data.id;
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &id).await?;
    drop(db);
    check_lock(&workspace, &by)?;
    // An upload that is not a version yet has an id, too.
    let earlier = state_versions::find(&app, &earlier).await.map_or(earlier, |found| found.id);
    let version = make_current(&app, &workspace, &earlier).await?;
    let mut resource = render(&app, &version);
    state_warnings::add(&mut resource, state_warnings::ROLLBACK);
    Ok(Document::created(resource))
}

/// Makes an earlier state version of a workspace its current one: a new version with the same
/// content and the next serial. Whoever calls it has looked at the workspace's lock.
///
/// # Errors
/// The workspace has no such version, its content is gone, a run applies, or the quota is full.
pub(crate) async fn make_current(
    app: &App,
    workspace: &Workspace,
    earlier: &str,
) -> Result<StateVersion, ApiError> {
    const NAME: &str = "rollback-state-version";
    let mut db = app.scheduler.store.read().await?;
    let version = state_version::find(&mut db, earlier).await?;
    let current = state_version::current(&mut db, &workspace.id).await?;
    drop(db);
    let version = version.filter(|version| version.workspace_id == workspace.id);
    let (version, current) =
        version.zip(current).ok_or_else(|| ApiError::no_related(NAME, "StateVersion", earlier))?;
    if let Some(removed_at) = version.removed_at {
        return Err(ApiError::gone(&format!("content of state version {earlier}"), removed_at));
    }
    let content = pool_state_versions::content(app, &version)?;
    let objects = &app.scheduler.objects;
    let draft = objects.draft(objects.max_state())?;
    let serial = current.serial + 1;
    let rewritten = tokio::task::spawn_blocking(move || with_serial(content, serial, draft));
    let rewritten = rewritten.await.map_err(anyhow::Error::from)?;
    let state = NewState::read(rewritten.context("cannot copy a state")?).await?;
    quotas::check(app, workspace, state.length()).await?;
    // Not if the lineage is the same: a state that comes in the meantime is not overwritten.
    let force = version.lineage != current.lineage;
    let (Saved::New(saved) | Saved::Same(saved)) =
        app.scheduler.save_uploaded_state(&workspace.id, state, force).await?;
    Ok(saved)
}

/// A copy of a state with another serial.
fn with_serial(content: File, serial: i64, mut draft: Draft) -> anyhow::Result<Draft> {
    // Terraform's numbers may have any number of digits.
    let settings = ReaderSettings { restrict_number_values: false, ..Default::default() };
    let mut old = JsonStreamReader::new_custom(BufReader::new(content), settings);
    let mut new = JsonStreamWriter::new(&mut draft);
    old.begin_object()?;
    new.begin_object()?;
    while old.has_next()? {
        let name = old.next_name_owned()?;
        new.name(&name)?;
        if name == "serial" {
            old.skip_value()?;
            new.number_value(serial)?;
        } else {
            old.transfer_to(&mut new)?;
        }
    }
    old.end_object()?;
    new.end_object()?;
    new.finish_document()?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;
    use crate::objects::MAX_OBJECT;
    use crate::store::workspace;

    #[tokio::test]
    async fn a_state_that_is_rolled_back_or_locked_says_so_in_the_answer() {
        let server = InProcess::new().await;
        let upload = async |serial: u32| {
            let state = json!({ "version": 4, "serial": serial, "lineage": "l", "outputs": {} });
            let state =
                base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state.to_string());
            let workspace = json!({ "type": "workspaces", "id": server.workspace });
            let document = json!({ "data": {
                "attributes": { "state": state },
                "relationships": { "workspace": { "data": workspace } },
            } });
            server.api(Method::POST, "/state-versions", document).await["data"].clone()
        };
        let first = upload(1).await;
        assert_eq!(first["attributes"]["warning"], Value::Null);
        upload(2).await;
        let earlier = json!({ "data": { "type": "state-versions", "id": first["id"] } });
        let document =
            json!({ "data": { "relationships": { "rollback-state-version": earlier } } });
        let path = format!("/api/v2/workspaces/{}/state-versions", server.workspace);
        let (_, answer) =
            server.call(Method::PATCH, &path, &server.admin, &[], document.to_string()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let warning = answer["data"]["attributes"]["warning"].as_str().unwrap();
        assert!(warning.contains("what was made since is not known to it"), "{answer}");

        let mut tx = server.app.scheduler.store.write().await.unwrap();
        workspace::set_lock(&mut tx, &server.workspace, Some("A migration."), None).await.unwrap();
        tx.commit().await.unwrap();
        let locked = upload(4).await;
        assert_eq!(
            locked["attributes"]["warning"],
            "The workspace is locked: no run starts. A migration."
        );
    }

    #[tokio::test]
    async fn a_state_with_numbers_of_any_size_can_be_copied() {
        let server = InProcess::new().await;
        let digits = "1".repeat(150);
        let mut old = tempfile::tempfile().unwrap();
        write!(old, r#"{{"serial":1,"outputs":{{"a":1e300,"b":{digits}}}}}"#).unwrap();
        std::io::Seek::rewind(&mut old).unwrap();
        let draft = server.app.scheduler.objects.draft(MAX_OBJECT).unwrap();
        let mut copy = String::new();
        let copied = with_serial(old, 7, draft).unwrap();
        copied.reader().unwrap().read_to_string(&mut copy).unwrap();
        assert_eq!(copy, format!(r#"{{"serial":7,"outputs":{{"a":1e300,"b":{digits}}}}}"#));
    }
}

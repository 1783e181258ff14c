//! States that are announced first, and then uploaded to a link of their own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{Extensions, StatusCode};
use md5::{Digest as _, Md5};
use serde_json::json;

use super::BASE;
use super::state_versions::{Claims, of_state, save};
use crate::api::calls::{About, Calls, binary};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::api::pools::{Payload, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::connections::{Owner, authenticated};
use crate::scheduler::{Error, NewState, millis};
use crate::store::state_upload::{self, StateUpload};
use crate::store::workspace::Workspace;
use crate::token::{NewToken, PresentedToken, new_id};
use crate::upload::{Limit, Upload};

/// How long an announced state can be uploaded.
const OPEN: Duration = Duration::from_secs(24 * 60 * 60);

/// The calls that need no token: their paths have a signature.
pub(super) fn calls() -> Calls {
    let about = |summary, details| {
        About::nothing(summary, StatusCode::OK).details(details).takes(
            "application/octet-stream",
            true,
            binary,
        )
    };
    let state = about(
        "Upload an announced state",
        "The path is that of a link, which the state version has when it is announced.",
    );
    let other_form = about(
        "Upload an announced state in its other form",
        "Terraform sends it, and nothing reads it. The path is that of a link, which the state \
         version has when it is announced.",
    );
    Calls::default().put("/state-uploads/{id}/{signature}", state, upload).put(
        "/state-uploads/{id}/{signature}/json",
        other_form,
        upload_json,
    )
}

/// Takes note of a state that is to come; the answer has its links.
pub(super) async fn announce(
    app: &App,
    workspace: &Workspace,
    payload: &Payload,
) -> Result<Document, ApiError> {
    let Claims { serial, lineage, md5, force } = Claims::of(payload)?;
    let id = new_id("sv");
    let issued = NewToken::new(&id);
    let upload = StateUpload {
        id,
        workspace_id: workspace.id.clone(),
        upload_hash: issued.secret_hash,
        serial,
        lineage,
        md5,
        force,
        created_at: app.scheduler.clock.now(),
        state_version_id: None,
    };
    let mut tx = app.scheduler.store.write().await?;
    let old = upload.created_at - millis(OPEN);
    state_upload::insert(&mut tx, &upload, old).await?;
    tx.commit().await?;
    let signature = issued.token.expose();
    let link = app.link(&format!("{BASE}/state-uploads/{}/{signature}", upload.id));
    Ok(Document::created(json!({
        "type": "state-versions",
        "id": upload.id,
        "attributes": {
            "created-at": rfc3339(upload.created_at),
            "hosted-state-upload-url": link,
            "hosted-json-state-upload-url": format!("{link}/json"),
            "serial": upload.serial,
            "status": "pending",
        },
        "relationships": { "workspace": to_one("workspaces", Some(&upload.workspace_id)) },
    })))
}

async fn upload(
    State(app): State<App>,
    Path((id, signature)): Path<(String, String)>,
    extensions: Extensions,
    content: Upload,
) -> Result<StatusCode, ApiError> {
    let announced = find(&app, &id, &signature).await?;
    authenticated(&extensions, Owner::Token(&id))?;
    let (max_state, parts) = (app.scheduler.objects.max_state(), Arc::clone(&app));
    let (draft, md5) = content
        .read(Limit::of(max_state), move |body| {
            let mut draft = parts.scheduler.objects.draft(max_state)?;
            let mut hashed = Hashed { inner: &mut draft, hash: Md5::new() };
            io::copy(body, &mut hashed).map_err(Error::from)?;
            let md5 = hex::encode(hashed.hash.finalize());
            Ok::<_, Error>((draft, md5))
        })
        .await?;
    let state = NewState::read(draft).await.map_err(of_state)?;
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &announced.workspace_id).await?;
    drop(db);
    let StateUpload { serial, lineage, md5: said, force, .. } = announced;
    let claims = Claims { serial, lineage, md5: said, force };
    let version = save(&app, &workspace, state, &md5, &claims).await?;
    let mut tx = app.scheduler.store.write().await?;
    state_upload::set_state_version(&mut tx, &id, &version.id).await?;
    tx.commit().await?;
    Ok(StatusCode::OK)
}

/// Terraform uploads its other form of a state, too, and nothing here reads it.
async fn upload_json(
    State(app): State<App>,
    Path((id, signature)): Path<(String, String)>,
    extensions: Extensions,
    content: Upload,
) -> Result<StatusCode, ApiError> {
    find(&app, &id, &signature).await?;
    authenticated(&extensions, Owner::Token(&id))?;
    content
        .read(Limit::of(app.scheduler.objects.max_state()), |body| {
            io::copy(body, &mut io::sink()).map_err(Error::from)?;
            Ok::<_, Error>(())
        })
        .await?;
    Ok(StatusCode::OK)
}

async fn find(app: &App, id: &str, signature: &str) -> Result<StateUpload, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let announced = state_upload::find(&mut db, id).await?;
    let shown = PresentedToken::parse(signature);
    let oldest = app.scheduler.clock.now() - millis(OPEN);
    announced
        .filter(|upload| upload.created_at >= oldest)
        .filter(|upload| shown.is_some_and(|shown| shown.matches(&upload.upload_hash)))
        .ok_or_else(|| ApiError::not_found("StateVersion", id))
}

/// A writer that hashes what it writes.
struct Hashed<W> {
    inner: W,
    hash: Md5,
}

impl<W: io::Write> io::Write for Hashed<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(content)?;
        self.hash.update(&content[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_state_can_be_uploaded_for_a_day_after_its_announcement() {
        const STATE: &str = r#"{"version": 4, "serial": 1, "lineage": "l-1"}"#;
        let clock = Clock::standing();
        let server = InProcess::with_clock(clock.clone()).await;
        let announce = async || {
            let path = format!("{BASE}/workspaces/{}/state-versions", server.workspace);
            let attributes =
                json!({ "serial": 1, "lineage": "l-1", "md5": hex::encode(Md5::digest(STATE)) });
            let body = json!({ "data": { "attributes": attributes } }).to_string();
            let (status, made) = server.call(Method::POST, &path, &server.admin, &[], body).await;
            let made: Value = serde_json::from_slice(&made).unwrap();
            assert_eq!(status, StatusCode::CREATED, "{made}");
            let link = made["data"]["attributes"]["hosted-state-upload-url"].as_str().unwrap();
            link[link.find(BASE).unwrap()..].to_owned()
        };
        for (age, status) in
            [(OPEN, StatusCode::OK), (OPEN + Duration::from_secs(1), StatusCode::NOT_FOUND)]
        {
            let link = announce().await;
            clock.advance(age);
            for path in [format!("{link}/json"), link] {
                let (answer, body) = server.call(Method::PUT, &path, "", &[], STATE).await;
                assert_eq!(answer, status, "{path}: {body:?}");
            }
        }
    }
}

//! Configuration versions, and the upload of their archives.

use std::io;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::{Extensions, StatusCode};
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{BASE, quotas, workspaces};
use crate::api::calls::{About, Calls, binary};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::connections::{Owner, authenticated};
use crate::objects::{self, Draft};
use crate::scheduler::Error;
use crate::store::Connection;
use crate::store::configuration_version::{self, ConfigurationVersion};
use crate::store::workspace::Workspace;
use crate::token::{NewToken, PresentedToken, new_id};
use crate::upload::Upload;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/configuration-versions", "List configuration versions", list)
        .post("/configuration-versions", "Create a configuration version", create)
        .get("/configuration-versions/{id}", "Read a configuration version", read)
}

/// The call that needs no token: its path has a signature.
pub(super) fn upload_call() -> Calls {
    Calls::default().put(
        "/configuration-versions/{id}/upload/{signature}",
        About::nothing("Upload the archive of a configuration version", StatusCode::OK)
            .details(
                "The path is that of the link `upload`, which the version has when it is made.",
            )
            .takes("application/octet-stream", true, binary),
        upload,
    )
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let listed =
        configuration_version::list(&mut db, query.filter("workspace"), query.view()).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let workspace = workspaces::related(&mut tx, &payload).await?;
    let is_speculative = payload.either("speculative", "is-dry")?.unwrap_or(false);
    let (version, link) = insert(&app, &mut tx, workspace, is_speculative).await?;
    tx.commit().await?;
    let mut resource = render(&version);
    // The only time that it is shown.
    resource["links"] = json!({ "upload": link });
    Ok(Document::created(resource))
}

/// Makes a configuration version, and the link that its archive is uploaded to.
pub(in crate::api) async fn insert(
    app: &App,
    tx: &mut Connection,
    workspace: Workspace,
    is_speculative: bool,
) -> Result<(ConfigurationVersion, String), ApiError> {
    let (version, link) = new_version(app, workspace, is_speculative);
    configuration_version::insert(tx, &version).await?;
    Ok((version, link))
}

/// A configuration version that nobody knows yet, and the link for its archive.
fn new_version(
    app: &App,
    workspace: Workspace,
    is_speculative: bool,
) -> (ConfigurationVersion, String) {
    let id = new_id("cv");
    let issued = NewToken::new(&id);
    let version = ConfigurationVersion {
        id,
        workspace_id: workspace.id,
        uploaded: false,
        is_speculative,
        upload_hash: issued.secret_hash,
        archive_sha256: None,
        removed_at: None,
        created_at: app.scheduler.clock.now(),
    };
    let signature = issued.token.expose();
    let path = format!("{BASE}/configuration-versions/{}/upload/{signature}", version.id);
    let link = app.link(&path);
    (version, link)
}

/// Makes a configuration version of an archive; its id. One that is refused, or that does not
/// come whole, leaves none behind.
pub(crate) async fn create_of(
    app: &App,
    workspace_id: &str,
    archive: Upload,
) -> Result<String, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, workspace_id).await?;
    drop(db);
    let archive = archive.receive(app, objects::MAX_OBJECT).await.map_err(not_received)?;
    check(app, &workspace, &archive).await?;
    let sha256 = archive.sha256();
    let (version, _) = new_version(app, workspace, false);
    let key = objects::configuration(workspace_id, &version.id, Some(&sha256));
    app.scheduler.objects.put(&key, archive).await?;
    let mut tx = app.scheduler.store.write().await?;
    // It may have been deleted meanwhile.
    workspaces::find(&mut tx, workspace_id).await?;
    configuration_version::insert(&mut tx, &version).await?;
    configuration_version::set_uploaded(&mut tx, &version.id, &sha256).await?;
    tx.commit().await?;
    Ok(version.id)
}

/// Checks that a workspace may have an archive, and that runs can be made of that.
async fn check(app: &App, workspace: &Workspace, archive: &Draft) -> Result<(), ApiError> {
    quotas::check(app, workspace, archive.length()).await?;
    let content = archive.reader().map_err(Error::from)?;
    tokio::task::spawn_blocking(move || configuration::check(content))
        .await
        .map_err(anyhow::Error::from)?
        .map_err(|why| {
            let detail = format!("The upload is not taken as a configuration: {why}.");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid Archive").detail(detail)
        })
        .map(drop)
}

async fn upload(
    State(app): State<App>,
    Path((id, signature)): Path<(String, String)>,
    extensions: Extensions,
    archive: Upload,
) -> Result<StatusCode, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, &id).await?;
    drop(db);
    if !PresentedToken::parse(&signature).is_some_and(|shown| shown.matches(&version.upload_hash)) {
        return Err(ApiError::not_found("ConfigurationVersion", &id));
    }
    authenticated(&extensions, Owner::Token(&id))?;
    check_kept(&version)?;
    let archive = archive.receive(&app, objects::MAX_OBJECT).await.map_err(not_received)?;
    let sha256 = archive.sha256();
    if version.uploaded {
        return uploaded_again(&app, &version, &sha256).await;
    }
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &version.workspace_id).await?;
    drop(db);
    check(&app, &workspace, &archive).await?;
    let key = objects::configuration(&version.workspace_id, &version.id, Some(&sha256));
    app.scheduler.objects.put(&key, archive).await?;
    let mut tx = app.scheduler.store.write().await?;
    let is_first = configuration_version::set_uploaded(&mut tx, &version.id, &sha256).await?;
    tx.commit().await?;
    if is_first {
        return Ok(StatusCode::OK);
    }
    // Another upload came to its end in the meantime.
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, &id).await?;
    drop(db);
    check_kept(&version)?;
    uploaded_again(&app, &version, &sha256).await
}

/// A client that has not heard the answer repeats its upload: the same bytes are no
/// conflict.
async fn uploaded_again(
    app: &App,
    version: &ConfigurationVersion,
    sha256: &str,
) -> Result<StatusCode, ApiError> {
    let is_same = match &version.archive_sha256 {
        Some(first) => first == sha256,
        // Its upload was before archives had digests.
        None => {
            let key = objects::configuration(&version.workspace_id, &version.id, None);
            let mut first = app.scheduler.objects.get(&key)?.context("a configuration is gone")?;
            let mut copy = app.scheduler.objects.draft(objects::MAX_OBJECT)?;
            let copied = tokio::task::spawn_blocking(move || {
                io::copy(&mut first, &mut copy).map(|_| copy.sha256())
            });
            let first = copied.await.map_err(anyhow::Error::from)?;
            first.context("cannot read a configuration")? == sha256
        }
    };
    if is_same {
        return Ok(StatusCode::OK);
    }
    let id = &version.id;
    Err(ApiError::conflict(format!(
        "The configuration version {id} has another archive already. Create a new configuration version for this one."
    )))
}

fn check_kept(version: &ConfigurationVersion) -> Result<(), ApiError> {
    match version.removed_at {
        None => Ok(()),
        Some(removed_at) => {
            let what = format!("configuration version {}", version.id);
            Err(ApiError::gone(&what, removed_at))
        }
    }
}

fn not_received(error: Error) -> ApiError {
    match error {
        Error::TooLarge(why) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "Archive Too Large")
            .detail(format!(
                "The archive is not taken: {why}. Leave out what runs don't need, `.git` and `.terraform` for example."
            )),
        error => error.into(),
    }
}

pub(in crate::api) async fn find(
    db: &mut Connection,
    id: &str,
) -> Result<ConfigurationVersion, ApiError> {
    configuration_version::find(db, id)
        .await?
        .ok_or_else(|| ApiError::not_found("ConfigurationVersion", id))
}

/// The configuration versions with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    Ok(configuration_version::with_ids(db, ids).await?.iter().map(render).collect())
}

fn render(version: &ConfigurationVersion) -> Value {
    json!({
        "type": "configuration-versions",
        "id": version.id,
        "attributes": {
            "status": match version {
                ConfigurationVersion { removed_at: Some(_), .. } => "removed",
                ConfigurationVersion { uploaded: true, .. } => "uploaded",
                _ => "pending",
            },
            "source": "api",
            "speculative": version.is_speculative,
            "is-dry": version.is_speculative,
            "created-at": rfc3339(version.created_at),
        },
        "relationships": { "workspace": to_one("workspaces", Some(&version.workspace_id)) },
    })
}

//! Configuration versions, and the upload of their archives.

use std::io::Read as _;
use std::path::Component;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::document::{Document, Payload, to_one};
use super::error::ApiError;
use super::query::ListQuery;
use super::{BASE, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::objects;
use crate::store::Connection;
use crate::store::configuration_version::{self, ConfigurationVersion};
use crate::token::{NewToken, PresentedToken, new_id};

/// The largest archive.
const MAX_ARCHIVE: usize = 100 * 1024 * 1024;

/// The most that an archive may hold: a bomb is told from a configuration.
const MAX_CONTENT: u64 = 1024 * 1024 * 1024;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/configuration-versions", get(list).post(create))
        .route("/configuration-versions/{id}", get(read))
}

/// The call that needs no token: its path has a signature.
pub(super) fn upload_route() -> Router<App> {
    Router::new().route(
        "/configuration-versions/{id}/upload/{signature}",
        put(upload).layer(DefaultBodyLimit::max(MAX_ARCHIVE)),
    )
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    query.allow(&["workspace"])?;
    let mut db = app.scheduler.store.read().await?;
    let listed =
        configuration_version::list(&mut db, query.filter("workspace"), query.page).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), &listed, &query))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let workspace = workspaces::related(&mut tx, &payload).await?;
    let id = new_id("cv");
    let issued = NewToken::new(&id);
    let version = ConfigurationVersion {
        id,
        workspace_id: workspace.id,
        uploaded: false,
        upload_hash: issued.secret_hash,
        created_at: app.scheduler.clock.now(),
    };
    configuration_version::insert(&mut tx, &version).await?;
    tx.commit().await?;
    let mut resource = render(&version);
    let signature = issued.token.expose();
    let path = format!("{BASE}/configuration-versions/{}/upload/{signature}", version.id);
    // The only time that it is shown.
    resource["links"] = json!({ "upload": app.link(&path) });
    Ok(Document::created(resource))
}

async fn upload(
    State(app): State<App>,
    Path((id, signature)): Path<(String, String)>,
    archive: Bytes,
) -> Result<StatusCode, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let version = find(&mut db, &id).await?;
    drop(db);
    if !PresentedToken::parse(&signature).is_some_and(|shown| shown.matches(&version.upload_hash)) {
        return Err(ApiError::not_found("ConfigurationVersion", &id));
    }
    if version.uploaded {
        return Err(ApiError::conflict("The configuration version has its archive already."));
    }
    let content = archive.clone();
    tokio::task::spawn_blocking(move || check_archive(&content))
        .await
        .map_err(anyhow::Error::from)?
        .map_err(|why| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid Archive")
                .detail(format!("The body is not a tar.gz of a configuration: {why}."))
        })?;
    let key = objects::configuration(&version.workspace_id, &version.id);
    app.scheduler.objects.put(&key, archive).await?;
    let mut tx = app.scheduler.store.write().await?;
    configuration_version::set_uploaded(&mut tx, &version.id).await?;
    tx.commit().await?;
    Ok(StatusCode::OK)
}

/// Why an archive can't be a configuration, if it can't.
fn check_archive(archive: &[u8]) -> Result<(), String> {
    let mut content = GzDecoder::new(archive).take(MAX_CONTENT);
    let mut tar = tar::Archive::new(&mut content);
    let mut files = 0;
    for entry in tar.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let path = entry.path().map_err(|error| error.to_string())?;
        let is_inside =
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_inside {
            return Err(format!("{} lies outside of it", path.display()));
        }
        files += usize::from(entry.header().entry_type().is_file());
    }
    if content.limit() == 0 {
        return Err(format!("it holds more than {MAX_CONTENT} bytes"));
    }
    if files == 0 { Err("it has no files".to_owned()) } else { Ok(()) }
}

async fn find(db: &mut Connection, id: &str) -> Result<ConfigurationVersion, ApiError> {
    configuration_version::find(db, id)
        .await?
        .ok_or_else(|| ApiError::not_found("ConfigurationVersion", id))
}

fn render(version: &ConfigurationVersion) -> Value {
    json!({
        "type": "configuration-versions",
        "id": version.id,
        "attributes": {
            "status": if version.uploaded { "uploaded" } else { "pending" },
            "source": "api",
            "created-at": rfc3339(version.created_at),
        },
        "relationships": { "workspace": to_one("workspaces", Some(&version.workspace_id)) },
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive with one file, whose path is not looked at.
    fn archive(path: &str) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(1);
        header.set_mode(0o644);
        header.set_cksum();
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        tar.append(&header, &b"x"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn only_archives_of_files_inside_are_taken() {
        assert_eq!(check_archive(&archive("main.tf")), Ok(()));
        assert_eq!(check_archive(&archive("./modules/x/main.tf")), Ok(()));
        for path in ["../main.tf", "/etc/passwd", "a/../../b"] {
            assert!(check_archive(&archive(path)).unwrap_err().contains("outside"), "{path}");
        }
        assert!(check_archive(b"no archive").is_err());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"no tar").unwrap();
        assert!(check_archive(&gzip.finish().unwrap()).is_err());
        let whole = archive("main.tf");
        assert!(check_archive(&whole[..whole.len() / 2]).is_err());
    }
}

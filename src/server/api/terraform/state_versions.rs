//! State versions.

use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::access::Admin;
use super::query::ListQuery;
use super::{BASE, state_uploads, workspaces as terraform_workspaces};
use crate::api::calls::{About, Calls, document_of, text};
use crate::api::json_api::{ApiError, Document, MEDIA_TYPE, to_one};
use crate::api::pools::state_upload::{self, StateDocument};
use crate::api::pools::{Payload, quotas, schema_of_attributes, state_versions, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::scheduler::{self, NewState, Saved, check_lock};
use crate::state_warnings;
use crate::store::state_upload as uploads;
use crate::store::state_version::{self, StateVersion};
use crate::store::workspace::Workspace;
use crate::upload::Upload;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get(
            "/state-versions",
            About::page("List the state versions of a workspace", "state-versions")
                .needs_parameter(ORGANIZATION, text)
                .needs_parameter(WORKSPACE, text),
            list,
        )
        .get(
            "/state-versions/{id}",
            About::one("Read a state version", StatusCode::OK, "state-versions"),
            read,
        )
        .get(
            "/state-versions/{id}/download",
            state_versions::download_about("Download a state"),
            state_versions::download,
        )
        .get(
            "/workspaces/{id}/current-state-version",
            About::one(
                "Read the current state version of a workspace",
                StatusCode::OK,
                "state-versions",
            ),
            current,
        )
        .post(
            "/workspaces/{id}/state-versions",
            About::one("Upload or announce a state", StatusCode::CREATED, "state-versions")
                .takes(MEDIA_TYPE, true, schema),
            create,
        )
}

/// Whose state versions a list has.
const ORGANIZATION: &str = "filter[organization][name]";
const WORKSPACE: &str = "filter[workspace][name]";

fn schema() -> Value {
    let names = ["force", "lineage", "md5", "serial", "state"];
    document_of(json!({
        "required": ["attributes"],
        "properties": { "attributes": {
            "type": "object",
            "required": ["md5", "serial"],
            "properties": schema_of_attributes("state-versions", &names),
        } },
    }))
}

/// The state version with this id, or the one that became of the upload with it.
pub(super) async fn find(app: &App, id: &str) -> Result<StateVersion, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let uploaded = uploads::find(&mut db, id).await?;
    let version = uploaded.and_then(|uploaded| uploaded.state_version_id);
    state_versions::find(&mut db, version.as_deref().unwrap_or(id)).await
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let (Some(organization), Some(name)) = (query.get(ORGANIZATION), query.get(WORKSPACE)) else {
        let missing = if query.get(WORKSPACE).is_none() { WORKSPACE } else { ORGANIZATION };
        return Err(ApiError::parameter(missing, "This parameter is required."));
    };
    let workspace = terraform_workspaces::named(&mut db, organization, name).await?;
    let listed = state_version::list(&mut db, Some(&workspace.id), query.page).await?;
    let resources = listed.rows.iter().map(|version| render(&app, version)).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let version = find(&app, &id).await?;
    Ok(Document::of(render(&app, &version)))
}

async fn current(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    let current = current.ok_or_else(|| ApiError::not_found("StateVersion", "current"))?;
    Ok(Document::of(render(&app, &current)))
}

/// Takes a state, in base64 in the document, or announced by it and uploaded after.
async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    Admin(by): Admin,
    request: Request,
) -> Result<Document, ApiError> {
    /// The same state in another form, which nothing here reads.
    const IGNORED: [&str; 2] = ["json-state", "json-state-outputs"];
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &id).await?;
    drop(db);
    check_lock(&workspace, &by)?;
    let Ok(upload) = Upload::from_request(request, &app).await;
    let document = state_upload::receive(&app, upload, 3, &IGNORED).await?;
    let StateDocument { payload, state, md5 } = document;
    let Some(md5) = md5 else {
        return state_uploads::announce(&app, &workspace, &payload).await;
    };
    let claims = Claims::of(&payload)?;
    let state = NewState::read(state).await.map_err(of_state)?;
    let version = save(&app, &workspace, state, &md5, &claims).await?;
    Ok(Document::created(render(&app, &version)))
}

/// What a client says of a state.
#[derive(Debug)]
pub(super) struct Claims {
    pub serial: i64,
    pub lineage: Option<String>,
    pub md5: String,
    pub force: bool,
}

impl Claims {
    pub(super) fn of(payload: &Payload) -> Result<Self, ApiError> {
        Ok(Self {
            serial: payload.required("serial")?,
            lineage: payload.text("lineage")?.flatten(),
            md5: md5(payload)?,
            force: payload.attribute("force")?.unwrap_or(false),
        })
    }
}

/// In lower case.
fn md5(payload: &Payload) -> Result<String, ApiError> {
    let md5 = payload.required::<String>("md5")?.to_ascii_lowercase();
    if md5.len() != 32 || !md5.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ApiError::attribute("md5", "This field takes an MD5 in hex: 32 digits."));
    }
    Ok(md5)
}

/// Keeps a state that is what its client says.
pub(super) async fn save(
    app: &App,
    workspace: &Workspace,
    state: NewState,
    md5: &str,
    claims: &Claims,
) -> Result<StateVersion, ApiError> {
    let differs =
        |name| Err(ApiError::attribute(name, "This differs from what stands in the state."));
    if claims.md5 != md5 {
        return differs("md5");
    }
    if claims.serial != state.serial {
        return differs("serial");
    }
    if claims.lineage.as_ref().is_some_and(|lineage| *lineage != state.lineage) {
        return differs("lineage");
    }
    quotas::check(app, workspace, state.length()).await?;
    let saved = app.scheduler.save_uploaded_state(&workspace.id, state, claims.force).await;
    match saved.map_err(of_state)? {
        Saved::New(version) | Saved::Same(version) => Ok(version),
    }
}

pub(super) fn of_state(error: scheduler::Error) -> ApiError {
    match error {
        scheduler::Error::Invalid(why) => ApiError::attribute("state", why),
        error => error.into(),
    }
}

/// A state version as Terraform knows it.
pub(super) fn render(app: &App, version: &StateVersion) -> Value {
    let download = app.link(&format!("{BASE}/state-versions/{}/download", version.id));
    json!({
        "type": "state-versions",
        "id": version.id,
        "attributes": {
            "created-at": rfc3339(version.created_at),
            "hosted-state-download-url": download,
            "resources-processed": true,
            "serial": version.serial,
            "size": version.size,
            "status": "finalized",
            "warning": state_warnings::warning(app, version.size),
        },
        "relationships": {
            "workspace": to_one("workspaces", Some(&version.workspace_id)),
            "run": to_one("runs", version.run_id.as_deref()),
        },
    })
}

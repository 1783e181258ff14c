//! Workspaces.

use std::slice;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Admin;
use super::query::ListQuery;
use super::tags::{self, SentTag};
use super::{organizations, projects};
use crate::api::calls::{About, Calls, document_of, schema_named, text};
use crate::api::json_api::{ApiError, Data, Document, MEDIA_TYPE, to_one};
use crate::api::pools::{Payload, schema_of_attributes, workspaces};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::environment::{self, Environment};
use crate::store::run::{self, Run};
use crate::store::state_version::{self, StateVersion};
use crate::store::workspace::{self, ExecutionMode, Filter, Workspace};
use crate::store::workspace_tag::{self, Search, WorkspaceTag};
use crate::store::{Connection, Page};
use protocol::limits::MAX_REASON;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get(
            "/organizations/{organization}/workspaces",
            About::page("List the workspaces of an organization", "workspaces")
                .parameter("search[name]", text)
                .parameter("search[tags]", text)
                .parameter("search[exclude-tags]", text)
                .parameter("filter[project][id]", text)
                .parameter("filter[tagged][0][key]", text)
                .parameter("filter[tagged][0][value]", text),
            list,
        )
        .post(
            "/organizations/{organization}/workspaces",
            About::one("Create a workspace", StatusCode::CREATED, "workspaces")
                .takes(MEDIA_TYPE, true, new_schema),
            create,
        )
        .get(
            "/organizations/{organization}/workspaces/{name}",
            About::one("Read a workspace by its name", StatusCode::OK, "workspaces"),
            read_named,
        )
        .patch(
            "/organizations/{organization}/workspaces/{name}",
            About::one("Change a workspace by its name", StatusCode::OK, "workspaces")
                .takes(MEDIA_TYPE, false, schema),
            update_named,
        )
        .delete(
            "/organizations/{organization}/workspaces/{name}",
            About::nothing("Delete a workspace by its name", StatusCode::NO_CONTENT),
            delete_named,
        )
        .post(
            "/organizations/{organization}/workspaces/{name}/actions/safe-delete",
            About::nothing(
                "Delete a workspace without resources by its name",
                StatusCode::NO_CONTENT,
            ),
            safe_delete_named,
        )
        .get("/workspaces/{id}", About::one("Read a workspace", StatusCode::OK, "workspaces"), read)
        .patch(
            "/workspaces/{id}",
            About::one("Change a workspace", StatusCode::OK, "workspaces")
                .takes(MEDIA_TYPE, false, schema),
            update,
        )
        .delete(
            "/workspaces/{id}",
            About::nothing("Delete a workspace", StatusCode::NO_CONTENT),
            delete,
        )
        .post(
            "/workspaces/{id}/actions/safe-delete",
            About::nothing("Delete a workspace without resources", StatusCode::NO_CONTENT),
            safe_delete,
        )
        .post(
            "/workspaces/{id}/actions/lock",
            About::one("Lock a workspace", StatusCode::OK, "workspaces").takes(
                "application/json",
                false,
                reason,
            ),
            lock,
        )
        .post(
            "/workspaces/{id}/actions/unlock",
            About::one("Release a lock of one's own", StatusCode::OK, "workspaces"),
            unlock,
        )
        .post(
            "/workspaces/{id}/actions/force-unlock",
            About::one("Release any lock", StatusCode::OK, "workspaces"),
            force_unlock,
        )
}

/// A workspace of an organization, by its name.
pub(super) async fn named(
    db: &mut Connection,
    organization: &str,
    name: &str,
) -> Result<Workspace, ApiError> {
    let environment = organizations::find(db, organization).await?;
    let filter =
        Filter { name: Some(name), environment: Some(&environment.id), ..Filter::default() };
    let found = workspace::list(db, filter, Page { number: 1, size: 1 }).await?;
    found.rows.into_iter().next().ok_or_else(|| ApiError::not_found("Workspace", name))
}

async fn list(
    State(app): State<App>,
    Path(organization): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = organizations::find(&mut db, &organization).await?;
    let project = projects::id_of(&environment);
    if query.get("filter[project][id]").is_some_and(|wanted| wanted != project) {
        return Ok(Document::page(Vec::new(), 0, query.page));
    }
    let tags = tags_of(&query);
    let excluded = query.get("search[exclude-tags]").map(plain_tags).unwrap_or_default();
    let excluded = Value::from(excluded).to_string();
    let search = Search {
        environment: &environment.id,
        name: query.get("search[name]"),
        tags: Some(&tags.to_string()),
        excluded_tags: Some(&excluded),
    };
    let listed = workspace_tag::search(&mut db, &search, query.page).await?;
    let resources = render_all(&mut db, &listed.rows, &environment).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

/// The tags that the workspaces of a list have to have.
fn tags_of(query: &ListQuery) -> Value {
    let mut tags = query.get("search[tags]").map(plain_tags).unwrap_or_default();
    for number in 0.. {
        let Some(key) = query.get(&format!("filter[tagged][{number}][key]")) else { break };
        let value = query.get(&format!("filter[tagged][{number}][value]"));
        tags.push(json!({ "key": key, "value": value }));
    }
    tags.into()
}

fn plain_tags(names: &str) -> Vec<Value> {
    names.split(',').map(|name| json!({ "key": name.trim() })).collect()
}

/// What can be written.
const WRITABLE: [&str; 6] = [
    "auto-apply",
    "execution-mode",
    "name",
    "operations",
    "terraform-version",
    "working-directory",
];
/// What says nothing about what the server does.
const PASSED_OVER: [&str; 4] = ["description", "source-name", "source-url", "setting-overwrites"];

fn schema() -> Value {
    let mut attributes = schema_of_attributes("workspaces", &WRITABLE);
    for name in PASSED_OVER {
        attributes[name] = json!({});
    }
    document_of(json!({ "properties": {
        "attributes": {
            "type": "object",
            "properties": attributes,
            "additionalProperties": { "enum": [null, false, "", []] },
        },
        "relationships": { "type": "object", "properties": {
            "project": schema_named("to-one-or-none"),
            "tags": tags::tags(),
            "tag-bindings": tags::tags(),
        } },
    } }))
}

fn new_schema() -> Value {
    let mut schema = schema();
    let data = &mut schema["properties"]["data"];
    data["required"] = json!(["attributes"]);
    data["properties"]["attributes"]["required"] = json!(["name"]);
    schema
}

fn reason() -> Value {
    json!({ "type": "object", "properties": {
        "reason": { "type": "string", "maxLength": MAX_REASON },
    } })
}

/// A new or changed workspace as it comes in.
#[derive(Debug, Default, Deserialize)]
struct SentWorkspace {
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    relationships: SentRelationships,
    /// Also so that no list is taken for an object.
    #[serde(flatten)]
    _others: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct SentRelationships {
    project: SentProject,
    tags: SentTags,
    tag_bindings: SentTags,
    #[serde(flatten)]
    _others: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
struct SentProject {
    #[serde(deserialize_with = "Option::deserialize")]
    data: Option<SentId>,
}

#[derive(Debug, Deserialize)]
struct SentId {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
struct SentTags {
    data: Vec<SentTag>,
}

impl SentWorkspace {
    /// What the pool API's checks take, and the tags.
    ///
    /// # Errors
    /// It asks for something that this server does not have.
    fn check(self, environment: &Environment) -> Result<(Payload, Vec<SentTag>), ApiError> {
        let mut attributes = Map::new();
        for (name, value) in self.attributes {
            let is_nothing = matches!(value, Value::Null | Value::Bool(false))
                || value == json!("")
                || value == json!([]);
            match name.as_str() {
                // The image's, which is what the pool API calls null.
                "terraform-version" if value == "latest" => {
                    attributes.insert(name, Value::Null);
                }
                known if WRITABLE.contains(&known) => {
                    attributes.insert(name, value);
                }
                other if PASSED_OVER.contains(&other) || is_nothing => {}
                other => {
                    return Err(ApiError::attribute(
                        other,
                        format!(
                            "This server does not support it; there are: {}.",
                            WRITABLE.join(", ")
                        ),
                    ));
                }
            }
        }
        let SentRelationships { project, tags, tag_bindings, .. } = self.relationships;
        if project.data.is_some_and(|project| project.id != projects::id_of(environment)) {
            let detail = format!("The environment has one project, \"{}\".", projects::NAME);
            return Err(ApiError::relationship("project", detail));
        }
        let tags = tags.data.into_iter().chain(tag_bindings.data).collect();
        Ok((Payload::of("workspaces", attributes, Map::new())?, tags))
    }
}

async fn create(
    State(app): State<App>,
    Path(organization): Path<String>,
    Data(sent): Data<SentWorkspace>,
) -> Result<Document, ApiError> {
    let now = app.scheduler.clock.now();
    let mut tx = app.scheduler.store.write().await?;
    let environment = organizations::find(&mut tx, &organization).await?;
    let (payload, tags) = sent.check(&environment)?;
    let workspace = workspaces::insert(&mut tx, environment.id.clone(), &payload, now).await?;
    tags::save(&mut tx, &workspace.id, tags).await?;
    let resource = render_all(&mut tx, slice::from_ref(&workspace), &environment).await?.remove(0);
    tx.commit().await?;
    Ok(Document::created(resource))
}

async fn read_named(
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = named(&mut db, &organization, &name).await?;
    Ok(Document::of(render(&mut db, &workspace).await?))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &workspace).await?))
}

async fn update_named(
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    sent: Data<SentWorkspace>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let id = named(&mut db, &organization, &name).await?.id;
    drop(db);
    update(State(app), Path(id), sent).await
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    Data(sent): Data<SentWorkspace>,
) -> Result<Document, ApiError> {
    let now = app.scheduler.clock.now();
    let mut tx = app.scheduler.store.write().await?;
    let mut workspace = workspaces::find(&mut tx, &id).await?;
    let (payload, tags) = sent.check(&environment_of(&mut tx, &workspace).await?)?;
    workspaces::save_changes(&mut tx, &mut workspace, &payload, now).await?;
    tags::save(&mut tx, &id, tags).await?;
    let resource = render(&mut tx, &workspace).await?;
    tx.commit().await?;
    Ok(Document::of(resource))
}

async fn delete_named(
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let id = named(&mut db, &organization, &name).await?.id;
    drop(db);
    delete(State(app), Path(id)).await
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    workspaces::remove(&app, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn safe_delete_named(
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let id = named(&mut db, &organization, &name).await?.id;
    drop(db);
    safe_delete(State(app), Path(id)).await
}

/// Deletes a workspace that is not locked and has no resources, whatever its deletion
/// protection says.
async fn safe_delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = workspaces::find(&mut db, &id).await?;
    let current = state_version::current(&mut db, &id).await?;
    drop(db);
    if let Some(reason) = workspace.lock_reason {
        return Err(ApiError::conflict(format!("The workspace is locked. {reason}")));
    }
    if let Some(StateVersion { resources: 1.., .. }) = current {
        return Err(ApiError::conflict("The workspace has resources: destroy them first."));
    }
    delete(State(app), Path(id)).await
}

#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

async fn lock(
    State(app): State<App>,
    Path(id): Path<String>,
    Admin(by): Admin,
    body: Result<Bytes, BytesRejection>,
) -> Result<Document, ApiError> {
    // No JSON:API document, and many clients send none.
    let Reason { reason } = serde_json::from_slice(&body?).unwrap_or_default();
    if reason.chars().nth(MAX_REASON).is_some() {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid Reason")
            .detail(format!("The reason of a lock takes at most {MAX_REASON} characters.")));
    }
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    known(&app, &id).await?;
    app.scheduler.lock(&id, &by, &reason).await?;
    read(State(app), Path(id)).await
}

async fn unlock(
    State(app): State<App>,
    Path(id): Path<String>,
    Admin(by): Admin,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    app.scheduler.release_lock(&id, &by).await?;
    read(State(app), Path(id)).await
}

async fn force_unlock(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    app.scheduler.unlock(&id).await?;
    read(State(app), Path(id)).await
}

async fn known(app: &App, id: &str) -> Result<(), ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, id).await.map(drop)
}

async fn environment_of(
    db: &mut Connection,
    workspace: &Workspace,
) -> Result<Environment, ApiError> {
    let id = &workspace.environment_id;
    environment::find(db, id).await?.ok_or_else(|| ApiError::not_found("Organization", id))
}

/// A workspace as Terraform knows it.
pub(super) async fn render(db: &mut Connection, workspace: &Workspace) -> Result<Value, ApiError> {
    let environment = environment_of(db, workspace).await?;
    Ok(render_all(db, slice::from_ref(workspace), &environment).await?.remove(0))
}

async fn render_all(
    db: &mut Connection,
    workspaces: &[Workspace],
    environment: &Environment,
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = workspaces.iter().map(|workspace| workspace.id.as_str()).collect();
    let runs = run::current_of(db, &ids).await?;
    let queues = run::queues(db, &ids).await?;
    let states = state_version::current_of(db, &ids).await?;
    let tags = workspace_tag::of_workspaces(db, &ids).await?;
    let render = |workspace: &Workspace| {
        let run = runs.iter().find(|run| run.workspace_id == workspace.id);
        let state = states.iter().find(|state| state.workspace_id == workspace.id);
        let tags = tags.iter().filter(|tag| tag.workspace_id == workspace.id);
        let first = queues.iter().find(|(of, _)| *of == workspace.id);
        let first = first.map(|(_, run)| run.as_str());
        render_with(workspace, environment, run, first, state, tags)
    };
    Ok(workspaces.iter().map(render).collect())
}

/// `run` is under way; `first` is the run that has its turn or waits for it.
fn render_with<'a>(
    workspace: &Workspace,
    environment: &Environment,
    run: Option<&Run>,
    first: Option<&str>,
    state: Option<&StateVersion>,
    tags: impl Iterator<Item = &'a WorkspaceTag>,
) -> Value {
    let locked_by_run = run.filter(|run| run.locks_workspace());
    let is_remote = workspace.execution_mode == ExecutionMode::Remote;
    let tag_names: Vec<&str> = tags.map(|tag| tag.key.as_str()).collect();
    json!({
        "type": "workspaces",
        "id": workspace.id,
        "attributes": {
            "name": workspace.name,
            "auto-apply": workspace.auto_apply,
            "allow-destroy-plan": true,
            "created-at": rfc3339(workspace.created_at),
            "updated-at": rfc3339(workspace.updated_at),
            "execution-mode": workspace.execution_mode,
            "operations": is_remote,
            "locked": workspace.lock_reason.is_some() || locked_by_run.is_some(),
            "locked-reason": workspace.lock_reason,
            "resource-count": state.map_or(0, |state| state.resources),
            "speculative-enabled": true,
            // Its logs are Terraform's text.
            "structured-run-output-enabled": false,
            "tag-names": tag_names,
            // Terraform refuses to work with none.
            "terraform-version": workspace.terraform_version.as_deref().unwrap_or("latest"),
            "working-directory": workspace.working_directory,
            "permissions": {
                "can-create-state-versions": true,
                "can-destroy": true,
                "can-force-delete": !workspace.deletion_protection,
                "can-force-unlock": true,
                "can-lock": true,
                "can-manage-tags": true,
                "can-queue-apply": true,
                "can-queue-destroy": true,
                "can-queue-run": true,
                "can-read-settings": true,
                "can-read-state-outputs": true,
                "can-read-state-versions": true,
                "can-unlock": true,
                "can-update": true,
                "can-update-variable": true,
            },
        },
        "relationships": {
            "organization": to_one("organizations", Some(&environment.name)),
            "project": to_one("projects", Some(&projects::id_of(environment))),
            "current-run": to_one("runs", first),
            "current-state-version":
                to_one("state-versions", state.map(|state| state.id.as_str())),
        },
    })
}

//! Workspaces.

use std::collections::BTreeMap;
use std::slice;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::agent_pools::usable_pool;
use super::payload::Payload;
use super::query::ListQuery;
use super::run_schedule_rules;
use super::tags::Tagged;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document, to_many, to_one};
use crate::api::value_type::ValueType;
use crate::app::App;
use crate::clock::{Millis, rfc3339};
use crate::store::run::{self, Run};
use crate::store::run_schedule::{self, RunSchedule, ScheduleMode};
use crate::store::state_version::{self, StateVersion};
use crate::store::workspace::{self, ExecutionMode, Filter, Hooks, Workspace};
use crate::store::{Connection, configuration_version, environment, is_taken, tag};
use crate::token::new_id;
use protocol::Hook;
use protocol::limits::{MAX_DIRECTORY, MAX_HOOK, MAX_VERSION};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/workspaces", "List workspaces", list)
        .post("/workspaces", "Create a workspace", create)
        .get("/workspaces/{id}", "Read a workspace", read)
        .patch("/workspaces/{id}", "Change a workspace", update)
        .delete("/workspaces/{id}", "Delete a workspace", delete)
        .post(
            "/workspaces/{id}/actions/set-schedule",
            About::from("Set the schedules of a workspace").takes(
                "application/json",
                true,
                schedules,
            ),
            set_schedule,
        )
        .post("/workspaces/{id}/actions/unlock", "Unlock a workspace", unlock)
}

/// The workspace with this id.
pub(in crate::api) async fn find(db: &mut Connection, id: &str) -> Result<Workspace, ApiError> {
    workspace::find(db, id).await?.ok_or_else(|| ApiError::not_found("Workspace", id))
}

/// The workspace that a new resource is to belong to.
pub(super) async fn related(db: &mut Connection, payload: &Payload) -> Result<Workspace, ApiError> {
    let id = payload.required_to_one("workspace")?;
    workspace::find(db, &id)
        .await?
        .ok_or_else(|| ApiError::no_related("workspace", "Workspace", &id))
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("workspace"),
        name: query.filter("name"),
        environment: query.filter("environment"),
        pool: query.filter("agent-pool"),
        account: query.filter("account"),
        consumer_of: None,
    };
    let listed = workspace::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let workspace = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &workspace).await?))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let environment_id = payload.required_to_one("environment")?;
    if environment::find(&mut tx, &environment_id).await?.is_none() {
        return Err(ApiError::no_related("environment", "Environment", &environment_id));
    }
    let workspace = insert(&mut tx, environment_id, &payload, app.scheduler.clock.now()).await?;
    let resource = render(&mut tx, &workspace).await?;
    tx.commit().await?;
    Ok(Document::created(resource))
}

/// Makes a workspace in an environment.
pub(in crate::api) async fn insert(
    tx: &mut Connection,
    environment_id: String,
    payload: &Payload,
    now: Millis,
) -> Result<Workspace, ApiError> {
    let mut workspace = Workspace {
        id: new_id("ws"),
        environment_id,
        pool_id: None,
        name: payload.required("name")?,
        iac_platform: None,
        terraform_version: None,
        allow_other_terraform_version: false,
        working_directory: None,
        image: None,
        hooks: Hooks::default(),
        auto_apply: false,
        deletion_protection: true,
        plan_timeout: None,
        apply_timeout: None,
        lock_reason: None,
        locked_by: None,
        execution_mode: ExecutionMode::default(),
        remote_state_sharing: true,
        created_at: now,
        updated_at: now,
    };
    change(tx, &mut workspace, payload).await?;
    workspace::insert(tx, &workspace).await.map_err(name_taken)?;
    change_schedules(tx, &workspace, payload, now).await?;
    Tagged::Workspace(&workspace.id).save(tx, payload).await?;
    Ok(workspace)
}

/// Changes a workspace.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut workspace = find(&mut tx, &id).await?;
    save_changes(&mut tx, &mut workspace, &payload, app.scheduler.clock.now()).await?;
    let resource = render(&mut tx, &workspace).await?;
    tx.commit().await?;
    Ok(Document::of(resource))
}

/// Changes a workspace.
pub(in crate::api) async fn save_changes(
    tx: &mut Connection,
    workspace: &mut Workspace,
    payload: &Payload,
    now: Millis,
) -> Result<(), ApiError> {
    change(tx, workspace, payload).await?;
    workspace.updated_at = now;
    workspace::update(tx, workspace).await.map_err(name_taken)?;
    change_schedules(tx, workspace, payload, now).await?;
    Tagged::Workspace(&workspace.id).save(tx, payload).await
}

fn schedules() -> Value {
    ValueType::Named(
        || ScheduleMode::ALL.map(ScheduleMode::attribute).to_vec(),
        &ValueType::OrNull(&ValueType::Text),
    )
    .schema()
}

/// Clients write schedules so, in a JSON object that is no document.
async fn set_schedule(
    State(app): State<App>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Document, ApiError> {
    let schedules: Map<String, Value> = serde_json::from_slice(&body?)
        .map_err(|_| ApiError::bad_request("The body is no JSON object with schedules."))?;
    let known = ScheduleMode::ALL.map(ScheduleMode::attribute);
    if let Some(name) = schedules.keys().find(|name| !known.contains(&name.as_str())) {
        let detail = format!("There is no schedule {name}; there are: {}.", known.join(", "));
        return Err(ApiError::attribute(name, detail));
    }
    let payload = Payload::of("workspaces", schedules, Map::new())?;
    update(State(app), Path(id), payload).await
}

async fn change_schedules(
    db: &mut Connection,
    workspace: &Workspace,
    payload: &Payload,
    now: Millis,
) -> Result<(), ApiError> {
    for mode in ScheduleMode::ALL {
        let name = mode.attribute();
        match payload.text(name)? {
            None => {}
            Some(None) => run_schedule::delete(db, &workspace.id, mode).await?,
            Some(Some(cron)) => {
                let next_at = run_schedule_rules::due(name, &cron, now)?;
                let (id, workspace_id) = (new_id("rsr"), workspace.id.clone());
                let schedule = RunSchedule { id, workspace_id, mode, cron, next_at };
                run_schedule::upsert(db, &schedule).await?;
            }
        }
    }
    Ok(())
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    remove(&app, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a workspace with everything of it.
pub(in crate::api) async fn remove(app: &App, id: &str) -> Result<(), ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let workspace = find(&mut tx, id).await?;
    if let Some(run) = run::under_way(&mut tx, id).await? {
        return Err(ApiError::conflict(format!("The run {} is under way.", run.id)));
    }
    if workspace.deletion_protection {
        if has_resources(&mut tx, id).await? {
            return Err(ApiError::conflict(
                "The workspace has resources and deletion protection: destroy them, or switch \
                 deletion-protection-enabled off.",
            ));
        }
        if let Some(reason) = &workspace.lock_reason {
            return Err(ApiError::conflict(format!(
                "The workspace is locked, so it may have resources that its state lacks: unlock \
                 it, or switch deletion-protection-enabled off. {reason}"
            )));
        }
    }
    workspace::delete(&mut tx, id).await?;
    tx.commit().await?;
    // Nothing refers to its files any more: leaving some is untidy, no more.
    let objects = app.scheduler.objects.delete_workspace(id).await;
    let logs = app.logs.delete_workspace(id).await;
    if let Err(error) = objects.and(logs) {
        warn!("{error:#}");
    }
    Ok(())
}

async fn unlock(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    find(&mut db, &id).await?;
    drop(db);
    app.scheduler.unlock(&id).await?;
    let mut db = app.scheduler.store.read().await?;
    let workspace = find(&mut db, &id).await?;
    Ok(Document::of(render(&mut db, &workspace).await?))
}

async fn change(
    db: &mut Connection,
    workspace: &mut Workspace,
    payload: &Payload,
) -> Result<(), ApiError> {
    payload.unchanged("environment", Some(&workspace.environment_id))?;
    if let Some(name) = payload.name("name")? {
        workspace.name = name;
    }
    if let Some(platform) = payload.change("iac-platform")? {
        workspace.iac_platform = platform;
    }
    if let Some(version) = payload.text("terraform-version")? {
        workspace.terraform_version = version.map(terraform_version).transpose()?;
    }
    if let Some(allow) = payload.attribute("allow-other-terraform-version")? {
        workspace.allow_other_terraform_version = allow;
    }
    if let Some(directory) = payload.text("working-directory")? {
        workspace.working_directory = directory.map(working_directory).transpose()?;
    }
    if let Some(image) = payload.image()? {
        workspace.image = image;
    }
    if let Some(commands) = payload.change("hooks")? {
        workspace.hooks = hooks(commands.unwrap_or_default())?;
    }
    if let Some(auto_apply) = payload.attribute("auto-apply")? {
        workspace.auto_apply = auto_apply;
    }
    if let Some(protection) = payload.attribute("deletion-protection-enabled")? {
        workspace.deletion_protection = protection;
    }
    if let Some(minutes) = payload.change::<u32>("run-operation-timeout")? {
        let seconds = minutes.map(|minutes| minutes * 60);
        (workspace.plan_timeout, workspace.apply_timeout) = (seconds, seconds);
    }
    if let Some(seconds) = payload.change("plan-timeout-seconds")? {
        workspace.plan_timeout = seconds;
    }
    if let Some(seconds) = payload.change("apply-timeout-seconds")? {
        workspace.apply_timeout = seconds;
    }
    if let Some(is_remote) = payload.attribute("operations")? {
        workspace.execution_mode =
            if is_remote { ExecutionMode::Remote } else { ExecutionMode::Local };
    }
    if let Some(mode) = payload.attribute("execution-mode")? {
        workspace.execution_mode = mode;
    }
    if let Some(sharing) = payload.attribute("remote-state-sharing")? {
        workspace.remote_state_sharing = sharing;
    }
    if let Some(pool) = payload.to_one("agent-pool")? {
        if let Some(pool) = &pool {
            usable_pool(db, "agent-pool", pool, &workspace.environment_id).await?;
        }
        workspace.pool_id = pool;
    }
    Ok(())
}

/// All hooks, replacing those there were; an empty or null one is none.
fn hooks(commands: BTreeMap<Hook, Option<String>>) -> Result<Hooks, ApiError> {
    let mut hooks = BTreeMap::new();
    for (hook, commands) in commands {
        let Some(commands) = commands.filter(|commands| !commands.trim().is_empty()) else {
            continue;
        };
        if commands.len() > MAX_HOOK || commands.contains('\0') {
            let name = hook.name();
            return Err(ApiError::attribute(
                "hooks",
                format!("The hook {name} takes a text of at most {MAX_HOOK} bytes."),
            ));
        }
        hooks.insert(hook, commands);
    }
    Ok(Hooks(hooks))
}

/// A version as it may stand in an image's name: `1.9.8`, `1.10.0-rc1`.
fn terraform_version(version: String) -> Result<String, ApiError> {
    let numbers = version.split_once('-').map_or(version.as_str(), |(numbers, _)| numbers);
    let is_version = version.len() <= MAX_VERSION
        && numbers.split('.').count() == 3
        && numbers.split('.').all(|number| number.parse::<u32>().is_ok())
        && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    match is_version {
        true => Ok(version),
        false => Err(ApiError::attribute(
            "terraform-version",
            "This field takes a Terraform version such as 1.9.8; null: the image's.",
        )),
    }
}

/// A directory of the configuration.
fn working_directory(directory: String) -> Result<String, ApiError> {
    let is_inside = !directory.starts_with('/')
        && directory.split('/').all(|part| part != "..")
        && directory.len() <= MAX_DIRECTORY
        && !directory.chars().any(char::is_control);
    match is_inside {
        true => Ok(directory),
        false => Err(ApiError::attribute(
            "working-directory",
            "This field takes a directory inside the configuration, for example live/eu.",
        )),
    }
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "The environment has a workspace with this name."),
        false => error.into(),
    }
}

async fn has_resources(db: &mut Connection, workspace_id: &str) -> Result<bool, ApiError> {
    let current = state_version::current(db, workspace_id).await?;
    Ok(current.is_some_and(|state| state.resources > 0))
}

/// The workspaces with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let workspaces = workspace::with_ids(db, ids).await?;
    render_all(db, &workspaces).await
}

async fn render(db: &mut Connection, workspace: &Workspace) -> Result<Value, ApiError> {
    Ok(render_all(db, slice::from_ref(workspace)).await?.remove(0))
}

pub(super) async fn render_all(
    db: &mut Connection,
    workspaces: &[Workspace],
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = workspaces.iter().map(|workspace| workspace.id.as_str()).collect();
    let runs = run::current_of(db, &ids).await?;
    let latest_runs = run::latest_of(db, &ids).await?;
    let configurations = configuration_version::latest_uploaded_of(db, &ids).await?;
    let states = state_version::current_of(db, &ids).await?;
    let tags = tag::of_workspaces(db, &ids).await?;
    let schedules = run_schedule::of_workspaces(db, &ids).await?;
    let render = |workspace: &Workspace| {
        let of_workspace = |pairs: &[(String, String)]| {
            let pair = pairs.iter().find(|(id, _)| *id == workspace.id);
            pair.map(|(_, related)| related.clone())
        };
        let related = Related {
            current_run: runs.iter().find(|run| run.workspace_id == workspace.id),
            latest_run: of_workspace(&latest_runs),
            configuration: of_workspace(&configurations),
            state: states.iter().find(|state| state.workspace_id == workspace.id),
            tags: tags.iter().filter(|(id, _)| *id == workspace.id).map(|(_, tag)| tag).collect(),
            schedules: schedules
                .iter()
                .filter(|schedule| schedule.workspace_id == workspace.id)
                .collect(),
        };
        render_with(workspace, &related)
    };
    Ok(workspaces.iter().map(render).collect())
}

/// What an answer says of a workspace besides its own row.
struct Related<'a> {
    current_run: Option<&'a Run>,
    latest_run: Option<String>,
    /// The latest one that is uploaded.
    configuration: Option<String>,
    state: Option<&'a StateVersion>,
    tags: Vec<&'a String>,
    schedules: Vec<&'a RunSchedule>,
}

impl Related<'_> {
    fn cron(&self, mode: ScheduleMode) -> Option<&str> {
        let schedule = self.schedules.iter().find(|schedule| schedule.mode == mode);
        schedule.map(|schedule| schedule.cron.as_str())
    }
}

fn render_with(workspace: &Workspace, related: &Related) -> Value {
    let Related { current_run: run, latest_run, configuration, state, .. } = related;
    let applying = run.filter(|run| run.locks_workspace());
    let locked_by_run = applying.map(|run| format!("The apply of run {} is under way.", run.id));
    let operation_minutes = workspace
        .plan_timeout
        .filter(|seconds| workspace.apply_timeout == Some(*seconds) && seconds % 60 == 0)
        .map(|seconds| seconds / 60);
    let locked_reason = locked_by_run.or(workspace.lock_reason.clone());
    json!({
        "type": "workspaces",
        "id": workspace.id,
        "attributes": {
            "name": workspace.name,
            // Clients expect one.
            "iac-platform": workspace.iac_platform.unwrap_or_default(),
            "terraform-version": workspace.terraform_version,
            "allow-other-terraform-version": workspace.allow_other_terraform_version,
            "working-directory": workspace.working_directory,
            "image": workspace.image,
            "hooks": render_hooks(&workspace.hooks),
            "auto-apply": workspace.auto_apply,
            "deletion-protection-enabled": workspace.deletion_protection,
            "plan-timeout-seconds": workspace.plan_timeout,
            "apply-timeout-seconds": workspace.apply_timeout,
            "run-operation-timeout": operation_minutes,
            "apply-schedule": related.cron(ScheduleMode::Apply),
            "destroy-schedule": related.cron(ScheduleMode::Destroy),
            "execution-mode": workspace.execution_mode,
            "operations": workspace.execution_mode == ExecutionMode::Remote,
            "remote-state-sharing": workspace.remote_state_sharing,
            "actions": { "is-destroyable": configuration.is_some() },
            "can-queue-destroy-plan": configuration.is_some(),
            "migration-environment": null,
            "permissions": permissions(),
            "has-resources": state.is_some_and(|state| state.resources > 0),
            "locked": locked_reason.is_some(),
            "locked-reason": locked_reason,
            "created-at": rfc3339(workspace.created_at),
            "updated-at": rfc3339(workspace.updated_at),
        },
        "relationships": {
            "environment": to_one("environments", Some(&workspace.environment_id)),
            "agent-pool": to_one("agent-pools", workspace.pool_id.as_deref()),
            "tags": to_many("tags", related.tags.iter().copied()),
            "configuration-version": to_one("configuration-versions", configuration.as_deref()),
            "current-run": to_one("runs", run.map(|run| run.id.as_str())),
            "latest-run": to_one("runs", latest_run.as_deref()),
        },
    })
}

/// What an admin may do; [`super::access`] says less to a run.
fn permissions() -> Value {
    json!({
        "can-destroy": true,
        "can-force-unlock": true,
        "can-lock": true,
        "can-queue-apply": true,
        "can-queue-destroy": true,
        "can-queue-run": true,
        "can-read-settings": true,
        "can-unlock": true,
        "can-update": true,
        "can-update-variable": true,
    })
}

/// Every hook there is, null where the workspace has none.
fn render_hooks(hooks: &Hooks) -> Value {
    Hook::ALL.into_iter().map(|hook| (hook.name().to_owned(), json!(hooks.0.get(&hook)))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::Method;

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_workspace_names_its_latest_run_and_configuration_and_what_can_be_done() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let working = server.working().await;
        server.app.scheduler.clock.advance(Duration::from_secs(1));
        let read = async |id: &str| {
            server.api(Method::GET, &format!("/workspaces/{id}"), Value::Null).await["data"].take()
        };
        let fresh = read(&server.workspace).await;
        assert_eq!(fresh["relationships"]["latest-run"]["data"], Value::Null);
        assert_eq!(fresh["relationships"]["configuration-version"]["data"], Value::Null);
        assert_eq!(fresh["attributes"]["actions"]["is-destroyable"], false);
        assert_eq!(fresh["attributes"]["can-queue-destroy-plan"], false);
        assert_eq!(fresh["attributes"]["permissions"]["can-queue-run"], true);

        let related = [("workspace", working.workspace.as_str())];
        let latest = server.create("/runs", json!({ "message": "the latest" }), &related).await;
        // A version without an archive is not the latest one that can be run.
        server.configuration_version_of(&working.workspace).await;
        let used = read(&working.workspace).await;
        assert_eq!(used["attributes"]["can-queue-destroy-plan"], true);
        let id_of = |name: &str| used["relationships"][name]["data"]["id"].clone();
        let run = server.api(Method::GET, &format!("/runs/{latest}"), Value::Null).await;
        let version = &run["data"]["relationships"]["configuration-version"]["data"]["id"];
        assert_eq!(id_of("configuration-version"), *version);
        assert_ne!(id_of("current-run"), latest, "it waits for the current one");
        assert_eq!(id_of("latest-run"), latest);
    }

    #[tokio::test]
    async fn an_agent_gets_the_platform_of_a_workspace_and_none_where_nobody_has_chosen() {
        let server = InProcess::new().await;
        for (platform, answered) in [
            (json!(null), "terraform"),
            (json!("opentofu"), "opentofu"),
            (json!("terraform"), "terraform"),
        ] {
            let (workspace, _) = server.run().await;
            let path = format!("/workspaces/{workspace}");
            let document = json!({ "data": { "attributes": { "iac-platform": platform } } });
            let changed = server.api(Method::PATCH, &path, document).await;
            assert_eq!(changed["data"]["attributes"]["iac-platform"], answered);
            let claimed = server.claim().await;
            assert_eq!(claimed["task"]["workspace"]["id"], workspace);
            assert_eq!(claimed["task"]["platform"], platform);
        }
        let path = format!("/api/iacp/v3/workspaces/{}", server.workspace);
        for bad in [json!("pulumi"), json!(1)] {
            let body = json!({ "data": { "attributes": { "iac-platform": bad } } }).to_string();
            let (status, answer) =
                server.call(Method::PATCH, &path, &server.admin, &[], body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        }
    }

    #[test]
    fn hooks_are_checked() {
        let one = |commands: Option<String>| hooks([(Hook::PrePlan, commands)].into());
        let kept = one(Some("make policy".to_owned())).unwrap();
        assert_eq!(kept.0[&Hook::PrePlan], "make policy");
        assert_eq!(one(None).unwrap(), Hooks::default());
        assert_eq!(one(Some(" \n".to_owned())).unwrap(), Hooks::default());
        assert!(one(Some("x".repeat(70_000))).is_err());
    }

    #[test]
    fn versions_and_directories_are_checked() {
        for version in ["1.9.8", "1.10.0-rc1"] {
            assert!(terraform_version(version.to_owned()).is_ok(), "{version}");
        }
        for version in ["1.9", "latest", "1.9.8 ", "1.9.8-a/b", "v1.9.8"] {
            assert!(terraform_version(version.to_owned()).is_err(), "{version}");
        }
        assert!(working_directory("live/eu".to_owned()).is_ok());
        for directory in ["/etc", "../x", "a/../../b"] {
            assert!(working_directory(directory.to_owned()).is_err(), "{directory}");
        }
    }
}

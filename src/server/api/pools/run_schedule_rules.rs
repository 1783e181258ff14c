//! Rules by which the server starts runs: the schedules of workspaces, each by itself.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::Millis;
use crate::run_schedules;
use crate::store::run_schedule::{self, Filter, RunSchedule};
use crate::store::{Connection, is_taken, workspace};
use crate::token::new_id;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/run-schedule-rules", "List the rules of schedules", list)
        .post("/run-schedule-rules", "Create a rule of a schedule", create)
        .get("/run-schedule-rules/{id}", "Read a rule of a schedule", read)
        .patch("/run-schedule-rules/{id}", "Change a rule of a schedule", update)
        .delete("/run-schedule-rules/{id}", "Delete a rule of a schedule", delete)
}

/// When the cron expression in the attribute `name` is due next.
///
/// # Errors
/// It is none.
pub(super) fn due(name: &str, cron: &str, now: Millis) -> Result<Millis, ApiError> {
    run_schedules::next(cron, now).map_err(|why| {
        let detail = format!(
            "This field takes a cron expression in UTC with five fields, such as \
             \"30 3 * * MON-FRI\": {why}."
        );
        ApiError::attribute(name, detail)
    })
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter =
        Filter { id: query.filter("run-schedule-rule"), workspace: query.filter("workspace") };
    let listed = run_schedule::list(&mut db, filter, query.view()).await?;
    let resources = listed.rows.iter().map(render).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let cron: String = payload.required("schedule")?;
    let new = RunSchedule {
        id: new_id("rsr"),
        workspace_id: payload.required_to_one("workspace")?,
        mode: payload.required("schedule-mode")?,
        next_at: due("schedule", &cron, app.scheduler.clock.now())?,
        cron,
    };
    if workspace::find(&mut tx, &new.workspace_id).await?.is_none() {
        return Err(ApiError::no_related("workspace", "Workspace", &new.workspace_id));
    }
    run_schedule::insert(&mut tx, &new).await.map_err(mode_taken)?;
    tx.commit().await?;
    Ok(Document::created(render(&new)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut changed = find(&mut tx, &id).await?;
    payload.unchanged("workspace", Some(&changed.workspace_id))?;
    if let Some(mode) = payload.attribute("schedule-mode")? {
        changed.mode = mode;
    }
    if let Some(cron) = payload.attribute::<String>("schedule")? {
        changed.next_at = due("schedule", &cron, app.scheduler.clock.now())?;
        changed.cron = cron;
    }
    run_schedule::update(&mut tx, &changed).await.map_err(mode_taken)?;
    tx.commit().await?;
    Ok(Document::of(render(&changed)))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let rule = find(&mut tx, &id).await?;
    run_schedule::delete(&mut tx, &rule.workspace_id, rule.mode).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn mode_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute(
            "schedule-mode",
            "The workspace has a rule with this mode already: change that one.",
        ),
        false => error.into(),
    }
}

async fn find(db: &mut Connection, id: &str) -> Result<RunSchedule, ApiError> {
    let found = run_schedule::find(db, id).await?;
    found.ok_or_else(|| ApiError::not_found("RunScheduleRule", id))
}

fn render(rule: &RunSchedule) -> Value {
    json!({
        "type": "run-schedule-rules",
        "id": rule.id,
        "attributes": { "schedule": rule.cron, "schedule-mode": rule.mode.name() },
        "relationships": { "workspace": to_one("workspaces", Some(&rule.workspace_id)) },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_rule_is_the_schedule_of_its_workspace() {
        let server = InProcess::new().await;
        let workspace = server.workspace.clone();
        let of_workspace = async || {
            let path = format!("/workspaces/{workspace}");
            let found = server.api(Method::GET, &path, Value::Null).await;
            let attributes = &found["data"]["attributes"];
            (attributes["apply-schedule"].clone(), attributes["destroy-schedule"].clone())
        };
        let rule = |schedule: &str, mode: &str| {
            let related = json!({ "data": { "type": "workspaces", "id": workspace } });
            json!({ "data": {
                "attributes": { "schedule": schedule, "schedule-mode": mode },
                "relationships": { "workspace": related },
            } })
        };
        let made =
            server.api(Method::POST, "/run-schedule-rules", rule("0 6 * * *", "apply")).await;
        assert_eq!(of_workspace().await, (json!("0 6 * * *"), Value::Null));
        let path = format!("/run-schedule-rules/{}", made["data"]["id"].as_str().unwrap());
        for (method, path, body, name) in [
            (Method::POST, "/run-schedule-rules", rule("0 7 * * *", "apply"), "schedule-mode"),
            (Method::POST, "/run-schedule-rules", rule("0 7 * * *", "refresh"), "schedule-mode"),
            (Method::POST, "/run-schedule-rules", rule("soon", "destroy"), "schedule"),
            (
                Method::PATCH,
                &path,
                json!({ "data": { "attributes": { "schedule": "0 0 30 2 *" } } }),
                "schedule",
            ),
        ] {
            let path = format!("{}{path}", super::super::BASE);
            let body = body.to_string();
            let (status, answer) = server.call(method, &path, &server.admin, &[], body).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            assert!(answer.contains(&format!("/data/attributes/{name}\"")), "{answer}");
        }
        assert_eq!(of_workspace().await, (json!("0 6 * * *"), Value::Null));

        // The workspace's own attribute changes the rule, which keeps its id.
        let body = json!({ "data": { "attributes": { "apply-schedule": "0 8 * * *" } } });
        server.api(Method::PATCH, &format!("/workspaces/{workspace}"), body).await;
        let read = server.api(Method::GET, &path, Value::Null).await;
        assert_eq!(read["data"]["attributes"]["schedule"], "0 8 * * *");
        let body = json!({ "data": { "attributes": { "schedule-mode": "destroy" } } });
        server.api(Method::PATCH, &path, body).await;
        assert_eq!(of_workspace().await, (Value::Null, json!("0 8 * * *")));
        let listed = format!("/run-schedule-rules?filter[workspace]={workspace}&include=workspace");
        let listed = server.api(Method::GET, &listed, Value::Null).await;
        assert_eq!(listed["included"][0]["id"], workspace.as_str(), "{listed}");
        server.api(Method::DELETE, &path, Value::Null).await;
        assert_eq!(of_workspace().await, (Value::Null, Value::Null));
    }
}

//! Agents.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use semver::Version;
use serde::Serialize;
use serde_json::{Value, json};

use super::query::ListQuery;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::Connection;
use crate::store::agent::{self, Agent, Filter};
use crate::store::task::{self, Task};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/agents", "List agents", list)
        .get("/agents/{id}", "Read an agent", read)
        .delete("/agents/{id}", "Delete an agent that is offline", delete)
        .post("/agents/{id}/actions/drain", "Drain an agent", drain)
        .post("/agents/{id}/actions/resume", "Resume a drained agent", resume)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("agent"),
        pool: query.filter("agent-pool"),
        name: query.filter("name"),
    };
    let listed = agent::list(&mut db, filter, query.view()).await?;
    let resources = render_all(&app, &mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let agent = find(&mut db, &id).await?;
    let tasks = task::of_agent(&mut db, &id).await?;
    Ok(Document::of(render(&app, &agent, &tasks)))
}

/// Deletes an agent that is offline.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let agent = find(&mut tx, &id).await?;
    let tasks = task::of_agent(&mut tx, &id).await?;
    match status(&app, &agent, &tasks) {
        Status::Offline | Status::Errored if tasks.is_empty() => {}
        Status::Idle => {
            return Err(ApiError::conflict(
                "The agent is connected and can't be deleted: stop it first.",
            ));
        }
        Status::Busy | Status::Offline | Status::Errored => {
            return Err(ApiError::conflict("The agent is busy and can't be deleted."));
        }
    }
    agent::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn drain(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    set_draining(app, id, true).await
}

async fn resume(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    set_draining(app, id, false).await
}

async fn set_draining(app: App, id: String, drain: bool) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let agent = find(&mut db, &id).await?;
    drop(db);
    app.scheduler.set_draining(&agent, drain).await?;
    read(State(app), Path(id)).await
}

async fn find(db: &mut Connection, id: &str) -> Result<Agent, ApiError> {
    agent::find(db, id).await?.ok_or_else(|| ApiError::not_found("Agent", id))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Idle,
    Busy,
    Offline,
    Errored,
}

impl Status {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Idle, Self::Busy, Self::Offline, Self::Errored];

    /// As the API has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Offline => "offline",
            Self::Errored => "errored",
        }
    }
}

/// `tasks` include those that the agent was offered or has.
pub(crate) fn status(app: &App, agent: &Agent, tasks: &[Task]) -> Status {
    if !app.scheduler.is_online(agent) {
        return Status::Offline;
    }
    if agent.errored {
        return Status::Errored;
    }
    let is_busy = tasks
        .iter()
        .any(|task| task.agent_id.as_deref() == Some(&agent.id) && task.state.is_with_agent());
    if is_busy { Status::Busy } else { Status::Idle }
}

/// How urgent it is that an agent gets the server's version: by the part of it that is behind.
fn upgrade_status(version: &str) -> &'static str {
    let server = Version::parse(env!("CARGO_PKG_VERSION"));
    let (Ok(agent), Ok(server)) = (Version::parse(version), server) else { return "none" };
    if agent >= server {
        "none"
    } else if agent.major < server.major {
        "high"
    } else if agent.minor < server.minor {
        "medium"
    } else {
        "low"
    }
}

/// The agents with these ids.
pub(super) async fn load(
    app: &App,
    db: &mut Connection,
    ids: &[&str],
) -> Result<Vec<Value>, ApiError> {
    let agents = agent::with_ids(db, ids).await?;
    render_all(app, db, &agents).await
}

async fn render_all(
    app: &App,
    db: &mut Connection,
    agents: &[Agent],
) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<&str> = agents.iter().map(|agent| agent.id.as_str()).collect();
    let tasks = task::of_agents(db, &ids).await?;
    Ok(agents.iter().map(|agent| render(app, agent, &tasks)).collect())
}

fn render(app: &App, agent: &Agent, tasks: &[Task]) -> Value {
    json!({
        "type": "agents",
        "id": agent.id,
        "attributes": {
            "name": agent.name,
            "status": status(app, agent, tasks),
            "error-message": agent.error_message,
            "draining-since": agent.draining_since.map(rfc3339),
            "version": agent.version,
            "os": agent.os,
            "driver": agent.driver,
            "runtime": agent.runtime,
            "cpu-platform": agent.platform,
            "concurrency": agent.concurrency,
            "host-memory-megabytes": agent.host_memory,
            "run-memory-megabytes": agent.run_memory,
            "upgrade-status": upgrade_status(&agent.version),
            "created-at": rfc3339(agent.created_at),
            "last-seen-at": rfc3339(app.scheduler.last_seen_at(agent)),
        },
        "relationships": { "pool": to_one("agent-pools", Some(&agent.pool_id)) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_older_than_the_server_is_to_be_upgraded() {
        let server = Version::parse(env!("CARGO_PKG_VERSION")).unwrap();
        let Version { major, minor, patch, .. } = server;
        for (version, status) in [
            (server.to_string(), "none"),
            (format!("{major}.{minor}.{}", patch + 1), "none"),
            (format!("{major}.{minor}.{patch}-rc.1"), "low"),
            (format!("{major}.0.99"), if minor > 0 { "medium" } else { "none" }),
            ("0.0.1".to_owned(), if major > 0 { "high" } else { "medium" }),
            ("unknown".to_owned(), "none"),
        ] {
            assert_eq!(upgrade_status(&version), status, "{version}");
        }
    }
}

//! `/agents/ID`: an agent, and its removal.

use axum::Router;
use axum::extract::{self, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use semver::Version;
use serde::Serialize;

use super::address::Path;
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::refusal::Refusal;
use super::session::{self, Session};
use crate::api::pools::agents::{self, Status};
use crate::api::pools::call;
use crate::app::App;
use crate::clock::Millis;
use crate::packages::newest_agent;
use crate::store::agent::{self as store, Agent};
use crate::store::agent_change::{self, AgentChange};
use crate::store::agent_pool::AgentPool;
use crate::store::task::{self, Task, Work};
use crate::store::{Connection, agent_pool};

/// How many of an agent's runs are shown.
const RUNS: i64 = 50;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/agents/{id}", get(show))
        .route("/agents/{id}/remove", get(ask_to_remove).post(remove))
        .route("/agents/{id}/drain", post(drain))
        .route("/agents/{id}/resume", post(resume))
}

/// An agent, as lists show it.
#[derive(Serialize)]
pub(super) struct Row {
    id: String,
    name: String,
    status: Status,
    draining_since: Option<Millis>,
    error: Option<String>,
    version: String,
    /// A newer one that this server has packages of.
    newer: Option<String>,
    os: String,
    driver: String,
    platform: String,
    slots: i64,
    busy: usize,
    memory: Option<SlotMemory>,
    created_at: Millis,
    last_seen_at: Millis,
    work: Vec<Work>,
}

/// What an agent's runs can use when all its slots are busy, against what its host has.
#[derive(Serialize)]
struct SlotMemory {
    /// Of a run, in MB.
    run: i64,
    /// Of all slots together, in MB.
    slots: i64,
    /// Of the host, in MB.
    host: i64,
    /// What `slots` is of `host`.
    percent: i64,
}

impl SlotMemory {
    fn of(agent: &Agent) -> Option<Self> {
        let (run, host) = agent.run_memory.zip(agent.host_memory)?;
        let slots = run.saturating_mul(agent.concurrency);
        Some(Self { run, slots, host, percent: slots.saturating_mul(100) / host.max(1) })
    }
}

impl Row {
    fn of(
        app: &App,
        agent: Agent,
        tasks: &[Task],
        work: &[Work],
        newest: Option<&Version>,
    ) -> Self {
        let is_own = |work: &&Work| work.agent_id == agent.id;
        let work: Vec<Work> = work.iter().filter(is_own).cloned().collect();
        let last_seen_at = app.scheduler.last_seen_at(&agent);
        let memory = SlotMemory::of(&agent);
        Self {
            status: agents::status(app, &agent, tasks),
            draining_since: agent.draining_since,
            error: agent.error_message,
            busy: work.iter().filter(|work| work.state.is_with_agent()).count(),
            slots: agent.concurrency,
            memory,
            id: agent.id,
            name: agent.name,
            newer: newer(&agent.version, newest),
            version: agent.version,
            os: agent.os.replace('_', " "),
            driver: agent.driver,
            platform: agent.platform.replace('_', "/"),
            created_at: agent.created_at,
            last_seen_at,
            work,
        }
    }
}

/// The newest version, if it is newer than an agent's.
fn newer(own: &str, newest: Option<&Version>) -> Option<String> {
    let own = Version::parse(own).ok()?;
    newest.filter(|newest| own < **newest).map(Version::to_string)
}

/// The agents of a pool, by name; `work` is what they have.
pub(super) async fn rows_of_pool(
    app: &App,
    db: &mut Connection,
    pool_id: &str,
    work: &[Work],
) -> Result<Vec<Row>, PageError> {
    let mut agents = store::of_pools(db, &[pool_id]).await?;
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    rows(app, db, agents, work).await
}

pub(super) async fn rows(
    app: &App,
    db: &mut Connection,
    agents: Vec<Agent>,
    work: &[Work],
) -> Result<Vec<Row>, PageError> {
    let ids: Vec<&str> = agents.iter().map(|agent| agent.id.as_str()).collect();
    let tasks = task::of_agents(db, &ids).await?;
    let newest = app.packages.as_ref().and_then(|packages| newest_agent(&packages.folder));
    let row = |agent| Row::of(app, agent, &tasks, work, newest.as_ref());
    Ok(agents.into_iter().map(row).collect())
}

async fn find(db: &mut Connection, id: &str) -> Result<(Agent, AgentPool), PageError> {
    let agent = store::find(db, id).await?.ok_or(PageError::NotFound("agent"))?;
    let pool = agent_pool::find(db, &agent.pool_id).await?.ok_or(PageError::NotFound("pool"))?;
    Ok((agent, pool))
}

#[derive(Serialize)]
struct AgentPage {
    agent: Row,
    pool_id: String,
    pool: String,
    past: Vec<Work>,
    changes: Vec<AgentChange>,
    refusal: Refusal,
}

async fn read(app: &App, id: &str, refusal: Refusal) -> Result<AgentPage, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let (agent, pool) = find(&mut db, id).await?;
    let work = task::work_of_agent(&mut db, id, RUNS).await?;
    let (past, present): (Vec<Work>, Vec<Work>) =
        work.into_iter().partition(|work| work.state.is_ended());
    let agent = rows(app, &mut db, vec![agent], &present).await?.remove(0);
    let changes = agent_change::of_agent(&mut db, id).await?;
    Ok(AgentPage { agent, pool_id: pool.id, pool: pool.name, past, changes, refusal })
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let content = read(&app, &id, Refusal::default()).await?;
    let page = Page {
        template: "agent.html",
        title: &content.agent.name,
        section: "pools",
        topics: &[&format!("agent:{id}")],
    };
    page.show(&app, &session, &content)
}

async fn drain(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    act(&app, &form, &id, "drain", "Draining: the agent is offered no more runs.").await
}

async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    act(&app, &form, &id, "resume", "Resumed: the agent is offered runs again.").await
}

/// Acts on an agent, and shows the page again that the button is on: the agent's or its pool's.
async fn act(
    app: &App,
    form: &Form,
    id: &str,
    action: &str,
    done: &str,
) -> Result<Response, PageError> {
    let path = format!("/agents/{id}/actions/{action}");
    let agent = call(app, form.session.actor(), Method::POST, &path, "").await?;
    let pool = agent["data"]["relationships"]["pool"]["data"]["id"].as_str();
    let page = match (form.fields.get("page"), pool) {
        ("pool", Some(pool)) => format!("/pools/{pool}"),
        _ => format!("/agents/{id}"),
    };
    Ok(frame::redirect(&page, session::message(done, app)))
}

async fn ask_to_remove(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    confirm(&app, &session, &id, StatusCode::OK, Refusal::default()).await
}

async fn confirm(
    app: &App,
    session: &Session,
    id: &str,
    status: StatusCode,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let content = read(app, id, refusal).await?;
    let title = format!("Remove {}", content.agent.name);
    let page = Page { template: "agent-remove.html", title: &title, section: "pools", topics: &[] };
    page.show_with(status, app, session, &content)
}

async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let pool_id = {
        let mut db = app.scheduler.store.read().await?;
        find(&mut db, &id).await?.1.id
    };
    match agents::delete(State(App::clone(&app)), extract::Path(id.clone())).await {
        Ok(_) => {
            let message = session::message("Removed the agent.", &app);
            Ok(frame::redirect(&format!("/pools/{pool_id}"), message))
        }
        Err(error) => {
            let refusal = Refusal::of(error)?;
            confirm(&app, &form.session, &id, StatusCode::CONFLICT, refusal).await
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::{InProcess, register};
    use crate::pages::browser::Browser;

    /// An agent's id and session.
    async fn agent(server: &InProcess) -> (String, String) {
        let (_, registered) = server.tell("register", &server.pool_token, &register()).await;
        let text = |name: &str| registered[name].as_str().unwrap().to_owned();
        (text("agent_id"), text("session_token"))
    }

    #[test]
    fn a_newer_version_is_told_and_no_older_one() {
        let newest = Version::new(0, 10, 0);
        assert_eq!(newer("0.9.1", Some(&newest)).as_deref(), Some("0.10.0"));
        for own in ["0.10.0", "0.11.0", "of my own"] {
            assert_eq!(newer(own, Some(&newest)), None, "{own}");
        }
        assert_eq!(newer("0.9.1", None), None);
    }

    #[tokio::test]
    async fn its_slots_are_set_against_its_hosts_memory() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let page = async |memory: Value| {
            let mut register = register();
            register["memory"] = memory;
            let (_, registered) = server.tell("register", &server.pool_token, &register).await;
            let id = registered["agent_id"].as_str().unwrap().to_owned();
            browser.page(&format!("/agents/{id}")).await
        };
        assert!(!page(Value::Null).await.contains("Memory of its runs"));
        let fits = page(json!({ "host_megabytes": 8192, "run_megabytes": 512 })).await;
        assert!(fits.contains("5 × 512 MB = 2560 of the host's 8192 MB (31%)"), "{fits}");
        assert!(!fits.contains("Lower its concurrency"), "{fits}");
        let too_much = page(json!({ "host_megabytes": 2048, "run_megabytes": 512 })).await;
        assert!(too_much.contains("(125%)") && too_much.contains("Lower its concurrency"));
        let register = json!({ "host_megabytes": 0, "run_megabytes": 512 });
        let mut refused = crate::in_process::register();
        refused["memory"] = register;
        let (status, _) = server.tell("register", &server.pool_token, &refused).await;
        assert_eq!(status, axum::http::StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn its_page_has_its_status_over_time() {
        let server = InProcess::new().await;
        let (id, _) = agent(&server).await;
        let browser = Browser::new(&server).await;
        assert!(browser.page(&format!("/agents/{id}")).await.contains("No change has lasted"));
        let mut tx = server.app.scheduler.store.write().await.unwrap();
        for number in 0..101 {
            let change = AgentChange {
                health: store::Health::Errored,
                left_itself: false,
                error: Some(format!("<b>no engine, {number}")),
                happened_at: number,
            };
            agent_change::insert(&mut tx, &id, &change).await.unwrap();
        }
        tx.commit().await.unwrap();
        let page = browser.page(&format!("/agents/{id}")).await;
        assert!(page.contains("&lt;b&gt;no engine, 100<"), "{page}");
        assert!(page.contains("no engine, 1<") && !page.contains("no engine, 0<"), "{page}");
    }

    async fn polled(server: &InProcess, session: &str) -> Value {
        let poll = json!({ "free_slots": 1, "tasks": [] });
        server.tell("poll", session, &poll).await.1["events"].clone()
    }

    #[tokio::test]
    async fn a_drained_agent_is_offered_nothing_until_it_is_resumed_on_its_page() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let (id, session) = agent(&server).await;
        let browser = Browser::new(&server).await;
        let page = browser.page(&format!("/agents/{id}")).await;
        assert!(page.contains("Drain one") && !page.contains("Resume one"), "{page}");
        let (status, _) = browser.post(&format!("/agents/{id}/drain"), &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let page = browser.page(&format!("/agents/{id}")).await;
        assert!(page.contains(">drained<") && page.contains("Resume one"), "{page}");
        server.run().await;
        assert_eq!(polled(&server, &session).await, json!([]));
        // Its next session, after a restart of its machine, is drained, too.
        let (again, session) = agent(&server).await;
        assert_eq!(again, id);
        assert_eq!(polled(&server, &session).await, json!([]));
        let attributes = async || {
            let agent = server.api(Method::GET, &format!("/agents/{id}"), Value::Null).await;
            agent["data"]["attributes"].clone()
        };
        assert!(attributes().await["draining-since"].is_string());

        let (status, page) = browser.post(&format!("/agents/{id}/drain"), &[]).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(page.contains("draining already"), "{page}");
        let (status, _) = browser.post(&format!("/agents/{id}/resume"), &[("page", "pool")]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert_eq!(attributes().await["draining-since"], Value::Null);
        assert_eq!(polled(&server, &session).await[0]["event"], "offer");
    }

    #[tokio::test]
    async fn draining_ends_a_held_poll_and_leaves_the_current_run_alone() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let working = server.working().await;
        let agents = server.api(Method::GET, "/agents", Value::Null).await;
        let id = agents["data"][0]["id"].as_str().unwrap().to_owned();
        let browser = Browser::new(&server).await;
        browser.post(&format!("/agents/{id}/drain"), &[]).await;
        let path = agents["data"][0]["relationships"]["pool"]["data"]["id"].as_str().unwrap();
        let page = browser.page(&format!("/pools/{path}")).await;
        assert!(page.contains(">draining<") && page.contains("Resume one"), "{page}");
        let log = format!("tasks/{}/log?attempt=1&offset=0", working.task);
        let log = format!("{}/{log}", protocol::BASE);
        let (status, _) =
            server.call(Method::PUT, &log, &working.task_token, &[], "still at work\n").await;
        assert_eq!(status, StatusCode::OK);
    }
}

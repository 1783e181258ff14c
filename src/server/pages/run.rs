//! `/runs/ID`: a run with its log.

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{Redirect, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::{Path, Query};
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::log;
use super::plan_summary::{self, Summary};
use super::refusal::Refusal;
use super::run_status::{self, Shown};
use super::session::{self, Session};
use super::timeline::{self, Times};
use super::trouble::{self, Trouble};
use crate::api::pools::{CallError, call};
use crate::app::App;
use crate::clock::Millis;
use crate::logs::Lines;
use crate::store::run::{self, Run};
use crate::store::run_event::{self, ActorKind, COMMENTED, RunEvent};
use crate::store::task::{self, Phase, State as TaskState, Task};
use crate::store::{Connection, agent_pool, environment, workspace};
use protocol::Refresh;

/// How many lines of the log the page has in it.
const LINES: u64 = 1000;

/// The script shows the log in blocks of so many lines, which the page's first one begins.
const BLOCK: u64 = 500;

/// The events of a run are few.
const ALL_EVENTS: crate::store::Page = crate::store::Page { number: 1, size: 1000 };

/// How many matches the page lists that was searched without scripts.
const MOST_MATCHES: usize = 500;

/// What a run that is started again has of the one before.
const OPTIONS: [&str; 11] = [
    "is-destroy",
    "auto-apply",
    "plan-only",
    "save-plan",
    "allow-empty-apply",
    "refresh",
    "refresh-only",
    "target-addrs",
    "replace-addrs",
    "variables",
    "terraform-version",
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/runs/{id}", get(show))
        .route("/runs/{id}/actions/{action}", post(act))
        .route("/runs/{id}/comments", post(comment))
        .route("/runs/{id}/retry", post(retry))
        // The link that Terraform prints.
        .route("/app/{organization}/{workspace}/runs/{id}", get(of_terraform))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// `plan` or `apply`; else the latest one that has begun.
    phase: Option<String>,
    /// The first line to show; else the log's end is shown.
    from: Option<u64>,
    /// A text to look for.
    #[serde(default)]
    q: String,
}

#[derive(Serialize)]
struct View {
    id: String,
    status: Shown,
    workspace_id: String,
    workspace: String,
    environment: String,
    message: Option<String>,
    source: &'static str,
    /// What is unusual about it.
    tags: Vec<&'static str>,
    terraform_version: Option<String>,
    targets: Vec<String>,
    replace: Vec<String>,
    /// The names of its own variables.
    variables: Vec<String>,
    auto_apply: bool,
    plan: Option<Summary>,
    error: Option<Trouble>,
    lock: Option<String>,
    /// The pool of its plan and apply.
    pool_id: Option<String>,
    /// Why it waits.
    pending: Option<String>,
    /// How many runs of its workspace go first; none if it does not wait for any.
    ahead: Option<u64>,
    pool_queue: Option<PoolQueue>,
    actions: Actions,
    events: Vec<Event>,
    created_at: Millis,
    updated_at: Millis,
    milliseconds: Millis,
    spans: Vec<timeline::Span>,
    phases: Vec<PhaseView>,
    log: LogView,
}

#[derive(Serialize)]
struct Actions {
    can_confirm: bool,
    can_discard: bool,
    can_cancel: bool,
    can_force_cancel: bool,
    can_retry: bool,
}

/// Where it stands among the plans and applies that wait for the agents of a pool.
#[derive(Serialize)]
struct PoolQueue {
    pool_id: String,
    pool: String,
    /// How many runs the pool executes at once.
    max_concurrency: Option<i64>,
    position: i64,
    length: i64,
}

/// Something that happened to it.
#[derive(Serialize)]
struct Event {
    what: String,
    who: String,
    comment: Option<String>,
    created_at: Millis,
}

#[derive(Serialize)]
struct PhaseView {
    /// `plan` or `apply`.
    name: &'static str,
    state: TaskState,
    is_shown: bool,
    attempt: i64,
    agent: Option<String>,
    pool_id: Option<String>,
    exit_code: Option<i64>,
    milliseconds: Option<Millis>,
}

#[derive(Serialize)]
struct LogView {
    phase: &'static str,
    lines: Lines,
    /// The number of the last line that is shown.
    last: u64,
    /// Whether a part was asked for.
    is_part: bool,
    earlier: Option<u64>,
    later: Option<u64>,
    live: bool,
    attempt: i64,
    is_removed: bool,
    q: String,
    matches: Vec<Found>,
    more_matches: bool,
}

#[derive(Serialize)]
struct Found {
    line: u64,
    from: u64,
}

async fn show(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    page(&app, &session, id, &asked, None).await
}

/// A form of the page that was refused.
#[derive(Serialize)]
struct Refused {
    /// What it was to do: an action, `retry` or `comment`.
    action: String,
    comment: String,
    why: String,
}

impl Refused {
    fn of(action: &str, fields: &Fields, error: CallError) -> Result<Self, PageError> {
        let why = Refusal::of_call(error)?.whole();
        Ok(Self { action: action.to_owned(), comment: fields.raw("comment"), why })
    }
}

async fn page(
    app: &App,
    session: &Session,
    id: String,
    asked: &Asked,
    refused: Option<Refused>,
) -> Result<Response, PageError> {
    let document = call(app, session.actor(), Method::GET, &format!("/runs/{id}"), "").await?;
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, &id).await?.ok_or(PageError::NotFound("run"))?;
    let of = workspace::find(&mut db, &run.workspace_id).await?;
    let of = of.ok_or(PageError::NotFound("workspace"))?;
    let environment = environment::find(&mut db, &of.environment_id).await?;
    let plan = task::of_run(&mut db, &id, Phase::Plan).await?;
    let apply = task::of_run(&mut db, &id, Phase::Apply).await?;
    let shown = match asked.phase.as_deref() {
        Some("plan") => &plan,
        Some("apply") => &apply,
        _ if apply.queued_at.is_some() => &apply,
        _ => &plan,
    };
    let mut phases = Vec::new();
    for task in [&plan, &apply] {
        phases.push(phase(&mut db, task, task.id == shown.id).await?);
    }
    let events = events(&mut db, &id).await?;
    let pool_queue = pool_queue(&mut db, [&plan, &apply]).await?;
    drop(db);
    let summary = plan_summary::read(app, &run, &plan).await?;
    let log = log_view(app, &run, shown, asked).await?;
    let status = Shown::of(run.status);
    let now = app.scheduler.clock.now();
    let attributes = document["data"]["attributes"].clone();
    let text = |name: &str| attributes[name].as_str().map(str::to_owned);
    let may = |action: &str| attributes["actions"][action] == true;
    let view = View {
        workspace_id: of.id,
        workspace: of.name,
        environment: environment.map(|environment| environment.name).unwrap_or_default(),
        message: text("message"),
        source: run.source.name(),
        tags: tags(&run),
        terraform_version: run.terraform_version.clone(),
        targets: run.inputs.options.targets.clone(),
        replace: run.inputs.options.replace.clone(),
        variables: run.inputs.variables.keys().cloned().collect(),
        plan: summary,
        ahead: attributes["position-in-queue"].as_u64().filter(|ahead| *ahead > 0),
        pool_queue,
        auto_apply: run.auto_apply,
        error: trouble::of(&run, &plan, &apply),
        lock: of.lock_reason,
        pool_id: plan.pool_id.clone(),
        actions: Actions {
            can_confirm: may("is-confirmable"),
            can_discard: may("is-discardable"),
            can_cancel: may("is-cancelable"),
            can_force_cancel: may("is-force-cancelable"),
            can_retry: run.has_ended(),
        },
        events,
        pending: text("pending-reason"),
        created_at: run.created_at,
        updated_at: run.updated_at,
        milliseconds: if run.has_ended() { run.updated_at } else { now } - run.created_at,
        spans: timeline::spans(&Times::of(&run, &plan, &apply), now),
        phases,
        log,
        status,
        id,
    };
    let title = format!("{} · {} · {}", view.status.label, view.workspace, view.id);
    let page = Page {
        template: "run.html",
        title: &title,
        section: "runs",
        topics: &[&format!("run:{}", view.id), &format!("workspace:{}", view.workspace_id)],
    };
    let status = if refused.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    page.show_with(status, app, session, &json!({ "run": view, "refused": refused }))
}

fn tags(run: &Run) -> Vec<&'static str> {
    let refresh = run.inputs.options.refresh;
    let tags = [
        ("destroy", run.is_destroy),
        ("plan only", run.is_plan_only),
        ("refresh only", refresh == Refresh::Only),
        ("without refresh", refresh == Refresh::Skip),
        ("saved plan", run.save_plan),
    ];
    tags.into_iter().filter(|(_, is_so)| *is_so).map(|(tag, _)| tag).collect()
}

async fn pool_queue(
    db: &mut Connection,
    tasks: [&Task; 2],
) -> Result<Option<PoolQueue>, PageError> {
    let Some(task) = tasks.into_iter().find(|task| task.state == TaskState::Queued) else {
        return Ok(None);
    };
    let Some(pool_id) = &task.pool_id else { return Ok(None) };
    let (position, length) = task::place_in_queue(db, &task.id, pool_id).await?;
    let pool = agent_pool::find(db, pool_id).await?.ok_or(PageError::NotFound("pool"))?;
    Ok(Some(PoolQueue {
        pool_id: pool.id,
        pool: pool.name,
        max_concurrency: pool.max_concurrency,
        position,
        length,
    }))
}

async fn events(db: &mut Connection, run_id: &str) -> Result<Vec<Event>, PageError> {
    let events = run_event::list(db, run_id, None, ALL_EVENTS.into()).await?.rows;
    let event = |event: RunEvent| {
        let kind = match event.actor.kind {
            ActorKind::Server => "the server",
            ActorKind::LocalAdmin => "an administrator of the server's host",
            ActorKind::AccessToken => "an access token",
            ActorKind::Session => "somebody",
            ActorKind::Agent => "an agent",
        };
        Event {
            what: match event.action.as_str() {
                COMMENTED => "Comment".to_owned(),
                status => run_status::label(status).to_owned(),
            },
            who: event.actor.name.unwrap_or_else(|| kind.to_owned()),
            comment: event.comment,
            created_at: event.created_at,
        }
    };
    Ok(events.into_iter().map(event).collect())
}

async fn of_terraform(
    State(app): State<App>,
    _session: Session,
    Path((organization, name, id)): Path<(String, String, String)>,
) -> Result<Redirect, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, &id).await?.ok_or(PageError::NotFound("run"))?;
    let of = workspace::find(&mut db, &run.workspace_id).await?;
    let of = of.filter(|of| of.name == name).ok_or(PageError::NotFound("run"))?;
    let environment = environment::find(&mut db, &of.environment_id).await?;
    environment
        .filter(|environment| [&environment.id, &environment.name].contains(&&organization))
        .ok_or(PageError::NotFound("run"))?;
    Ok(Redirect::to(&format!("/runs/{}", run.id)))
}

async fn phase(db: &mut Connection, task: &Task, is_shown: bool) -> Result<PhaseView, PageError> {
    let claim = task::find_claim(db, &task.id, task.attempt).await?;
    let milliseconds = task.started_at.zip(task.ended_at).map(|(start, end)| end - start);
    Ok(PhaseView {
        name: task.phase.name(),
        state: task.state,
        is_shown,
        attempt: task.attempt,
        agent: claim.and_then(|claim| claim.agent_name),
        pool_id: task.pool_id.clone(),
        exit_code: task.exit_code.filter(|code| *code != 0),
        milliseconds,
    })
}

async fn log_view(app: &App, run: &Run, task: &Task, asked: &Asked) -> Result<LogView, PageError> {
    let key = log::key(&run.workspace_id, task);
    app.watched.asked(&task.id);
    let end = app.logs.lines(&key, None, 1).await?;
    let total = end.as_ref().map_or(0, |end| end.total);
    let first = block(asked.from.unwrap_or((total + 1).saturating_sub(LINES)));
    let count = if asked.from.is_some() { LINES } else { LINES + BLOCK };
    let lines = app.logs.lines(&key, Some(first), count).await?;
    let lines = lines.unwrap_or_else(|| Lines::none(first));
    let last = first + lines.html.len() as u64 - 1;
    log::check_text(&asked.q)?;
    let found = app.logs.search(&key, asked.q.clone()).await?.unwrap_or_default();
    let matches = found.lines.iter().take(MOST_MATCHES);
    let matches: Vec<_> = matches.map(|line| Found { line: *line, from: block(*line) }).collect();
    Ok(LogView {
        phase: task.phase.name(),
        last,
        is_part: asked.from.is_some(),
        earlier: (first > 1).then(|| block(first.saturating_sub(LINES))),
        later: (last < lines.total && !lines.html.is_empty()).then(|| block(last + 1)),
        lines,
        live: !task.state.is_ended(),
        attempt: task.attempt,
        is_removed: run.files_removed_at.is_some(),
        q: asked.q.clone(),
        more_matches: found.more || found.lines.len() > matches.len(),
        matches,
    })
}

/// The first line of the block that a line is in.
fn block(line: u64) -> u64 {
    (line.max(1) - 1) / BLOCK * BLOCK + 1
}

async fn act(
    State(app): State<App>,
    Path((id, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let done = match action.as_str() {
        "apply" => "Approved: the apply is in the queue.",
        "discard" => "Discarded.",
        "cancel" => "Cancel requested.",
        "force-cancel" => "Canceled by force.",
        _ => return Err(PageError::NotFound("action")),
    };
    let comment = json!({ "comment": form.fields.raw("comment") }).to_string();
    let path = format!("/runs/{id}/actions/{action}");
    match call(&app, form.session.actor(), Method::POST, &path, comment).await {
        Ok(_) => Ok(frame::redirect(&format!("/runs/{id}"), session::message(done, &app))),
        Err(error) => refuse(&app, &form, id, &action, error).await,
    }
}

async fn comment(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let document = json!({ "data": { "attributes": { "body": form.fields.raw("comment") } } });
    let path = format!("/runs/{id}/comments");
    match call(&app, form.session.actor(), Method::POST, &path, document.to_string()).await {
        Ok(_) => {
            let message = session::message("Comment saved.", &app);
            Ok(frame::redirect(&format!("/runs/{id}#history"), message))
        }
        Err(error) => refuse(&app, &form, id, "comment", error).await,
    }
}

/// The run's page again, with what was typed.
async fn refuse(
    app: &App,
    form: &Form,
    id: String,
    action: &str,
    error: CallError,
) -> Result<Response, PageError> {
    let refused = Refused::of(action, &form.fields, error)?;
    page(app, &form.session, id, &Asked::default(), Some(refused)).await
}

/// A new run of the same configuration, with the same options.
async fn retry(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let again = call(&app, form.session.actor(), Method::GET, &format!("/runs/{id}"), "").await?;
    let run = &again["data"];
    let comment = form.fields.get("comment");
    let message = match (comment, run["attributes"]["message"].as_str()) {
        ("", Some(message)) => message.to_owned(),
        ("", None) => format!("Retry of {id}"),
        (comment, _) => comment.to_owned(),
    };
    let mut attributes = json!({ "source": "ui", "message": message });
    for name in OPTIONS {
        attributes[name] = run["attributes"][name].clone();
    }
    let document = json!({ "data": {
        "type": "runs",
        "attributes": attributes,
        "relationships": {
            "workspace": run["relationships"]["workspace"],
            "configuration-version": run["relationships"]["configuration-version"],
        },
    } });
    match call(&app, form.session.actor(), Method::POST, "/runs", document.to_string()).await {
        Ok(made) => {
            let id = made["data"]["id"].as_str().unwrap_or_default();
            Ok(frame::redirect(&format!("/runs/{id}"), session::message("Run started.", &app)))
        }
        Err(error) => refuse(&app, &form, id, "retry", error).await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value;

    use super::*;

    use crate::clock::Clock;
    use crate::in_process::{InProcess, Working};
    use crate::logs::Key;
    use crate::pages::browser::Browser;
    use crate::pages::time;

    const EVIL: &str = "<script>alert(1)</script>\"'";

    #[test]
    fn parts_of_a_log_begin_with_a_block() {
        for (line, first) in [(0, 1), (1, 1), (500, 1), (501, 501), (1999, 1501)] {
            assert_eq!(block(line), first);
        }
    }

    async fn run_of(server: &InProcess, working: &Working) -> String {
        let mut db = server.app.scheduler.store.read().await.unwrap();
        run::current(&mut db, &working.workspace).await.unwrap().unwrap().id
    }

    async fn write_log(server: &InProcess, working: &Working, offset: u64, text: &str) {
        let key = Key {
            workspace_id: working.workspace.clone(),
            task_id: working.task.clone(),
            attempt: 1,
        };
        let text = Bytes::from(text.to_owned());
        let now = server.app.scheduler.clock.now();
        server.app.logs.append(&key, offset, text, now).await.unwrap();
    }

    #[tokio::test]
    async fn the_page_of_a_run_has_the_end_of_its_log_and_links_to_earlier_lines() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let working = server.working().await;
        let run = run_of(&server, &working).await;
        let log: String = (1..=2345).map(|n| format!("line {n} {EVIL}\n")).collect();
        write_log(&server, &working, 0, &log).await;
        let browser = Browser::new(&server).await;
        let page = browser.page(&format!("/runs/{run}")).await;
        assert!(page.contains("line 2345 &lt;script&gt;"), "{page}");
        assert!(page.contains("id=\"L1001\"") && !page.contains("id=\"L1000\""));
        let now = server.app.scheduler.clock.now();
        let time =
            format!("<span class=\"log-time\" data-at=\"{now}\">{}</span>", time::clock(now));
        assert_eq!(page.matches(&time).count(), 1345, "{page}");
        assert!(page.contains("from=1\""));
        assert!(!page.contains("<script>alert"));
        let earlier = browser.page(&format!("/runs/{run}?phase=plan&from=1")).await;
        assert!(earlier.contains("id=\"L1\"") && earlier.contains("id=\"L1000\""));
        let found = browser.page(&format!("/runs/{run}?phase=plan&q=LINE+77+")).await;
        assert!(found.contains("#L77\">77</a>"), "{found}");
    }

    #[tokio::test]
    async fn a_log_is_followed_while_it_grows() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let run = run_of(&server, &working).await;
        let browser = Browser::new(&server).await;
        write_log(&server, &working, 0, "one\n").await;
        let path = format!("/runs/{run}/log?phase=plan&first=1&count=10&after=4");
        let held = browser.get(&path);
        let more = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            write_log(&server, &working, 4, "\x1b[32mtwo\n").await;
        };
        // One whose time is over answers nothing.
        let ((status, answer), ()) = tokio::join!(held, more);
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["html"], json!(["one", "<span class=\"fg2\">two</span>"]));
        assert_eq!((&answer["live"], &answer["total"]), (&json!(true), &json!(2)));
        let (_, found) = browser.get(&format!("/runs/{run}/log/search?phase=plan&q=TWO")).await;
        assert_eq!(found, "{\"lines\":[2],\"more\":false}");
    }

    #[tokio::test]
    async fn a_run_shows_what_is_unusual_about_it_and_where_it_waits() {
        let server = InProcess::new().await;
        let (_, other) = server.run().await;
        let (workspace, _) = server.run().await;
        let attributes = json!({ "plan-only": true, "target-addrs": ["x.y[\"<b>\"]"] });
        let second = server.create("/runs", attributes, &[("workspace", &workspace)]).await;
        let waiting = server.create("/runs", json!({}), &[("workspace", &workspace)]).await;
        let browser = Browser::new(&server).await;
        let page = browser.page(&format!("/runs/{other}")).await;
        assert!(page.contains("1 of 3 in the queue of the pool"), "{page}");
        let page = browser.page(&format!("/runs/{second}")).await;
        assert!(page.contains("3 of 3 in the queue of the pool"), "{page}");
        assert!(page.contains("<span class=\"tag\">plan only</span>"), "{page}");
        assert!(page.contains("<code>x.y[&quot;&lt;b&gt;&quot;]</code>"), "{page}");
        let page = browser.page(&format!("/runs/{waiting}")).await;
        assert!(page.contains("1 run of the workspace goes first"), "{page}");
    }

    #[tokio::test]
    async fn a_run_is_canceled_and_run_again_from_its_page() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let run = run_of(&server, &working).await;
        let browser = Browser::new(&server).await;
        let page = browser.page(&format!("/runs/{run}")).await;
        assert!(page.contains("Cancel run") && !page.contains("Approve"), "{page}");
        let (status, page) = browser.post(&format!("/runs/{run}/actions/apply"), &[]).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(page.contains("only a planned run can"), "{page}");
        let (status, _) =
            browser.post(&format!("/runs/{run}/actions/cancel"), &[("comment", EVIL)]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let page = browser.page(&format!("/runs/{run}")).await;
        assert!(page.contains("Canceling") && page.contains("&lt;script&gt;alert"), "{page}");
        assert!(!page.contains("<script>alert"), "{page}");
        let (status, _) = browser.post(&format!("/runs/{run}/retry"), &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let page = browser.page("/runs").await;
        assert!(page.contains(&format!("Retry of {run}")), "{page}");
    }

    #[tokio::test]
    async fn a_form_without_its_token_changes_nothing_and_strangers_see_nothing() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let run = run_of(&server, &working).await;
        let browser = Browser::new(&server).await;
        for path in [
            format!("/runs/{run}/actions/cancel"),
            format!("/runs/{run}/retry"),
            format!("/workspaces/{}/runs", working.workspace),
            format!("/workspaces/{}/configuration", working.workspace),
            format!("/workspaces/{}/settings", working.workspace),
            format!("/workspaces/{}/variables", working.workspace),
        ] {
            let (status, _) = browser.send(Method::POST, &path, String::new()).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        }
        assert!(browser.page(&format!("/runs/{run}")).await.contains("Planning"));
        for path in [
            "/runs".to_owned(),
            "/workspaces".to_owned(),
            format!("/runs/{run}"),
            format!("/runs/{run}/log?phase=plan&first=1&count=1"),
            format!("/runs/{run}/log/search?phase=plan&q=x"),
            format!("/runs/{run}/log/download?phase=plan"),
            format!("/workspaces/{}", working.workspace),
            format!("/workspaces/{}/states", working.workspace),
        ] {
            let (status, _) = server.call(Method::GET, &path, "", &[], "").await;
            assert_eq!(status, StatusCode::SEE_OTHER, "{path}");
        }
    }
}

//! The log of a plan or an apply: its lines for the script `log.js`, and as a file.

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::address::{Path, Query};
use super::error::PageError;
use super::session::Session;
use crate::app::App;
use crate::logs::{Key, Lines, Matches};
use crate::store::run;
use crate::store::task::{self, Phase, Task};

/// How many lines an answer has at most.
const MOST_LINES: u64 = 2000;

/// How long a text that is searched may be, in bytes.
const MAX_TEXT: usize = 1000;

/// How long an answer waits for more of a log.
const HOLD: Duration = Duration::from_secs(20);

/// How often a task's end is looked for meanwhile.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/runs/{id}/log", get(lines))
        .route("/runs/{id}/log/search", get(search))
        .route("/runs/{id}/log/download", get(download))
}

/// Which log of a run.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Which {
    phase: PhaseName,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PhaseName {
    Plan,
    Apply,
}

#[derive(Debug, Deserialize)]
struct Part {
    first: u64,
    count: u64,
    /// The bytes of the log that the reader has seen: the answer waits until there are more.
    after: Option<u64>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    lines: Lines,
    /// Whether more may come.
    live: bool,
    /// The attempt whose log it is.
    attempt: i64,
}

async fn lines(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
    Query(Which { phase }): Query<Which>,
    Query(part): Query<Part>,
) -> Result<Json<Answer>, PageError> {
    let end = tokio::time::Instant::now() + HOLD;
    let mut session_ended = pin!(session.ended(&app));
    loop {
        let (key, task) = find(&app, &id, phase).await?;
        let growth = app.logs.growth(&key);
        let mut grown = pin!(growth.notified());
        // Before the log is read, else what comes in between is missed.
        grown.as_mut().enable();
        app.watched.asked(&task.id);
        let lines = app.logs.lines(&key, Some(part.first), part.count.min(MOST_LINES)).await?;
        let lines = lines.unwrap_or_else(|| Lines::none(part.first));
        let live = !task.state.is_ended();
        let is_new = part.after.is_none_or(|after| after != lines.bytes);
        let is_over = tokio::time::Instant::now() > end || app.scheduler.wake.is_stopping();
        if is_new || !live || is_over {
            return Ok(Json(Answer { lines, live, attempt: task.attempt }));
        }
        tokio::select! {
            () = grown => {}
            () = tokio::time::sleep(LOOK) => {}
            () = &mut session_ended => return Err(PageError::SignIn { next: None }),
            () = app.scheduler.wake.stopped() => {}
        }
    }
}

#[derive(Debug, Deserialize)]
struct Text {
    q: String,
}

async fn search(
    State(app): State<App>,
    _session: Session,
    Path(id): Path<String>,
    Query(Which { phase }): Query<Which>,
    Query(Text { q }): Query<Text>,
) -> Result<Json<Matches>, PageError> {
    check_text(&q)?;
    let (key, _) = find(&app, &id, phase).await?;
    Ok(Json(app.logs.search(&key, q).await?.unwrap_or_default()))
}

/// Refuses a text that takes too long to search.
pub(super) fn check_text(text: &str) -> Result<(), PageError> {
    match text.len() > MAX_TEXT {
        true => {
            let why = format!("A text that is searched has at most {MAX_TEXT} bytes.");
            Err(PageError::Refused(why))
        }
        false => Ok(()),
    }
}

async fn download(
    State(app): State<App>,
    _session: Session,
    Path(id): Path<String>,
    Query(Which { phase }): Query<Which>,
) -> Result<Response, PageError> {
    let (key, task) = find(&app, &id, phase).await?;
    let file = app.logs.reader(&key).await?.ok_or(PageError::NotFound("log"))?;
    let name = format!("attachment; filename=\"{id}-{}.log\"", task.phase.name());
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, axum::body::Body::from_stream(ReaderStream::new(file))).into_response())
}

async fn find(app: &App, run_id: &str, phase: PhaseName) -> Result<(Key, Task), PageError> {
    let phase = match phase {
        PhaseName::Plan => Phase::Plan,
        PhaseName::Apply => Phase::Apply,
    };
    let mut db = app.scheduler.store.read().await?;
    let run = run::find(&mut db, run_id).await?.ok_or(PageError::NotFound("run"))?;
    let task = task::of_run(&mut db, run_id, phase).await?;
    Ok((key(&run.workspace_id, &task), task))
}

/// The log of the attempt that counts.
pub(super) fn key(workspace_id: &str, task: &Task) -> Key {
    Key { workspace_id: workspace_id.to_owned(), task_id: task.id.clone(), attempt: task.attempt }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_text_too_long_to_search_is_refused_and_no_line_number_is_too_large() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let mut db = server.app.scheduler.store.read().await.unwrap();
        let run = task::find(&mut db, &working.task).await.unwrap().unwrap().run_id;
        drop(db);
        let log = |first| format!("tasks/{}/log?attempt=1&offset={first}", working.task);
        let put = format!("{}/{}", protocol::BASE, log(0));
        let written = server.call(Method::PUT, &put, &working.task_token, &[], "one\n").await;
        assert!(written.0.is_success(), "{written:?}");
        let browser = Browser::new(&server).await;
        for (length, status) in [(MAX_TEXT, StatusCode::OK), (MAX_TEXT + 1, StatusCode::CONFLICT)] {
            let text = "x".repeat(length);
            for path in [
                format!("/runs/{run}/log/search?phase=plan&q={text}"),
                format!("/runs/{run}?phase=plan&q={text}"),
            ] {
                assert_eq!(browser.get(&path).await.0, status, "{length}: {path}");
            }
        }
        let path = format!("/runs/{run}/log?phase=plan&first={}&count=2", u64::MAX);
        assert_eq!(browser.get(&path).await.0, StatusCode::OK);
    }
}

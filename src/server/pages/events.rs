//! Tells open pages what was changed, as server-sent events. An event says no more than
//! that: the page fetches what it shows again.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use url::form_urlencoded;

use super::session::Session;
use crate::app::App;
use crate::store::changes::{REMOVED, Topics};

/// How long changes are collected before a page fetches itself.
const COLLECT: Duration = Duration::from_millis(200);

/// How long a page is left alone after that: the heartbeats of a large pool are many. With the
/// fetch, a change is on the page within a second.
const REST: Duration = Duration::from_millis(800);

/// How often something is sent while nothing changes: proxies end silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a page follows at most before its browser connects again, with a session that is
/// still valid.
const LONGEST: Duration =
    if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(15 * 60) };

pub(super) fn routes() -> Router<App> {
    Router::new().route("/events", get(events))
}

/// `?topic=…&topic=…`: an event for each time that one of them was changed.
async fn events(
    State(app): State<App>,
    _session: Session,
    RawQuery(query): RawQuery,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let query = query.unwrap_or_default();
    let wanted = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "topic");
    let mut wanted: Vec<String> = wanted.map(|(_, topic)| topic.into_owned()).collect();
    wanted.push(REMOVED.to_owned());
    let changes = app.scheduler.store.changes.watch();
    let events = futures_util::stream::unfold((app, changes, wanted, None), async |state| {
        let (app, mut changes, wanted, last) = state;
        loop {
            let topics = tokio::select! {
                topics = changes.recv() => topics,
                () = app.scheduler.wake.stopped() => return None,
            };
            let concerns_page = match topics {
                Ok(topics) => concerns(&wanted, &topics),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return None,
            };
            if concerns_page {
                let rested = last.map(|last: Instant| last + REST);
                let collected = Instant::now() + COLLECT;
                tokio::time::sleep_until(rested.map_or(collected, |at| at.max(collected))).await;
                // What was changed meanwhile, the same fetch shows.
                changes = changes.resubscribe();
                // Browsers drop an event without data.
                let event = Event::default().event("change").data("changed");
                return Some((Ok(event), (app, changes, wanted, Some(Instant::now()))));
            }
        }
    });
    let events = events.take_until(tokio::time::sleep(LONGEST));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn concerns(wanted: &[String], topics: &Topics) -> bool {
    wanted.iter().any(|topic| topics.contains(topic))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_page_follows_no_longer_than_its_session_was_checked_for() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let followed = tokio::time::timeout(10 * LONGEST, browser.get("/events?topic=pools"));
        assert_eq!(followed.await.expect("it ends").0, StatusCode::OK);
    }
}

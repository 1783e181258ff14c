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

pub(super) fn routes() -> Router<App> {
    Router::new().route("/events", get(events))
}

/// `?topic=…&topic=…`: an event for each time that one of them was changed, until the session
/// ends.
async fn events(
    State(app): State<App>,
    session: Session,
    RawQuery(query): RawQuery,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let query = query.unwrap_or_default();
    let wanted = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "topic");
    let mut wanted: Vec<String> = wanted.map(|(_, topic)| topic.into_owned()).collect();
    wanted.push(REMOVED.to_owned());
    let changes = app.scheduler.store.changes.watch();
    let ended = session.ended(&app);
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
    Sse::new(events.take_until(ended)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn concerns(wanted: &[String], topics: &Topics) -> bool {
    wanted.iter().any(|topic| topics.contains(topic))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use axum::http::StatusCode;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_page_follows_until_its_session_ends() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let mut followed = pin!(browser.get("/events?topic=pools"));
        let early = tokio::time::timeout(Duration::from_millis(200), &mut followed).await;
        assert!(early.is_err(), "{early:?}");
        assert_eq!(browser.post("/sign-out", &[]).await.0, StatusCode::SEE_OTHER);
        let followed = tokio::time::timeout(Duration::from_secs(10), followed).await;
        assert_eq!(followed.expect("it ends").0, StatusCode::OK);
    }
}

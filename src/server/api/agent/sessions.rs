//! Registration, polls and heartbeats.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::received::Received;
use super::refusal::Refusal;
use super::{InSession, WithPoolToken};
use crate::app::{App, Bearer};
use protocol::{CheckToken, Event, Events, Heartbeat, Poll, Register, Registered};

/// `POST register`
pub(super) async fn register(
    State(app): State<App>,
    WithPoolToken(token): WithPoolToken,
    register: Result<Received<Register>, Refusal>,
) -> Result<(StatusCode, Json<Registered>), Refusal> {
    let Received(register) = register?;
    let (agent, session_token) = app.scheduler.register(&token, &register).await?;
    let registered = Registered {
        agent_id: agent.id,
        pool_id: agent.pool_id,
        session_token,
        intervals: app.scheduler.terms().intervals(),
    };
    Ok((StatusCode::CREATED, Json(registered)))
}

/// `POST check-token`
pub(super) async fn check_token(
    State(app): State<App>,
    Received(check): Received<CheckToken>,
) -> Result<StatusCode, Refusal> {
    app.scheduler.pool_token(check.token.expose()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST poll`
pub(super) async fn poll(
    State(app): State<App>,
    Bearer(token): Bearer,
    InSession(session): InSession,
    Received(mut poll): Received<Poll>,
) -> Result<Json<Events>, Refusal> {
    let scheduler = &app.scheduler;
    let is_draining = session.is_draining;
    if is_draining {
        poll.free_slots = 0;
    }
    // What asks the database is in boxes: a poll that is held keeps no place for it.
    Box::pin(scheduler.renew(&session, &poll)).await?;

    if let Some(intervals) = scheduler.new_intervals(&session) {
        return Ok(Json(Events { events: vec![Event::NewIntervals(intervals)] }));
    }

    let deadline = Instant::now() + scheduler.terms().poll();
    let held = scheduler.hold(&session, &poll);
    loop {
        held.ready();
        if scheduler.wake.is_stopping() {
            return Ok(Json(Events::default()));
        }
        // It may have been woken because the session has ended.
        let session = Box::pin(scheduler.session(token.expose())).await?;
        if session.is_draining != is_draining {
            // The next poll is answered accordingly.
            return Ok(Json(Events::default()));
        }
        let events = Box::pin(scheduler.events(&session, &poll)).await?;
        if !events.is_empty() {
            return Ok(Json(Events { events }));
        }
        tokio::select! {
            () = held.woken() => {}
            () = scheduler.wake.stopped() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(Json(Events::default())),
        }
    }
}

/// `POST heartbeat`
pub(super) async fn heartbeat(
    State(app): State<App>,
    InSession(session): InSession,
    Received(beat): Received<Heartbeat>,
) -> Result<StatusCode, Refusal> {
    app.scheduler.heartbeat(&session, &beat).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST deregister`
pub(super) async fn deregister(
    State(app): State<App>,
    InSession(session): InSession,
) -> Result<StatusCode, Refusal> {
    app.scheduler.deregister(&session).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! The log, piece by piece.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::OfLiveTask;
use super::refusal::Refusal;
use super::tasks::log_key;
use crate::app::App;
use crate::logs::Appended;
use protocol::LogOffset;
use protocol::limits::Message as _;

/// Where a piece belongs.
#[derive(Debug, Deserialize)]
pub(super) struct Place {
    attempt: u32,
    offset: u64,
}

/// `PUT tasks/ID/log`
pub(super) async fn append(
    State(app): State<App>,
    task: OfLiveTask,
    place: Result<Query<Place>, QueryRejection>,
    piece: Result<Bytes, BytesRejection>,
) -> Result<Json<LogOffset>, Refusal> {
    let Query(place) = place?;
    task.check(place.attempt)?;
    LogOffset { offset: place.offset, interval_milliseconds: None }.check()?;
    let key = log_key(&app, &task.0).await?;
    let now = app.scheduler.clock.now();
    match app.logs.append(&key, place.offset, piece?, now).await? {
        Appended::To(offset) => {
            let interval_milliseconds = Some(app.watched.interval(&task.0.id));
            Ok(Json(LogOffset { offset, interval_milliseconds }))
        }
        Appended::WrongOffset(offset) => {
            Err(Refusal::Offset(StatusCode::RANGE_NOT_SATISFIABLE, offset))
        }
    }
}

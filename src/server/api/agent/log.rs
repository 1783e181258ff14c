//! The log, piece by piece.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::OfTask;
use super::refusal::Refusal;
use super::tasks::log_key;
use crate::protocol::LogOffset;
use crate::server::app::App;
use crate::server::logs::Appended;

/// Where a piece belongs.
#[derive(Debug, Deserialize)]
pub struct Place {
    attempt: u32,
    offset: u64,
}

/// `PUT tasks/ID/log`
pub async fn append(
    State(app): State<App>,
    OfTask(task): OfTask,
    place: Result<Query<Place>, QueryRejection>,
    piece: Result<Bytes, BytesRejection>,
) -> Result<Json<LogOffset>, Refusal> {
    let Query(place) = place?;
    if task.attempt != i64::from(place.attempt) || !task.state.is_with_agent() {
        return Err(Refusal::conflict(format!("attempt {} is over", place.attempt)));
    }
    let key = log_key(&app, &task).await?;
    match app.logs.append(&key, place.offset, piece?).await? {
        Appended::To(offset) => Ok(Json(LogOffset { offset })),
        Appended::WrongOffset(offset) => {
            Err(Refusal::Offset(StatusCode::RANGE_NOT_SATISFIABLE, offset))
        }
    }
}

//! Starts the runs of schedules.
//!
//! A schedule that was due while the server did not run starts one run, however often it was
//! due; one whose earlier run has not ended starts none.

use anyhow::Result;
use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use tracing::{error, info};

use crate::app::App;
use crate::clock::Millis;
use crate::started_runs::start;
use crate::store::run::{self, Source};
use crate::store::run_schedule::{self, ScheduleMode};

/// When a cron expression is due next, in UTC.
///
/// # Errors
/// Why it is none.
pub(crate) fn next(cron: &str, after: Millis) -> Result<Millis, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
    let parsed = parser.parse(cron).map_err(|error| error.to_string())?;
    let after: DateTime<Utc> =
        DateTime::from_timestamp_millis(after).ok_or("the clock is out of range")?;
    let next = parsed.find_next_occurrence(&after, false).map_err(|error| error.to_string())?;
    Ok(next.timestamp_millis())
}

/// Starts what is due.
pub(crate) async fn sweep(app: &App) -> Result<()> {
    let now = app.scheduler.clock.now();
    let mut db = app.scheduler.store.read().await?;
    let due = run_schedule::due(&mut db, now).await?;
    drop(db);
    for mut schedule in due {
        // First: a run that cannot be started now is not tried again each time.
        match next(&schedule.cron, now) {
            Ok(next_at) => schedule.next_at = next_at,
            Err(why) => {
                error!(schedule.workspace_id, "cannot follow {}: {why}", schedule.mode.attribute());
                schedule.next_at = Millis::MAX;
            }
        }
        let mut tx = app.scheduler.store.write().await?;
        let is_there = run_schedule::advance(&mut tx, &schedule).await?;
        let earlier = run::unfinished_of_schedule(&mut tx, &schedule).await?;
        tx.commit().await?;
        if !is_there {
            continue;
        }
        let mode = schedule.mode.attribute();
        if let Some(earlier) = earlier {
            info!(schedule.workspace_id, mode, earlier, "no run: the earlier one has not ended");
            continue;
        }
        let is_destroy = schedule.mode == ScheduleMode::Destroy;
        let message = format!("Started by the {mode}.");
        start(app, Source::Schedule, &schedule.workspace_id, is_destroy, &message).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::InProcess;

    #[test]
    fn a_cron_expression_says_when_it_is_due_next_in_utc() {
        // Tuesday.
        let after: DateTime<Utc> = "2023-11-14T22:13:20Z".parse().unwrap();
        for (cron, due) in [
            ("30 22 * * *", "2023-11-14T22:30:00Z"),
            ("13 22 * * *", "2023-11-15T22:13:00Z"),
            ("0 6 * * MON-FRI", "2023-11-15T06:00:00Z"),
            ("*/15 * * * *", "2023-11-14T22:15:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
        ] {
            let due: DateTime<Utc> = due.parse().unwrap();
            assert_eq!(next(cron, after.timestamp_millis()), Ok(due.timestamp_millis()), "{cron}");
        }
        for cron in ["", "soon", "* * *", "61 * * * *", "0 0 30 2 *", "0 0 0 * * *"] {
            assert!(next(cron, after.timestamp_millis()).is_err(), "{cron}");
        }
    }

    struct Scheduled {
        server: InProcess,
        workspace: String,
    }

    impl Scheduled {
        /// A workspace with a configuration, whose first run is discarded.
        async fn new() -> Self {
            let server = InProcess::with_clock(Clock::standing()).await;
            let (workspace, run) = server.run().await;
            server.api(Method::POST, &format!("/runs/{run}/actions/cancel"), json!({})).await;
            Self { server, workspace }
        }

        async fn set(&self, body: Value) -> (StatusCode, Value) {
            let path = format!("/api/iacp/v3/workspaces/{}/actions/set-schedule", self.workspace);
            let headers = [("content-type", "application/json")];
            let (status, answer) = self
                .server
                .call(Method::POST, &path, &self.server.admin, &headers, body.to_string())
                .await;
            (status, serde_json::from_slice(&answer).unwrap_or_default())
        }

        async fn advance(&self, hours: u64) -> Vec<Value> {
            self.server.app.scheduler.clock.advance(Duration::from_secs(hours * 3600));
            sweep(&self.server.app).await.unwrap();
            let path = format!("/runs?filter[workspace]={}", self.workspace);
            let listed = self.server.api(Method::GET, &path, Value::Null).await;
            let scheduled = listed["data"].as_array().unwrap().iter();
            scheduled.filter(|run| run["attributes"]["source"] == "schedule").cloned().collect()
        }
    }

    #[tokio::test]
    async fn a_schedule_starts_one_run_when_it_is_due_and_none_while_that_goes_on() {
        let site = Scheduled::new().await;
        let (status, answer) =
            site.set(json!({ "apply-schedule": null, "destroy-schedule": "0 * * * *" })).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let attributes = &answer["data"]["attributes"];
        assert_eq!(attributes["apply-schedule"], Value::Null);
        assert_eq!(attributes["destroy-schedule"], "0 * * * *");
        assert_eq!(site.advance(0).await.len(), 0);
        // It was due more than once meanwhile.
        let runs = site.advance(5).await;
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(runs[0]["attributes"]["is-destroy"], true);
        assert_eq!(site.advance(1).await.len(), 1, "the earlier one has not ended");
        let run = runs[0]["id"].as_str().unwrap();
        site.server.api(Method::POST, &format!("/runs/{run}/actions/cancel"), json!({})).await;
        assert_eq!(site.advance(1).await.len(), 2);
        let cleared = json!({ "apply-schedule": null, "destroy-schedule": null });
        let (_, answer) = site.set(cleared).await;
        assert_eq!(answer["data"]["attributes"]["destroy-schedule"], Value::Null);
        assert_eq!(site.advance(5).await.len(), 2);
    }

    #[tokio::test]
    async fn a_schedule_that_never_is_due_or_cannot_be_read_is_refused() {
        let site = Scheduled::new().await;
        for (body, pointer) in [
            (json!({ "apply-schedule": "every day" }), "apply-schedule"),
            (json!({ "destroy-schedule": "0 0 30 2 *" }), "destroy-schedule"),
            (json!({ "apply-schedule": 5 }), "apply-schedule"),
            (json!({ "plan-schedule": "0 0 * * *" }), "plan-schedule"),
        ] {
            let (status, answer) = site.set(body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            let source = &answer["errors"][0]["source"]["pointer"];
            assert_eq!(*source, format!("/data/attributes/{pointer}"));
        }
        assert_eq!(site.set(json!("x")).await.0, StatusCode::BAD_REQUEST);
        let (status, answer) = site.set(json!({ "apply-schedule": "x".repeat(1 << 20) })).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
        assert_eq!(answer["errors"][0]["status"], "413", "it is an error document: {answer}");
    }
}

//! Runs that the server starts by itself: those of schedules and of triggers.

use std::time::Duration;

use serde_json::{Map, json};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::api::pools::{self, Payload};
use crate::app::App;
use crate::store::run::Source;
use crate::store::run_event::Actor;
use crate::{run_schedules, run_triggers};

/// How often the server looks for runs to start.
const SWEEP: Duration = Duration::from_secs(5);

/// Starts runs until the server stops.
pub(crate) async fn start_due_runs(app: &App) {
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sweep = async {
            interval.tick().await;
            for done in [run_schedules::sweep(app).await, run_triggers::sweep(app).await] {
                if let Err(error) = done {
                    error!("cannot start the runs of schedules and triggers: {error:#}");
                }
            }
        };
        tokio::select! {
            () = sweep => {}
            () = app.scheduler.wake.stopped() => return,
        }
    }
}

/// Starts a run as if the pool API had been asked for it. One that cannot be started is not
/// tried again: the log says why.
pub(crate) async fn start(
    app: &App,
    source: Source,
    workspace: &str,
    is_destroy: bool,
    message: &str,
) {
    let attributes = json!({ "is-destroy": is_destroy, "message": message });
    let related = json!({ "data": { "type": "workspaces", "id": workspace } });
    let started = async {
        let payload = Payload::of(
            "runs",
            attributes.as_object().cloned().unwrap_or_default(),
            Map::from_iter([("workspace".to_owned(), related)]),
        )?;
        pools::runs::start(app, Actor::SERVER, &payload, source).await
    };
    match started.await {
        Ok(run) => info!(workspace, run = run.id, source = source.name(), "run started"),
        Err(error) => {
            warn!(workspace, source = source.name(), "no run started: {}", error.text());
        }
    }
}

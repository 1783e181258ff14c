//! What the plan of a run does, as the run's page shows it.

use std::io::{BufReader, Seek as _};

use serde::Serialize;

use super::error::PageError;
use super::plan_changes::{self, PlanChanges};
use super::weight;
use crate::app::App;
use crate::objects;
use crate::store::run::Run;
use crate::store::task::{State, Task};
use protocol::PlanSummary;

/// The longest JSON that is read for the page, in bytes.
const MAX_READ: u64 = 16 * 1024 * 1024;

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    numbers: PlanSummary,
    /// None: its JSON is gone, too long, or takes too much memory.
    changes: Option<PlanChanges>,
}

/// What a finished plan does; none while it is unknown.
pub(super) async fn read(app: &App, run: &Run, plan: &Task) -> Result<Option<Summary>, PageError> {
    let Some(numbers) = plan.summary.0.filter(|_| plan.state == State::Finished) else {
        return Ok(None);
    };
    let key = objects::plan_json(&run.workspace_id, &plan.id, plan.attempt);
    let Some(file) = app.scheduler.objects.get(&key)? else {
        return Ok(Some(Summary { numbers, changes: None }));
    };
    let read = tokio::task::spawn_blocking(move || {
        let is_short = file.metadata()?.len() <= MAX_READ;
        if !is_short || !weight::is_light(BufReader::new(&file))? {
            return Ok(None);
        }
        (&file).rewind()?;
        anyhow::Ok(Some(plan_changes::read(BufReader::new(file))?))
    });
    let changes = read.await.map_err(anyhow::Error::from)?.unwrap_or_else(|error| {
        // An agent sends what it likes; the rest of the page does not depend on it.
        tracing::warn!(run = run.id, "cannot read the plan's JSON: {error:#}");
        None
    });
    Ok(Some(Summary { numbers, changes }))
}

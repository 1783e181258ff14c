//! The picture of a workspace's page: how long its last runs took, and how they ended.

use serde::Serialize;

use super::duration;
use super::run_status::Shown;
use crate::clock::Millis;
use crate::store::run::{self, Run, Search};
use crate::store::task::{self, Task};
use crate::store::{Connection, Page};

/// How many runs are looked at; those that have ended are shown.
const RUNS: Page = Page { number: 1, size: 60 };

/// How wide the place of a bar is, and how high the picture.
const WIDTH: usize = 10;
const HEIGHT: Millis = 100;

/// The picture has room for so many bars, so that few of them stay narrow.
const ROOM: usize = 20;

/// The lowest bar that can be seen.
const LEAST: Millis = 2;

#[derive(Debug, Serialize)]
pub(super) struct Chart {
    width: usize,
    longest: Millis,
    bars: Vec<Bar>,
}

/// A run that has ended.
#[derive(Debug, Serialize)]
struct Bar {
    run_id: String,
    title: String,
    status: Shown,
    /// How long its plan and its apply took, without waiting.
    milliseconds: Millis,
    ended_at: Millis,
    x: usize,
    height: Millis,
    /// What it says when somebody points at it.
    text: String,
}

pub(super) async fn read(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Chart> {
    let search = Search { workspace_id: Some(workspace_id), ..Search::default() };
    let mut runs = run::search(db, search, RUNS).await?.rows;
    runs.retain(Run::has_ended);
    runs.reverse();
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let tasks = task::of_runs(db, &ids).await?;
    Ok(draw(runs, &tasks))
}

fn draw(runs: Vec<Run>, tasks: &[Task]) -> Chart {
    let took = |run: &Run| -> Millis {
        let own = tasks.iter().filter(|task| task.run_id == run.id);
        own.filter_map(|task| Some(task.ended_at? - task.started_at?)).sum()
    };
    let width = runs.len().max(ROOM) * WIDTH;
    let longest = runs.iter().map(took).max().unwrap_or_default();
    let bar = |(place, run): (usize, Run)| {
        let (milliseconds, status) = (took(&run), Shown::of(run.status));
        let title = run.message.unwrap_or_else(|| run.id.clone());
        Bar {
            text: format!("{title}: {}, {}", status.label, duration::text(milliseconds)),
            x: place * WIDTH,
            height: (milliseconds * HEIGHT / longest.max(1)).max(LEAST),
            run_id: run.id,
            title,
            status,
            milliseconds,
            ended_at: run.updated_at,
        }
    };
    let bars = runs.into_iter().enumerate().map(bar).collect();
    Chart { width, longest, bars }
}

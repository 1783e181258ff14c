//! Where the time of a run went.

use serde::Serialize;

use crate::clock::Millis;
use crate::store::run::Run;
use crate::store::task::Task;

/// How wide the bar is, in its own units.
const WIDTH: f64 = 1000.0;

/// The narrowest part of the bar that can be seen.
const LEAST: f64 = 4.0;

/// A part of a run's time.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Span {
    /// For people.
    pub name: &'static str,
    /// For the style sheet.
    pub kind: &'static str,
    pub milliseconds: Millis,
    /// Whether it goes on.
    pub is_now: bool,
    /// Where it stands in the bar.
    pub x: f64,
    pub width: f64,
}

/// The times of a run.
#[derive(Debug)]
pub(super) struct Times {
    pub created: Millis,
    /// None while it goes on.
    pub ended: Option<Millis>,
    pub plan: TaskTimes,
    pub apply: TaskTimes,
}

/// The times of its plan or apply; none: not yet, or never.
#[derive(Debug, Default)]
pub(super) struct TaskTimes {
    pub queued: Option<Millis>,
    pub started: Option<Millis>,
    pub ended: Option<Millis>,
}

impl Times {
    pub(super) fn of(run: &Run, plan: &Task, apply: &Task) -> Self {
        let times = |task: &Task| TaskTimes {
            queued: task.queued_at,
            started: task.started_at,
            ended: task.ended_at,
        };
        Self {
            created: run.created_at,
            ended: run.has_ended().then_some(run.updated_at),
            plan: times(plan),
            apply: times(apply),
        }
    }
}

/// The parts, in their order, up to `now`.
pub(super) fn spans(times: &Times, now: Millis) -> Vec<Span> {
    let Times { created, ended, plan, apply } = times;
    let end = ended.unwrap_or(now);
    let mut spans = Vec::new();
    let mut from = *created;
    // Each begins where the one before it ends; none: it goes on, or never began.
    let ends = [
        ("Waiting for other runs", "waiting", plan.queued),
        ("Plan in the queue", "queued", plan.started),
        ("Plan", "plan", plan.ended),
        ("Waiting for approval", "approval", apply.queued),
        ("Apply in the queue", "queued", apply.started),
        ("Apply", "apply", apply.ended),
    ];
    for (name, kind, until) in ends {
        let is_open = until.is_none();
        let is_now = is_open && ended.is_none();
        let until = until.unwrap_or(end).clamp(from, end.max(from));
        // A plan without changes waits for nobody.
        if is_now || until > from {
            let milliseconds = until - from;
            spans.push(Span { name, kind, milliseconds, is_now, x: 0.0, width: 0.0 });
        }
        from = until;
        if is_open {
            break;
        }
    }
    place(&mut spans);
    spans
}

/// Gives each its place in the bar; also a short one is seen.
fn place(spans: &mut [Span]) {
    let total: Millis = spans.iter().map(|span| span.milliseconds).sum();
    let free = WIDTH - LEAST * spans.len() as f64;
    let mut x = 0.0;
    for span in spans {
        let share = span.milliseconds as f64 / total.max(1) as f64;
        span.x = x;
        span.width = LEAST + free * share;
        x += span.width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: Millis = 1000;

    fn task(queued: i64, started: i64, ended: i64) -> TaskTimes {
        // 0 stands for none.
        let time = |time: i64| (time > 0).then_some(time);
        TaskTimes { queued: time(queued), started: time(started), ended: time(ended) }
    }

    fn times(ended: i64, plan: TaskTimes, apply: TaskTimes) -> Times {
        Times { created: CREATED, ended: (ended > 0).then_some(ended), plan, apply }
    }

    fn parts(times: &Times, now: Millis) -> Vec<(&'static str, i64, bool)> {
        let spans = spans(times, now);
        spans.iter().map(|span| (span.kind, span.milliseconds, span.is_now)).collect()
    }

    #[test]
    fn an_applied_run_shows_where_its_time_went() {
        let times = times(9000, task(1000, 3000, 5000), task(7000, 7500, 9000));
        let expected = [
            ("queued", 2000, false),
            ("plan", 2000, false),
            ("approval", 2000, false),
            ("queued", 500, false),
            ("apply", 1500, false),
        ];
        assert_eq!(parts(&times, 50_000), expected);
        let spans = spans(&times, 50_000);
        let end = spans.last().map(|span| span.x + span.width).unwrap();
        assert!((end - WIDTH).abs() < 0.001, "{end}");
    }

    #[test]
    fn what_goes_on_grows_until_now() {
        let planning = times(0, task(1000, 3000, 0), TaskTimes::default());
        assert_eq!(parts(&planning, 3500), [("queued", 2000, false), ("plan", 500, true)]);
        let waiting = times(0, TaskTimes::default(), TaskTimes::default());
        assert_eq!(parts(&waiting, CREATED), [("waiting", 0, true)]);
    }

    #[test]
    fn a_run_that_ended_early_ends_there() {
        let planned = [("queued", 1000, false), ("plan", 2000, false)];
        let errored = times(4000, task(1000, 2000, 4000), task(0, 0, 4000));
        assert_eq!(parts(&errored, 9000), planned);
        let discarded = times(6000, task(1000, 2000, 4000), task(0, 0, 6000));
        let expected = [planned[0], planned[1], ("approval", 2000, false)];
        assert_eq!(parts(&discarded, 9000), expected);
        let canceled = times(4000, task(1500, 0, 4000), task(0, 0, 4000));
        assert_eq!(parts(&canceled, 9000), [("waiting", 500, false), ("queued", 2500, false)]);
    }
}

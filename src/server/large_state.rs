//! States that soon are larger than the server takes: pages and APIs warn of them.

use crate::app::App;

const MIB: u64 = 1024 * 1024;

/// What to do, and what happens otherwise.
pub(crate) const ADVICE: &str = "An apply that makes it larger ends with an error, its state \
     stays on the agent's host, and the workspace is locked. Split the workspace before that, or \
     raise the server's --max-state.";

/// What is said of a state of `size` bytes; none: it is far from the limit.
pub(crate) fn title(app: &App, size: i64) -> Option<String> {
    let limit = app.scheduler.objects.max_state();
    let size = u64::try_from(size).unwrap_or_default();
    // From four fifths of the limit on.
    (size >= limit / 5 * 4).then(|| {
        format!("Its state has {} MiB; the server takes at most {} MiB", size / MIB, limit / MIB)
    })
}

/// The same with the advice.
pub(crate) fn warning(app: &App, size: i64) -> Option<String> {
    title(app, size).map(|title| format!("{title}. {ADVICE}"))
}

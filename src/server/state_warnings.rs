//! What whoever writes a state has to know: pages and APIs say it in the same words.

use serde_json::Value;

use crate::app::App;

const MIB: u64 = 1024 * 1024;

/// What a roll-back does, and does not.
pub(crate) const ROLLBACK: &str = "No real resource changes. The next plan compares with this \
     state: what was made since is not known to it, and would be made again.";

/// What to do about a state that soon is larger than the server takes.
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

/// Says something more of a state version in an answer.
pub(crate) fn add(resource: &mut Value, text: &str) {
    let warning = &mut resource["attributes"]["warning"];
    let all = match warning.as_str() {
        Some(known) => format!("{text} {known}"),
        None => text.to_owned(),
    };
    *warning = all.into();
}

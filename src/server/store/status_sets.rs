//! The sets of statuses that statements select by. A statement names one in braces,
//! `status IN {ended_runs}` for example, so that no SQL text lists statuses itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sqlx::AssertSqlSafe;

use super::run::Status;
use super::task::State;

/// Each set by its name, as SQL.
static SETS: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let runs: [(&str, &[Status]); 8] = [
        ("pending_runs", &[Status::Pending]),
        ("saved_runs", &[Status::PlannedAndSaved]),
        ("runs_under_way", Status::UNDER_WAY),
        ("ended_runs", Status::ENDED),
        ("unended_runs", &[&[Status::Pending], Status::UNDER_WAY].concat()),
        ("runs_with_state", &[Status::UNDER_WAY, &[Status::PlannedAndSaved]].concat()),
        ("waiting_runs", &[Status::Pending, Status::PlanQueued, Status::ApplyQueued]),
        ("working_runs", &[Status::Planning, Status::Applying, Status::Canceling]),
    ];
    let tasks: [(&str, &[State]); 4] = [
        ("queued_tasks", &[State::Queued]),
        ("offered_tasks", &[State::Offered]),
        ("running_tasks", &[State::Running]),
        ("tasks_of_agents", State::OF_AGENTS),
    ];
    let runs = runs.map(|(name, set)| (name, sql(set.iter().map(|status| status.name()))));
    let tasks = tasks.map(|(name, set)| (name, sql(set.iter().map(|state| state.name()))));
    runs.into_iter().chain(tasks).collect()
});

/// A statement that can be executed.
pub(super) fn statement(text: &'static str) -> AssertSqlSafe<String> {
    // Safe: the text and the sets are the program's own.
    AssertSqlSafe(with_sets(text))
}

/// A part of a statement with its sets instead of their names.
///
/// # Panics
/// There is no set of a name. `statements.rs` expands every statement there is.
pub(super) fn with_sets(text: &str) -> String {
    let mut parts = text.split('{');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        sql += SETS.get(name).unwrap_or_else(|| panic!("no set of statuses is named {name}"));
        sql += rest;
    }
    sql
}

fn sql<'a>(statuses: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<String> = statuses.map(|status| format!("'{status}'")).collect();
    format!("({})", texts.join(", "))
}

/// Whether a set has this status.
#[cfg(test)]
pub(super) fn is_status(name: &str) -> bool {
    SETS.values().any(|set| set.contains(&format!("'{name}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_gets_the_sets_that_it_names() {
        let text = "WHERE state IN {queued_tasks} OR state IN {running_tasks} AND id = $1";
        let sql = "WHERE state IN ('queued') OR state IN ('running') AND id = $1";
        assert_eq!(with_sets(text), sql);
        assert_eq!(with_sets("SELECT 1"), "SELECT 1");
    }
}

//! The output of a dry run.

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::path_state::PathState;
use cli::println;

/// Prints a unified diff; of a secret only that it would change.
pub(super) fn show(path: &str, before: &PathState, after: &PathState, secret: bool) {
    let name = |state: &PathState| match state {
        PathState::Absent => "/dev/null".to_owned(),
        PathState::File { mode, .. } => format!("{path}\tmode {mode:04o}"),
        _ => path.to_owned(),
    };
    println!("--- {}\n+++ {}", name(before), name(after));
    if secret {
        println!("(not shown: it holds a secret)");
        return;
    }
    let (old, new) = (before.text(), after.text());
    let diff = TextDiff::from_lines(&old, &new);
    for hunk in diff.unified_diff().iter_hunks() {
        println!("{}", hunk.header());
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', AnsiColor::Red.on_default()),
                ChangeTag::Insert => ('+', AnsiColor::Green.on_default()),
                ChangeTag::Equal => (' ', Style::new()),
            };
            println!("{style}{sign}{}{style:#}", change.value().trim_end_matches('\n'));
        }
    }
}

//! The results of the checks, as text and as JSON.

use std::io::{self, IsTerminal as _};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{Check, Outcome, Severity};
use cli::Failure;
use cli::answer;
use host::machine::Machine;
use host::os::Os;

/// The results of the checks. docs/check.md describes its JSON; its version is
/// [`SCHEMA`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    schema: u32,
    host: Option<Host>,
    checks: Vec<Line>,
    summary: Summary,
}

/// The version of the JSON; a change that a reader could trip over raises it.
const SCHEMA: u32 = 1;

#[derive(Clone, Debug, Serialize)]
struct Host {
    name: String,
    id: String,
    version: String,
}

#[derive(Clone, Debug, Serialize)]
struct Line {
    name: &'static str,
    area: &'static str,
    about: &'static str,
    severity: Severity,
    result: Verdict,
    message: String,
    fix: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Passed,
    Warning,
    Failed,
    Skipped,
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    passed: usize,
    warning: usize,
    failed: usize,
    skipped: usize,
    unknown: usize,
}

impl Results {
    /// Results without any check yet.
    pub(crate) fn of(machine: &Machine) -> Self {
        let host = Os::of(machine).ok();
        Self {
            schema: SCHEMA,
            host: host.map(|os| Host { name: os.name, id: os.id, version: os.version }),
            checks: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Adds what a check found; a failure that is ignored is a warning.
    pub(crate) fn add(&mut self, check: &Check, outcome: Outcome, ignored: bool) {
        let (result, message, fix) = match outcome {
            Outcome::Passed(message) => (Verdict::Passed, message, Vec::new()),
            Outcome::Problem(message, fix) if ignored => {
                (Verdict::Warning, format!("{message} (ignored)"), fix)
            }
            Outcome::Problem(message, fix) => match check.severity {
                Severity::Error => (Verdict::Failed, message, fix),
                Severity::Warning => (Verdict::Warning, message, fix),
            },
            Outcome::Warning(message, fix) => (Verdict::Warning, message, fix),
            Outcome::Skipped(reason) => (Verdict::Skipped, reason, Vec::new()),
            Outcome::Unknown(reason) => (Verdict::Unknown, reason, Vec::new()),
        };
        let count = match result {
            Verdict::Passed => &mut self.summary.passed,
            Verdict::Warning => &mut self.summary.warning,
            Verdict::Failed => &mut self.summary.failed,
            Verdict::Skipped => &mut self.summary.skipped,
            Verdict::Unknown => &mut self.summary.unknown,
        };
        *count += 1;
        let line = Line {
            name: check.name,
            area: check.area,
            about: check.about,
            severity: check.severity,
            result,
            message,
            fix,
        };
        self.checks.push(line);
    }

    /// The checks whose problems commands can fix, with these commands.
    pub(crate) fn fixes(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let fixable = self.checks.iter().filter(|line| !line.fix.is_empty());
        fixable.map(|line| (line.name, line.fix.as_slice()))
    }

    /// Prints the problems, the worst first, and how many checks came to what. With
    /// `verbose`, what passed and what was skipped as well.
    pub(crate) fn print(&self, verbose: bool) {
        let problems = [Verdict::Failed, Verdict::Warning, Verdict::Unknown];
        let others: &[Verdict] = if verbose { &[Verdict::Passed, Verdict::Skipped] } else { &[] };
        for result in problems.iter().chain(others) {
            for line in self.checks.iter().filter(|line| line.result == *result) {
                line.print();
            }
        }
        answer!("{}.", self.summary.text(verbose));
    }

    /// The exit code that it asks for; `None` if all is well.
    pub(crate) fn verdict(&self) -> Option<Failure> {
        if self.summary.failed > 0 {
            Some(Failure::CheckFailed)
        } else if self.summary.warning + self.summary.unknown > 0 {
            Some(Failure::Warnings)
        } else {
            None
        }
    }

    /// Whether the host is one that there are no packages for.
    pub(crate) fn is_unsupported(&self) -> bool {
        let platform = ["os", "architecture"];
        self.checks
            .iter()
            .any(|line| platform.contains(&line.name) && line.result == Verdict::Failed)
    }
}

impl Summary {
    fn text(self, verbose: bool) -> String {
        let counts = [
            (self.failed, "failed"),
            (self.warning, "warned"),
            (self.unknown, "unknown"),
            (self.passed, "passed"),
            (if verbose { self.skipped } else { 0 }, "skipped"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if counts.is_empty() { "No check applies here".to_owned() } else { counts.join(", ") }
    }
}

impl Line {
    fn print(&self) {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into())).bold();
        let (word, style) = match self.result {
            Verdict::Passed => ("passed", colour(AnsiColor::Green)),
            Verdict::Warning => ("warning", colour(AnsiColor::Yellow)),
            Verdict::Failed => ("FAILED", colour(AnsiColor::Red)),
            Verdict::Skipped => ("skipped", Style::new().dimmed()),
            Verdict::Unknown => ("unknown", colour(AnsiColor::Yellow)),
        };
        let width = io::stdout().is_terminal().then_some(WIDTH);
        let mut message = self.lines(width).into_iter();
        let first = message.next().unwrap_or_default();
        answer!("{style}{word:<8}{style:#} {:<18} {}", self.name, first.trim_start());
        for line in message {
            answer!("{line}");
        }
    }

    /// The message and the commands that fix it, indented, and on a terminal no wider than
    /// that. A command that does not fit stays in one line: it is to be copied.
    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let indented = |line: &str| format!("{:INDENT$}{line}", "");
        let message = self.message.lines().flat_map(|line| match width {
            Some(width) => textwrap::wrap(line, width - INDENT),
            None => vec![line.into()],
        });
        let mut lines: Vec<String> = message.map(|line| indented(&line)).collect();
        for fix in &self.fix {
            let fits = width.is_none_or(|width| INDENT + FIX.len() + fix.len() <= width);
            match fits {
                true => lines.push(indented(&format!("{FIX}{fix}"))),
                false => lines.extend([indented(FIX.trim_end()), format!("  {fix}")]),
            }
        }
        lines
    }
}

/// How wide a line on a terminal is.
const WIDTH: usize = 80;

/// Where messages begin: after the result and the check's name.
const INDENT: usize = 28;

const FIX: &str = "fix it with: ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CHECKS;

    fn results(outcome: Outcome, ignored: bool) -> Results {
        let mut results = Results::of(&Machine::at("/nowhere"));
        results.add(&CHECKS[0], outcome, ignored);
        results
    }

    #[test]
    fn the_exit_code_is_the_worst() {
        let problem = || Outcome::problem("x");
        assert_eq!(results(Outcome::Passed("x".into()), false).verdict(), None);
        assert_eq!(results(Outcome::Skipped("x".into()), false).verdict(), None);
        assert_eq!(results(problem(), false).verdict(), Some(Failure::CheckFailed));
        assert_eq!(results(problem(), true).verdict(), Some(Failure::Warnings));
        let unknown = Outcome::Unknown("x".into());
        assert_eq!(results(unknown, false).verdict(), Some(Failure::Warnings));
    }

    #[test]
    fn the_summary_counts_skipped_checks_only_when_verbose() {
        let summary = Summary { passed: 14, warning: 1, failed: 2, skipped: 3, unknown: 0 };
        assert_eq!(summary.text(false), "2 failed, 1 warned, 14 passed");
        assert_eq!(summary.text(true), "2 failed, 1 warned, 14 passed, 3 skipped");
    }

    #[test]
    fn a_terminal_gets_80_columns_and_a_file_whole_lines() {
        let message = "word ".repeat(40);
        let fix = vec!["true".to_owned(), format!("sed -i {}", "x".repeat(70))];
        let results = results(Outcome::Problem(format!("{message}\nshort"), fix.clone()), false);
        let line = &results.checks[0];
        let narrow = line.lines(Some(WIDTH));
        assert!(narrow.len() > 5, "{narrow:?}");
        for line in narrow.iter().filter(|line| line.trim() != fix[1]) {
            assert!(line.len() <= WIDTH, "{line}");
        }
        assert!(narrow.contains(&format!("  {}", fix[1])), "{narrow:?}");
        let whole = line.lines(None);
        assert_eq!(whole.len(), 4, "{whole:?}");
        assert!(whole[2].ends_with("fix it with: true"), "{whole:?}");
    }

    #[test]
    fn the_json_is_as_documented() {
        let fix = vec!["true".to_owned()];
        let results = results(Outcome::Problem("it is broken".to_owned(), fix), false);
        assert_eq!(
            serde_json::to_value(results).unwrap(),
            serde_json::json!({
                "schema": 1,
                "host": null,
                "checks": [{
                    "name": "os",
                    "area": "host",
                    "about": CHECKS[0].about,
                    "severity": "error",
                    "result": "failed",
                    "message": "it is broken",
                    "fix": ["true"],
                }],
                "summary": {
                    "passed": 0, "warning": 0, "failed": 1, "skipped": 0, "unknown": 0,
                },
            })
        );
    }
}

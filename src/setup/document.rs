//! `--format json`: one document on standard output, and everything for people on standard
//! error. A command with results of its own prints them by [`write()`]; the document of one that
//! has none, or that failed before it, says how the command ended. docs/installing.md
//! describes it.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde::Serialize;

use cli::Failure;

/// Standard output, from [`instead_of_text`] until the document is on it.
static DOCUMENT: Mutex<Option<File>> = Mutex::new(None);

/// How far a command has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    steps: Vec<Step>,
    changes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Step {
    name: &'static str,
    result: &'static str,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    /// 1; a change that a reader could trip over raises it.
    schema: u32,
    /// The subcommand; null if the command line names none that can be run.
    command: Option<&'a str>,
    dry_run: bool,
    outcome: &'static str,
    steps: Vec<Step>,
    changes: Vec<String>,
    error: Option<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    message: String,
    cause: Option<String>,
    advice: Option<String>,
    exit_code: u8,
}

impl Progress {
    /// A step begins, and the one before it is done.
    pub(crate) fn begin(&mut self, name: &'static str) {
        self.steps.push(Step { name, result: "done" });
    }

    /// What was changed for good; in a dry run, what would be.
    pub(crate) fn changed(&mut self, changes: &[String]) {
        self.changes.extend_from_slice(changes);
    }

    /// Whether nothing was changed so far.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    fn document<'a>(
        mut self,
        command: Option<&'a str>,
        dry_run: bool,
        result: &Result<()>,
    ) -> Document<'a> {
        if let (Err(_), Some(last)) = (result, self.steps.last_mut()) {
            last.result = "failed";
        }
        let outcome = match result {
            Err(_) => "failed",
            Ok(()) if self.changes.is_empty() => "unchanged",
            Ok(()) => "changed",
        };
        let error = result.as_ref().err().map(Problem::of);
        Document {
            schema: 1,
            command,
            dry_run,
            outcome,
            steps: self.steps,
            changes: self.changes,
            error,
        }
    }
}

impl Problem {
    fn of(error: &anyhow::Error) -> Self {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let (message, causes) = (error.to_string(), causes.join(": "));
        // The first line says what failed and why, the next ones what to do.
        let parts = |text: &str| match text.split_once('\n') {
            Some((first, rest)) => (first.to_owned(), Some(rest.trim().to_owned())),
            None => (text.to_owned(), None),
        };
        let ((message, advice), (cause, advice_of_cause)) = (parts(&message), parts(&causes));
        Self {
            message,
            cause: (!cause.is_empty()).then_some(cause),
            advice: advice.or(advice_of_cause),
            exit_code: Failure::of(error).code(),
        }
    }
}

/// Keeps standard output for the document: what this process and the programs that it runs
/// print from now on goes to standard error.
///
/// # Errors
/// Standard output can't be kept.
pub(crate) fn instead_of_text() -> Result<()> {
    let stdout = nix::unistd::dup(io::stdout()).context("cannot print JSON")?;
    nix::unistd::dup2_stdout(io::stderr()).context("cannot print JSON")?;
    *DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(stdout.into());
    Ok(())
}

/// Prints a command's own document, or where none was asked for its only line of output.
///
/// # Errors
/// It can't be written.
pub(crate) fn write(json: &str) -> Result<()> {
    match DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(mut stdout) => writeln!(stdout, "{json}"),
        None => writeln!(io::stdout(), "{json}"),
    }
    .context("cannot print JSON")
}

/// Runs a command whose document tells its steps and changes.
///
/// # Errors
/// Those of `run`; the document can't be written.
pub(crate) fn of_changes(
    command: &'static str,
    dry_run: bool,
    run: impl FnOnce(&mut Progress) -> Result<()>,
) -> Result<()> {
    let mut progress = Progress::default();
    let result = run(&mut progress);
    write_ending(progress.document(Some(command), dry_run, &result))?;
    result
}

/// Prints how a command ended, unless it has printed its document.
///
/// # Errors
/// The document can't be written.
pub(crate) fn of_ending(command: Option<&str>, result: &Result<()>) -> Result<()> {
    write_ending(Progress::default().document(command, false, result))
}

fn write_ending(document: Document<'_>) -> Result<()> {
    if DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        return Ok(());
    }
    write(&serde_json::to_string_pretty(&document)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_has_its_step_its_cause_and_its_advice() {
        let mut progress = Progress::default();
        progress.begin("check");
        progress.begin("package");
        let result =
            Err(Failure::NotInstalled.because("apt is broken\nRun `dpkg --configure -a`."))
                .context("cannot install scalr-agent");
        let document = progress.document(Some("install"), false, &result);
        assert_eq!(
            serde_json::to_value(document).unwrap(),
            json!({
                "schema": 1,
                "command": "install",
                "dry_run": false,
                "outcome": "failed",
                "steps": [
                    { "name": "check", "result": "done" },
                    { "name": "package", "result": "failed" },
                ],
                "changes": [],
                "error": {
                    "message": "cannot install scalr-agent",
                    "cause": "apt is broken",
                    "advice": "Run `dpkg --configure -a`.",
                    "exit_code": 6,
                },
            })
        );
    }

    #[test]
    fn what_changed_nothing_says_so() {
        let outcome = |changes: &[String]| {
            let mut progress = Progress::default();
            progress.changed(changes);
            progress.document(Some("uninstall"), true, &Ok(())).outcome
        };
        assert_eq!(outcome(&[]), "unchanged");
        assert_eq!(outcome(&["/etc/a".to_owned()]), "changed");
    }
}

//! Running the commands that fix what the checks found.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};

use super::results::Results;
use crate::fixes::Fixes;
use cli::Failure;
use cli::{eprint, eprintln};
use host::machine::Machine;

/// Who says whether a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// All are.
    Given,
    /// The person at the terminal, for each.
    Asked,
}

impl Consent {
    /// What `--yes` says, or the terminal that is there to ask on.
    ///
    /// # Errors
    /// Neither is there: nothing would ever answer.
    pub(crate) fn from(yes: bool) -> Result<Self> {
        if yes {
            return Ok(Self::Given);
        }
        if io::stdin().is_terminal() {
            return Ok(Self::Asked);
        }
        Err(Failure::Usage.because(
            "this asks before each command, and standard input is not a terminal; add --yes to run \
             them all without asking",
        ))
    }

    /// Whether to do it: the answer at the terminal, where one is asked for. On standard
    /// error, so that JSON stays alone on standard output.
    ///
    /// # Errors
    /// The answer can't be read.
    pub(crate) fn to(self, question: &str) -> Result<bool> {
        if self == Self::Given {
            return Ok(true);
        }
        eprint!("{question} [y/N] ");
        io::stderr().flush().context("cannot ask")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
        Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
    }
}

/// Runs the commands that fix problems one by one; returns whether any was run. When one
/// fails, prints its output and skips the rest for the same check. Each is recorded in
/// [`Fixes`].
///
/// # Errors
/// An answer can't be read.
pub(super) fn apply(machine: &Machine, results: &Results, consent: Consent) -> Result<bool> {
    let mut done: Vec<&str> = Vec::new();
    for (check, lines) in results.fixes() {
        for line in lines {
            if done.contains(&line.as_str()) {
                continue;
            }
            if !consent.to(&format!("To fix {check}, run `{line}`?"))? {
                break;
            }
            done.push(line);
            eprintln!("Fixing {check}: {line}");
            if let Err(error) = Fixes::run(machine, check, line) {
                eprintln!("Cannot fix {check}: {error:#}");
                break;
            }
        }
    }
    Ok(!done.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CHECKS, Outcome};

    /// A machine with room for the record.
    fn machine(directory: &tempfile::TempDir) -> Machine {
        let machine = Machine::at(directory.path());
        std::fs::create_dir_all(machine.path("/var/lib")).unwrap();
        machine
    }

    #[test]
    fn one_that_fails_stops_only_those_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let made = |name: &str| directory.path().join(name);
        let touch = |name: &str| format!("touch {}", made(name).display());
        let mut results = Results::of(&Machine::at("/nowhere"));
        let broken = vec!["echo it broke >&2; exit 3".to_owned(), touch("after")];
        for (check, fix) in CHECKS.iter().zip([broken, vec![touch("other")], Vec::new()]) {
            results.add(check, Outcome::Problem("x".to_owned(), fix), false);
        }
        assert!(apply(&machine(&directory), &results, Consent::Given).unwrap());
        assert!(made("other").exists() && !made("after").exists());
    }

    #[test]
    fn each_command_is_run_once() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let line = format!("echo run >>{}", log.display());
        let mut results = Results::of(&Machine::at("/nowhere"));
        for check in &CHECKS[..2] {
            let problem = Outcome::Problem("x".to_owned(), vec![line.clone()]);
            results.add(check, problem, false);
        }
        apply(&machine(&directory), &results, Consent::Given).unwrap();
        assert_eq!(std::fs::read_to_string(log).unwrap(), "run\n");
    }

    #[test]
    fn a_problem_without_commands_runs_nothing() {
        let mut results = Results::of(&Machine::at("/nowhere"));
        results.add(&CHECKS[0], Outcome::problem("x"), false);
        assert!(!apply(&Machine::at("/nowhere"), &results, Consent::Given).unwrap());
    }
}

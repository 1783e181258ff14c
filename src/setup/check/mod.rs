//! `check`: whether this host can run the agent, and what to do if not.
//!
//! [`CHECKS`] is the table of all checks; each file here has those of one area.

mod container_selinux;
mod disks;
mod engine;
mod fix;
mod host;
mod network;
mod os;
mod packages;
mod resources;
mod results;
mod run_account;
mod security;
mod server;
mod service;
mod service_proxy;
mod subject;
mod table;
mod vault;
mod writable;

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use url::Url;

pub(crate) use self::fix::Consent;
pub(crate) use self::results::Results;
pub(crate) use self::subject::{Overrides, Subject};
pub(crate) use self::table::{CHECKS, Check, Severity};
use crate::context::{Context, require_root};
use crate::document;
use crate::fixes::Fixes;
use crate::output::Format;
use cli::{Failure, println};

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup check
  scalr-agent-setup check --url https://pools.example.com --concurrency 4
  scalr-agent-setup check --only container-selinux --fix
  scalr-agent-setup check --ignore cpu,firewalld --fix --yes
  scalr-agent-setup check --undo-fixes
  scalr-agent-setup check --format json

Exit codes: 0 all passed, 3 a check failed, 4 only warnings.

The JSON is one object: schema (1), host (name, id, version), checks (a list of
name, area, about, severity, result, message and fix, the commands that fix it)
and summary (how many of each result). A result is passed, warning, failed,
skipped or unknown. docs/check.md describes all checks.";

/// Check whether this host can run the agent
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Run the commands that fix the problems, asking before each, then check
    /// again
    #[arg(long)]
    fix: bool,
    /// Undo what the commands of earlier fixes changed, asking before each
    #[arg(long, conflicts_with = "fix")]
    undo_fixes: bool,
    /// With --fix or --undo-fixes, run all of them without asking
    #[arg(long)]
    yes: bool,
    /// Check a host that the package is not installed on yet, as install.sh
    /// does: proxies are those of the environment, and --fix asks nothing
    #[arg(long)]
    before_install: bool,
    #[command(flatten)]
    pub selection: Selection,
    /// The engine that runs use [default: that of the settings]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The server that must be reachable [default: that of the settings]
    #[arg(long, value_name = "URL", value_parser = config::address)]
    url: Option<Url>,
    /// Number of concurrent runs that there must be room for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Memory of each run, in MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
    /// A PEM file of authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// Which Docker engine runs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The private one of the package.
    Bundled,
    /// The host's own.
    System,
}

impl Engine {
    /// Where it listens.
    pub(crate) fn socket(self) -> &'static str {
        match self {
            Self::Bundled => config::ENGINE,
            Self::System => "unix:///var/run/docker.sock",
        }
    }
}

/// Which checks are run, and which count.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only these checks or areas, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only warn where these checks or areas fail, separated by commas, or all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ignore: Vec<String>,
}

/// The finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it must be.
    Passed(String),
    /// Not as it must be; the check's severity says how bad that is. The commands
    /// fix it.
    Problem(String, Vec<String>),
    /// Not as it should be, but never worse than a warning. The commands fix it.
    Warning(String, Vec<String>),
    /// It does not apply here, for this reason.
    Skipped(String),
    /// The check could not find out, for this reason.
    Unknown(String),
}

/// Runs `check`.
///
/// # Errors
/// A name is unknown; with `--fix`, not root; else what the checks came to.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    if args.yes && !args.fix && !args.undo_fixes {
        return Err(Failure::Usage.because("--yes needs --fix or --undo-fixes"));
    }
    if args.undo_fixes {
        return undo_fixes(context, args);
    }
    if let Some(Err(why)) = args.url.as_ref().map(config::check_url) {
        return Err(Failure::Usage.because(format!("the server's address (--url) {why}")));
    }
    let mut subject = Subject::of(&context.machine)?;
    subject.override_settings(Overrides {
        url: args.url.clone(),
        concurrency: args.concurrency,
        memory: args.memory,
        engine: args.engine,
        ca_cert: args.ca_cert.clone(),
    });
    subject.before_install = args.before_install;
    if args.before_install {
        subject.use_shells_proxy();
    }
    let consent = args.fix.then(|| consent(context, args)).transpose()?;
    let print = Print::of(context);
    let results = check_and_fix(&subject, &args.selection, consent, print)?;
    if print == Print::Nothing {
        document::write(&serde_json::to_string_pretty(&results)?)?;
    }
    results.verdict().map_or(Ok(()), |failure| Err(failure.into()))
}

fn undo_fixes(context: &Context, args: &Args) -> Result<()> {
    let consent = consent(context, args)?;
    if Fixes::on(&context.machine)?.is_empty() {
        println!("No fix has changed anything; there is nothing to undo.");
        return Ok(());
    }
    Fixes::undo(&context.machine, false, |question| consent.to(question)).map(drop)
}

fn consent(context: &Context, args: &Args) -> Result<Consent> {
    if !context.machine.is_this_one() {
        return Err(Failure::Usage
            .because("this runs commands on this machine, so it cannot be used with --root"));
    }
    require_root(&context.machine, false)?;
    Consent::from(args.yes || args.before_install)
}

/// Which results are printed while the checks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Print {
    Nothing,
    Problems,
    All,
}

impl Print {
    fn of(context: &Context) -> Self {
        match context.format {
            Format::Json => Self::Nothing,
            Format::Text => Self::text(context.verbose),
        }
    }

    pub(crate) fn text(verbose: bool) -> Self {
        if verbose { Self::All } else { Self::Problems }
    }
}

/// Does the checks. With `consent`, runs the commands that fix the problems and
/// does the checks again.
///
/// # Errors
/// A name in the selection is unknown; an answer can't be read.
pub(crate) fn check_and_fix(
    subject: &Subject,
    selection: &Selection,
    consent: Option<Consent>,
    print: Print,
) -> Result<Results> {
    let results = check(subject, selection, print)?;
    // The commands are for the machine that runs, never for a tree.
    let consent = consent.filter(|_| subject.machine.is_this_one());
    let Some(consent) = consent else { return Ok(results) };
    if !fix::apply(&subject.machine, &results, consent)? {
        return Ok(results);
    }
    if print != Print::Nothing {
        println!("Checking again:");
    }
    check(&subject.afresh(), selection, print)
}

/// Does the checks.
///
/// # Errors
/// A name in the selection is unknown.
pub(crate) fn check(subject: &Subject, selection: &Selection, print: Print) -> Result<Results> {
    selection.refuse_unknown()?;
    let mut results = Results::of(&subject.machine);
    for check in CHECKS.iter().filter(|check| selection.wants(check)) {
        results.add(check, (check.look)(subject), selection.ignores(check));
    }
    if print != Print::Nothing {
        results.print(print == Print::All);
    }
    Ok(results)
}

impl Selection {
    fn wants(&self, check: &Check) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| check.is_called(name))
    }

    fn ignores(&self, check: &Check) -> bool {
        self.ignore.iter().any(|name| name == "all" || check.is_called(name))
    }

    fn refuse_unknown(&self) -> Result<()> {
        let known = || CHECKS.iter().flat_map(|check| [check.name, check.area]);
        let named = self.only.iter().chain(self.ignore.iter().filter(|name| *name != "all"));
        for name in named {
            if !known().any(|known| known == name) {
                let mut names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
                names.sort_unstable();
                let hint = config::did_you_mean(name, known());
                return Err(Failure::Usage.because(format!(
                    "there is no check `{name}`{hint} There are: {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// A problem that no single command fixes.
    fn problem(message: impl Into<String>) -> Self {
        Self::Problem(message.into(), Vec::new())
    }

    fn warning(message: impl Into<String>) -> Self {
        Self::Warning(message.into(), Vec::new())
    }

    fn unknown(error: impl fmt::Display) -> Self {
        Self::Unknown(error.to_string())
    }

    fn tree() -> Self {
        Self::Skipped("a directory tree does not run".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_takes_names_and_areas() {
        let selection =
            Selection { only: vec!["host".to_owned()], ignore: vec!["disk".to_owned()] };
        selection.refuse_unknown().unwrap();
        let wanted: Vec<&str> =
            CHECKS.iter().filter(|check| selection.wants(check)).map(|check| check.name).collect();
        assert_eq!(wanted, ["os", "architecture", "kernel", "systemd", "temporary-folder"]);
        assert!(CHECKS.iter().any(|check| check.name == "disk" && selection.ignores(check)));
    }

    #[test]
    fn an_unknown_check_names_the_nearest() {
        let selection = Selection { only: vec!["memroy".to_owned()], ..Selection::default() };
        let error = selection.refuse_unknown().unwrap_err();
        assert!(error.to_string().contains("did you mean `memory`?"), "{error}");
        assert_eq!(Failure::of(&error), Failure::Usage);
    }
}

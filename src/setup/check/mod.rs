//! `check`: whether this host can run the agent, and what to do if not.
//!
//! [`CHECKS`] is the table of all checks; each file here has those of one area.

mod engine;
mod host;
mod report;
mod resources;
mod selinux;
mod server;

use std::fmt;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use url::Url;

pub use self::engine::BUNDLE;
pub use self::report::Report;
use super::{Context, Format, require_root};
use crate::config::proxy::{VARIABLES, of_units};
use crate::config::{self, Settings};
use crate::exit::Failure;
use crate::host::command::CommandExt as _;
use crate::host::machine::Machine;
use crate::host::os::Os;

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup check
  scalr-agent-setup check --url https://pools.example.com --concurrency 4
  scalr-agent-setup check --only container-selinux --fix
  scalr-agent-setup check --format json

Exit codes: 0 all passed, 3 a check failed, 4 only warnings.

The JSON is one object: schema (1), host (name, id, version), checks (a list of
name, area, about, severity, result, message and fix, the commands that mend
it) and summary (how many passed, warned, failed, were skipped or could not look).
result is passed, warning, failed, skipped or could-not-look.";

/// Check whether this host can run the agent
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Run the commands that mend what failed, then check again
    #[arg(long)]
    fix: bool,
    /// Check a host that the package is not installed on yet; proxies are then
    /// those of the environment
    #[arg(long)]
    before_install: bool,
    #[command(flatten)]
    pub selection: Selection,
    /// The engine that runs use; the settings' if not named
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The server that must be reachable; the settings' if not named
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// How many runs at once there must be room for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Memory of each run, in MB
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,
}

/// Which Docker engine runs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The private one of the package.
    Bundled,
    /// The host's own.
    System,
}

impl Engine {
    /// Where it listens.
    pub fn socket(self) -> &'static str {
        match self {
            Self::Bundled => config::ENGINE,
            Self::System => "unix:///var/run/docker.sock",
        }
    }
}

/// Which checks are run, and which count.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// Only these checks or areas, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only warn where these checks or areas fail, separated by commas, or all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ignore: Vec<String>,
}

/// A check: what it is and how it is done.
pub struct Check {
    /// What people call it.
    pub name: &'static str,
    /// What it belongs to.
    pub area: &'static str,
    /// What a problem that it finds comes to.
    pub severity: Severity,
    /// What must be so.
    pub about: &'static str,
    look: fn(&Subject) -> Outcome,
}

/// What a problem comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The agent can't work.
    Error,
    /// It can, but not well.
    Warning,
}

/// Every check there is, in the order in which they are done.
pub const CHECKS: &[Check] = &[
    Check {
        name: "os",
        area: "host",
        severity: Severity::Error,
        about: "the operating system is one that packages are made for",
        look: host::os,
    },
    Check {
        name: "architecture",
        area: "host",
        severity: Severity::Error,
        about: "the processor is one that packages are made for",
        look: host::architecture,
    },
    Check {
        name: "systemd",
        area: "host",
        severity: Severity::Error,
        about: "systemd 219 or newer runs the services",
        look: host::systemd,
    },
    Check {
        name: "memory",
        area: "resources",
        severity: Severity::Error,
        about: "there is memory for all runs and for the system beside them",
        look: resources::memory,
    },
    Check {
        name: "cpu",
        area: "resources",
        severity: Severity::Warning,
        about: "there is a processor for each run",
        look: resources::cpu,
    },
    Check {
        name: "disk",
        area: "resources",
        severity: Severity::Error,
        about: "there is room for images and runs",
        look: resources::disk,
    },
    Check {
        name: "cgroups",
        area: "resources",
        severity: Severity::Error,
        about: "the kernel can limit what a run uses",
        look: resources::cgroups,
    },
    Check {
        name: "engine",
        area: "engine",
        severity: Severity::Error,
        about: "the Docker engine that runs use is there and new enough",
        look: engine::engine,
    },
    Check {
        name: "iptables",
        area: "engine",
        severity: Severity::Error,
        about: "iptables is there for the runs' networks",
        look: engine::iptables,
    },
    Check {
        name: "addresses",
        area: "engine",
        severity: Severity::Error,
        about: "the runs' addresses collide with no route of this host",
        look: engine::addresses,
    },
    Check {
        name: "server",
        area: "server",
        severity: Severity::Error,
        about: "the server answers, through the proxy if one is set",
        look: server::server,
    },
    Check {
        name: "container-selinux",
        area: "packages",
        severity: Severity::Error,
        about: "container-selinux, which the rpm needs, is installed or can be",
        look: selinux::container_selinux,
    },
];

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must be.
    Passed(String),
    /// Not as it must be; the check's severity says how bad that is. The commands
    /// mend it.
    Problem(String, Vec<String>),
    /// Not as it should be, but never worse than a warning.
    Warning(String),
    /// It does not apply here, for this reason.
    Skipped(String),
    /// It could not be found out, for this reason.
    CouldNotLook(String),
}

/// What is checked.
pub struct Subject {
    /// The machine.
    pub machine: Machine,
    /// The settings that there are already.
    pub settings: Settings,
    /// The server, if it is known.
    pub url: Option<Url>,
    /// How many runs at once.
    pub concurrency: u32,
    /// Memory of a run, in MB.
    pub memory: u64,
    /// The engine's socket.
    pub engine: String,
    /// The proxy's variables.
    pub proxy: Vec<(String, String)>,
    /// Whether what the package brings is still missing.
    pub before_install: bool,
}

impl Subject {
    /// The machine as its settings and units are.
    ///
    /// # Errors
    /// The settings or the units can't be read, unless that is not permitted to
    /// us.
    pub fn of(machine: &Machine) -> Result<Self> {
        let settings = match Settings::read(&machine.path(config::FILE)) {
            // Whoever may not read them can still check the host.
            Err(error) if Failure::of(&error) == Failure::NotPermitted => Settings::default(),
            result => result?,
        };
        Ok(Self {
            url: settings.url.clone(),
            concurrency: settings.concurrency.unwrap_or(1),
            memory: settings.memory.unwrap_or(512),
            engine: settings.engine.clone().unwrap_or_else(|| config::ENGINE.to_owned()),
            proxy: of_units(machine)?.unwrap_or_default(),
            before_install: false,
            machine: machine.clone(),
            settings,
        })
    }

    /// Where the services have no proxy yet, checks go by that of our own
    /// environment.
    pub fn use_shells_proxy(&mut self) {
        let is_proxy = |(name, _): &(String, String)| {
            VARIABLES.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if self.proxy.is_empty() {
            self.proxy = std::env::vars().filter(is_proxy).collect();
        }
    }

    /// The operating system.
    ///
    /// # Errors
    /// It can't be told.
    pub fn os(&self) -> Result<Os> {
        Os::of(&self.machine)
    }
}

/// Runs `check`.
///
/// # Errors
/// A name is unknown; with `--fix`, not root; else what the checks came to.
pub fn run(context: &Context, args: &Args) -> Result<()> {
    let mut subject = Subject::of(&context.machine)?;
    subject.url = args.url.clone().or(subject.url);
    subject.concurrency = args.concurrency.unwrap_or(subject.concurrency);
    subject.memory = args.memory.unwrap_or(subject.memory);
    subject.engine = args.engine.map_or(subject.engine, |engine| engine.socket().to_owned());
    subject.before_install = args.before_install;
    if args.before_install {
        subject.use_shells_proxy();
    }
    if args.fix {
        require_root(&context.machine, false)?;
    }
    let report = look_and_fix(&subject, &args.selection, args.fix, context.format)?;
    match context.format {
        Format::Text => report.print_summary(),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    report.verdict().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Does the checks; with `fix`, runs the commands that mend what is wrong and
/// does them again. As text, each result is printed as soon as it is known.
///
/// # Errors
/// A name in the selection is unknown.
pub fn look_and_fix(
    subject: &Subject,
    selection: &Selection,
    fix: bool,
    format: Format,
) -> Result<Report> {
    let text = format == Format::Text;
    let report = look(subject, selection, text)?;
    let fixes = report.fixes();
    if !fix || fixes.is_empty() {
        return Ok(report);
    }
    for line in fixes {
        eprintln!("Running: {line}");
        if let Err(error) = Command::new("sh").args(["-c", &line]).run() {
            eprintln!("{error}");
        }
    }
    if text {
        println!("Checking again:");
    }
    look(subject, selection, text)
}

fn look(subject: &Subject, selection: &Selection, print: bool) -> Result<Report> {
    selection.refuse_unknown()?;
    let mut report = Report::of(&subject.machine);
    for check in CHECKS.iter().filter(|check| selection.wants(check)) {
        let outcome = (check.look)(subject);
        report.add(check, outcome, selection.ignores(check), print);
    }
    Ok(report)
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

impl Check {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.area == name
    }
}

impl Outcome {
    /// A problem that no single command mends.
    fn problem(message: impl Into<String>) -> Self {
        Self::Problem(message.into(), Vec::new())
    }

    fn could_not_look(error: impl fmt::Display) -> Self {
        Self::CouldNotLook(error.to_string())
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
        assert_eq!(wanted, ["os", "architecture", "systemd"]);
        assert!(CHECKS.iter().any(|check| check.name == "disk" && selection.ignores(check)));
    }

    #[test]
    fn an_unknown_check_names_the_nearest() {
        let selection = Selection { only: vec!["memroy".to_owned()], ..Selection::default() };
        let error = selection.refuse_unknown().unwrap_err();
        assert!(error.to_string().contains("did you mean `memory`?"), "{error}");
        assert_eq!(Failure::of(&error), Failure::Usage);
    }

    #[test]
    fn names_are_unique() {
        for check in CHECKS {
            let same = CHECKS.iter().filter(|other| other.name == check.name).count();
            assert_eq!(same, 1, "{}", check.name);
        }
    }
}

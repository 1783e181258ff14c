//! Starting or reloading a service and waiting for it, with progress and with the
//! reason if it does not come up.

use std::io::{IsTerminal as _, Write as _};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{settings, status};
use cli::Failure;
use cli::{eprint, eprintln};
use config::layout::{AGENT_DROP_INS, AGENT_UNIT};
use host::command::CommandExt as _;
use host::machine::Machine;
use host::systemd::{self, Services, UnitState};
use host::{interrupt, unit};

/// How long a service may take: the unit's own limit is shorter.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long the state from before a restart may still be reported.
const SETTLING: Duration = Duration::from_secs(3);

/// How long is waited at least and at most between two looks at a unit.
const SOONEST: Duration = Duration::from_millis(30);
const LATEST: Duration = Duration::from_millis(500);

/// How many of the journal's last lines a failure shows.
const JOURNAL_LINES: usize = 15;

/// The command by which a unit that ran before runs as it did when all is undone. The
/// agent, which may have to wait for its server, is not waited for.
pub(crate) fn again(unit: &str) -> Command {
    match unit {
        AGENT_UNIT => systemd::systemctl(&["--no-block", "restart", unit]),
        _ => systemd::systemctl(&["restart", unit]),
    }
}

/// Restarts `unit`, or starts it, and waits until it says that it is ready.
///
/// # Errors
/// It does not come up; the error carries the last lines of its journal, and the
/// exit code tells wrong settings (2) and a refused token (7) apart.
pub(crate) fn bring_up(services: Services, unit: &str) -> Result<()> {
    if !services.can_run() {
        return Ok(());
    }
    let progress = Progress::begin("Starting", unit);
    let before = services.state(unit).unwrap_or_default().started;
    services.begin_restart(unit)?;
    let begun = Instant::now();
    loop {
        // Its job may still be waiting for the unit before it.
        pause(begun);
        interrupt::check().inspect_err(|_| progress.end("is waited for no longer"))?;
        let state = services.state(unit).unwrap_or_default();
        let is_new = state.started != before;
        if state.active == "active" && is_new {
            progress.end("is up");
            return Ok(());
        }
        // What went before the main process may have failed, too.
        let settled = is_new || begun.elapsed() > SETTLING;
        if has_failed(&state) && settled || begun.elapsed() > PATIENCE {
            progress.end("does not come up");
            return Err(reason(unit, &state));
        }
        progress.tick(begun.elapsed());
    }
}

/// Restarts an agent that ran, and waits until the server has answered it: one with runs in
/// hand is ready before that.
///
/// # Errors
/// As [`bring_up`]; the server does not answer.
pub(crate) fn restart_agent(machine: &Machine, services: Services) -> Result<()> {
    let variables = unit::environment(machine, AGENT_DROP_INS)?;
    let answered = || status::server_answered_at(machine, &variables);
    let before = answered();
    bring_up(services, AGENT_UNIT)?;
    await_answer(services, "Registering", || answered().is_some_and(|at| Some(at) != before))
}

/// Reloads the agent and waits until the server has answered it again; runs go on.
///
/// # Errors
/// The settings cannot be used, and the agent goes on with those it has; or as
/// [`restart_agent`].
pub(crate) fn reload_agent(machine: &Machine, services: Services) -> Result<()> {
    let variables = unit::environment(machine, AGENT_DROP_INS)?;
    settings::of_service(machine)?.resolve()?;
    let answered = || status::server_answered_at(machine, &variables);
    let before = answered();
    systemd::systemctl(&["reload", AGENT_UNIT]).run()?;
    await_answer(services, "Reloading", || answered().is_some_and(|at| Some(at) != before))
}

fn await_answer(
    services: Services,
    doing: &'static str,
    has_answered: impl Fn() -> bool,
) -> Result<()> {
    let progress = Progress::begin(doing, AGENT_UNIT);
    let begun = Instant::now();
    loop {
        pause(begun);
        interrupt::check().inspect_err(|_| progress.end("is waited for no longer"))?;
        let state = services.state(AGENT_UNIT).unwrap_or_default();
        if has_failed(&state) || begun.elapsed() > PATIENCE {
            progress.end("does not come up");
            return Err(reason(AGENT_UNIT, &state));
        }
        if has_answered() {
            progress.end("is up");
            return Ok(());
        }
        progress.tick(begun.elapsed());
    }
}

/// Waits before the next look at a unit, for a small part of the time that has passed since
/// `begun`: most units are up within half a second, and some take minutes.
fn pause(begun: Instant) {
    sleep((begun.elapsed() / 8).clamp(SOONEST, LATEST));
}

/// A unit that restarts itself has failed as soon as it has failed once: what
/// stopped it the first time stops it the next time.
fn has_failed(state: &UnitState) -> bool {
    state.active == "failed"
        || state.sub == "auto-restart"
        || state.load != "loaded" && !state.load.is_empty()
}

fn reason(unit: &str, state: &UnitState) -> anyhow::Error {
    let said = systemd::journal(unit, JOURNAL_LINES).unwrap_or_default();
    let failure = match state.exit_status {
        2 => Failure::Usage,
        7 => Failure::NotPermitted,
        _ => Failure::Failed,
    };
    let what = match state.load.as_str() {
        "loaded" if state.active == "active" => "its server does not answer".to_owned(),
        "loaded" => format!("{} ({})", state.active, state.result),
        other => other.to_owned(),
    };
    failure.because(format!(
        "{unit} does not come up: {what}. The end of its journal \
         (journalctl -xe -u {unit} has all):\n{}",
        said.trim_end()
    ))
}

/// A line that counts the seconds on a terminal, and stays silent elsewhere but
/// for its beginning and its end.
struct Progress {
    doing: &'static str,
    unit: String,
    terminal: bool,
}

impl Progress {
    fn begin(doing: &'static str, unit: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        eprint!("{doing} {unit} …");
        let _ = std::io::stderr().flush();
        Self { doing, unit: unit.to_owned(), terminal }
    }

    fn tick(&self, elapsed: Duration) {
        if self.terminal {
            eprint!("\r{} {} … {} s", self.doing, self.unit, elapsed.as_secs());
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self, how: &str) {
        let begin = if self.terminal { "\r\x1b[K" } else { "\n" };
        eprintln!("{begin}{} {how}", self.unit);
    }
}

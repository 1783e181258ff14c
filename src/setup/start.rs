//! Starting a service and waiting for it, with progress and with the reason if
//! it does not come up.

use std::io::{IsTerminal as _, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use cli::Failure;
use host::interrupt;
use host::systemd::{self, Services, UnitState};

/// How long a service may take: the unit's own limit is shorter.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long the state from before a restart may still be reported.
const SETTLING: Duration = Duration::from_secs(3);

/// How many of the journal's last lines a failure shows.
const JOURNAL_LINES: usize = 15;

/// Restarts `unit`, or starts it, and waits until it says that it is ready.
///
/// # Errors
/// It does not come up; the error carries the last lines of its journal, and the
/// exit code tells wrong settings (2) and a refused token (7) apart.
pub(crate) fn bring_up(services: Services, unit: &str) -> Result<()> {
    if !services.can_run() {
        return Ok(());
    }
    let progress = Progress::begin(unit);
    let before = services.state(unit).unwrap_or_default().started;
    services.begin_restart(unit)?;
    let begun = Instant::now();
    loop {
        // Its job may still be waiting for the unit before it.
        sleep(Duration::from_millis(300));
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
    unit: String,
    terminal: bool,
}

impl Progress {
    fn begin(unit: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        eprint!("Starting {unit} …");
        let _ = std::io::stderr().flush();
        Self { unit: unit.to_owned(), terminal }
    }

    fn tick(&self, elapsed: Duration) {
        if self.terminal {
            eprint!("\rStarting {} … {} s", self.unit, elapsed.as_secs());
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self, how: &str) {
        let begin = if self.terminal { "\r\x1b[K" } else { "\n" };
        eprintln!("{begin}{} {how}", self.unit);
    }
}

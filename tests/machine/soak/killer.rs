//! Kills the agent with SIGKILL, at random, and remembers when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::fleet::Fleet;
use crate::machine::wait_for;

/// A killer of agents.
pub(super) struct Killer {
    /// Between two kills, on average.
    pause: Duration,
    stopped: AtomicBool,
}

/// One kill.
pub(super) struct Kill {
    /// When, since 1970.
    pub at: Duration,
    /// The most memory that the agent had needed until then, in kB.
    pub memory: u64,
}

/// Stops a killer when it is dropped.
pub(super) struct Stop<'a>(&'a Killer);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Killer {
    /// One that kills so often, on average.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, stopped: AtomicBool::new(false) }
    }

    /// Ends the killing.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Ends it when the guard is dropped.
    pub(super) fn stop_at_end(&self) -> Stop<'_> {
        Stop(self)
    }

    /// Kills until it is stopped.
    pub(super) fn kill_agents(&self, fleet: &Fleet) -> Vec<Kill> {
        let mut kills = Vec::new();
        while self.wait() {
            kills.extend(kill(fleet));
        }
        kills
    }

    /// Waits for the next kill; false when there is none.
    fn wait(&self) -> bool {
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.5));
        let begun = Instant::now();
        while begun.elapsed() < pause {
            if self.stopped.load(Ordering::SeqCst) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}

/// Kills the agent, unless it is not there: systemd is about to start it again.
fn kill(fleet: &Fleet) -> Option<Kill> {
    let said = fleet.shell(&format!(
        "pid=$({PID}); [ \"$pid\" = 0 ] || {{ {MEMORY}; date +%s%3N; kill -KILL \"$pid\"; }} 2>/dev/null || :"
    ));
    let mut words = said.split_whitespace();
    let memory = words.next()?.parse().ok()?;
    let at = Duration::from_millis(words.next()?.parse().ok()?);
    Some(Kill { at, memory })
}

const PID: &str = "systemctl show --property=MainPID scalr-agent | cut -d= -f2";
const MEMORY: &str = "awk '/VmHWM/ { print $2 }' \"/proc/$pid/status\"";

/// The most memory that the agent has needed since it was started, in kB. It may have
/// been killed just now.
pub(super) fn memory(fleet: &Fleet) -> u64 {
    let line = format!("pid=$({PID}); {MEMORY} 2>/dev/null || :");
    wait_for("the agent to run", Duration::from_secs(30), || fleet.shell(&line).parse().ok())
}

/// For each kill, how long it took until the agent was registered again.
pub(super) fn silences(fleet: &Fleet, kills: &[Kill]) -> Vec<Duration> {
    let journal = fleet.shell(
        "journalctl --no-pager --unit=scalr-agent --output=short-unix | grep ' registered agent=' | cut -d' ' -f1",
    );
    let registered: Vec<Duration> =
        journal.lines().filter_map(|at| Some(Duration::from_secs_f64(at.parse().ok()?))).collect();
    let next = |kill: &Kill| registered.iter().find(|at| **at > kill.at).map(|at| *at - kill.at);
    kills.iter().filter_map(next).collect()
}

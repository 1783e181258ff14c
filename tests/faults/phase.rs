//! What a run is doing when a fault comes.

use std::time::Duration;

use super::fault::Fault;
use super::rig::{PLAN_LINES, Rig, STEPS};
use crate::machine::wait_for;
use crate::pool::Run;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none.
    Idle,
    /// An agent has its plan, and its container does not run yet.
    Claimed,
    /// Its plan runs.
    Planning,
    /// Its plan has ended, and nobody has confirmed it.
    Waiting,
    /// Its apply runs.
    Applying,
    /// Its apply has ended, and the server does not have all of its log.
    Uploading,
}

/// Keeps a run where it is, until it is released.
pub(super) enum Held {
    /// It goes on by itself.
    No,
    /// The engine is stopped.
    Engine,
    /// The machine has no network.
    Network,
}

impl Phase {
    /// All, in the order of a run.
    pub(super) const ALL: [Self; 6] =
        [Self::Idle, Self::Claimed, Self::Planning, Self::Waiting, Self::Applying, Self::Uploading];

    /// As the matrix names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Claimed => "claimed",
            Self::Planning => "planning",
            Self::Waiting => "waiting for approval",
            Self::Applying => "applying",
            Self::Uploading => "uploading the log",
        }
    }

    /// What runs then.
    fn part(self) -> &'static str {
        if self == Self::Planning { "plan" } else { "apply" }
    }

    /// Brings a new run here; none when there is to be none.
    pub(super) fn reach(self, rig: &Rig<'_>, fault: Fault) -> (Option<Run>, Held) {
        let eats = (fault == Fault::OutOfMemory).then(|| self.part());
        if self == Self::Idle {
            return (None, Held::No);
        }
        if self == Self::Claimed {
            rig.stop_engine();
            let run = rig.start_run(eats);
            wait_for("the plan's claim", Duration::from_secs(30), || {
                rig.has_running_task().then_some(())
            });
            return (Some(run), Held::Engine);
        }
        let run = rig.start_run(eats);
        let says = |kind: &str, text: &str| {
            wait_for(&format!("{text:?} in the log"), Duration::from_secs(60), || {
                rig.pool().log(&run, kind).contains(text).then_some(())
            });
        };
        if self == Self::Planning {
            says("plan", &format!("plan line 2 of {PLAN_LINES}"));
            return (Some(run), Held::No);
        }
        rig.pool().wait_for_status(&run, "planned");
        if self == Self::Waiting {
            return (Some(run), Held::No);
        }
        rig.pool().apply(&run);
        says("apply", &format!("step 2 of {STEPS}"));
        if self == Self::Applying {
            return (Some(run), Held::No);
        }
        rig.cut_network();
        wait_for("the apply's end", Duration::from_secs(60), || {
            rig.running_containers().is_empty().then_some(())
        });
        (Some(run), Held::Network)
    }
}

//! One fault in one phase, and what has to hold after it.

use std::fmt;
use std::time::Duration;

use super::fault::{End, Fault};
use super::phase::Phase;
use super::rig::{PLAN_LINES, Rig, STEPS};
use super::truth::Container;
use crate::pool::Run;

/// What was found where all held.
pub(super) struct Found {
    /// How long it took until the run was reported as without its agent.
    pub told: Option<Duration>,
    /// How long the logs of plan and apply are, in bytes, each compared with what its
    /// container wrote.
    pub log_bytes: usize,
    /// How the run ended.
    pub end: End,
}

/// Brings a run into the phase, lets the fault happen, and checks what came of it.
///
/// # Panics
/// When something is not as it has to be.
pub(super) fn hold(rig: &mut Rig<'_>, fault: Fault, phase: Phase) -> Found {
    rig.begin(&format!("{}-{}", fault.name(), phase.name()).replace([' ', '-'], "_"));
    eprintln!("--- {}, {}", fault.name(), phase.name());
    let (run, held) = phase.reach(rig, fault);
    let told = fault.happen(rig, phase, run.as_ref(), held);
    // A fault of an idle agent must not harm the next run.
    let run = run.unwrap_or_else(|| rig.start_run(None));
    let end = fault.end(phase);
    await_end(rig, phase, &run, end);
    rig.wait_for_rest();
    check(rig, fault, &run, end, told)
}

/// Confirms the run if nobody has, and waits for its end.
fn await_end(rig: &Rig<'_>, phase: Phase, run: &Run, end: End) {
    let pool = rig.pool();
    if !matches!(phase, Phase::Applying | Phase::Uploading) && !matches!(end, End::PlanErrored(_)) {
        pool.wait_for_status(run, "planned");
        pool.apply(run);
    }
    match end {
        End::Applied => pool.wait_for_status(run, "applied"),
        End::PlanErrored(_) | End::ApplyErrored(_) => pool.wait_for_ended(run, "errored"),
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.end {
            End::Applied => "applied once",
            End::PlanErrored(_) => "plan failed, says why",
            End::ApplyErrored(_) => "apply failed, says why, state kept",
        })?;
        if let Some(told) = self.told {
            write!(f, ", reported after {} s", told.as_secs())?;
        }
        write!(f, "; {} bytes of log", self.log_bytes)
    }
}

fn check(rig: &Rig<'_>, fault: Fault, run: &Run, end: End, told: Option<Duration>) -> Found {
    let containers = rig.truth(run);
    let plan = rig.pool().log(run, "plan");
    let apply = rig.pool().log(run, "apply");
    // On a full disk the engine's own file is what has gaps.
    let is_true = fault != Fault::DiskFull;
    if is_true {
        is_whole("plan", &plan, &containers);
    }
    match end {
        End::PlanErrored(why) => {
            // The agent says it in the words of the system, the engine in its own.
            let said = plan.to_lowercase();
            assert!(said.contains(&why.to_lowercase()), "no {why:?} in the plan's log: {plan}");
            assert_eq!(apply, "");
        }
        End::ApplyErrored(why) => {
            is_whole("apply", &apply, &containers);
            assert!(apply.contains(why), "no {why:?} in the apply's log: {apply}");
            assert_eq!(rig.pool().output("before"), rig.tag(), "the state of what was done");
        }
        End::Applied => {
            if is_true {
                is_whole("apply", &apply, &containers);
            }
            each_once(&plan, "plan line", PLAN_LINES);
            each_once(&apply, "step", STEPS);
            assert_eq!(rig.pool().output("work"), rig.tag(), "the state of all");
        }
    }
    let began =
        |container: &&Container| container.kind == "apply" && container.text.contains("step 1 of");
    let applies = containers.iter().filter(began).count();
    assert_eq!(applies, usize::from(!matches!(end, End::PlanErrored(_))), "applies that began");
    Found { told, log_bytes: plan.len() + apply.len(), end }
}

/// The server has each byte that the last container of this kind wrote, and after
/// them at most the agent's own words about the end.
fn is_whole(kind: &str, log: &str, containers: &[Container]) {
    let last = containers.iter().rfind(|container| container.kind == kind);
    let last = last.unwrap_or_else(|| panic!("no container of the {kind}, whose log is: {log}"));
    let Some(rest) = log.strip_prefix(last.text.as_str()) else {
        panic!(
            "the {kind}'s log is not what its container wrote.\nlog: {log}\ncontainer: {}",
            last.text
        )
    };
    assert!(
        rest.is_empty() || rest.starts_with("\nError: ") || rest.starts_with("\nInterrupted: "),
        "more than the {kind}'s container wrote: {rest:?}"
    );
}

/// Each numbered line is there exactly once.
fn each_once(log: &str, what: &str, count: u32) {
    for number in 1..=count {
        let line = format!("{what} {number} of {count}");
        assert_eq!(log.matches(&line).count(), 1, "{line:?} in: {log}");
    }
}

//! The fault matrix: each [`Fault`] in each [`Phase`] of a run, on real parts. No
//! byte of a log may be lost or doubled, no apply may run twice, no state may be
//! lost, no container may be left, and a run whose agent is gone is reported within 45
//! seconds.
//!
//! | file | has |
//! |---|---|
//! | [`fault`] | what goes wrong, and how it ends |
//! | [`phase`] | what the run is doing at that time, and how it is kept there |
//! | [`rig`] | the machine, its server, and what stands around them |
//! | [`truth`] | what the containers really wrote, from the engine's own files |
//! | [`cell`] | one fault in one phase, and what has to hold after it |
//! | [`table`] | the results, for docs/faults.md |

mod cell;
mod fault;
mod phase;
mod rig;
mod table;
mod truth;

use crate::fleet::Fleet;
use fault::Fault;
use phase::Phase;
use rig::Rig;

/// A row of the matrix: one machine, on which the phases come one after the other. The
/// first that does not hold ends it, since nobody knows how the machine is then.
fn row(fault: Fault, phases: &[Phase]) {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let mut rig = Rig::set_up(&fleet, &pool, fault);
    for phase in phases {
        match fault.applies_to(*phase) {
            Ok(()) => {
                table::record(fault, *phase, table::BROKEN);
                let found = cell::hold(&mut rig, fault, *phase);
                table::record(fault, *phase, &found.to_string());
            }
            Err(why) => table::record(fault, *phase, why),
        }
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn nothing_is_lost_when_the_agent_is_killed() {
    row(Fault::KillAgent, &[Phase::Claimed, Phase::Applying, Phase::Uploading]);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn nothing_is_lost_when_the_power_goes() {
    row(Fault::PowerCut, &[Phase::Planning, Phase::Applying]);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn nothing_is_lost_on_a_full_disk() {
    row(Fault::DiskFull, &[Phase::Applying]);
}

mod full {
    use super::{Fault, Phase, row};

    macro_rules! rows {
        ($($name:ident: $fault:expr,)*) => {$(
            #[test]
            #[ignore = "needs root and a kit: run scripts/test --full"]
            fn $name() {
                row($fault, &Phase::ALL);
            }
        )*};
    }

    rows! {
        kill_agent: Fault::KillAgent,
        kill_engine: Fault::KillEngine,
        kill_server: Fault::KillServer,
        cut_network: Fault::CutNetwork,
        proxy_answers: Fault::ProxyAnswers,
        disk_full: Fault::DiskFull,
        clock_jump: Fault::ClockJump,
        revoked_token: Fault::RevokedToken,
        out_of_memory: Fault::OutOfMemory,
        power_cut: Fault::PowerCut,
        shut_down: Fault::ShutDown,
        units_restarted: Fault::UnitsRestarted,
        stopped_agent: Fault::StoppedAgent,
    }
}

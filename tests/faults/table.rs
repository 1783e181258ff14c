//! The results: a file for each cell in the folder that `SCALR_AGENT_FAULTS` names,
//! of which `scripts/lib/faults.sh` makes docs/faults.md.

use std::path::PathBuf;

use super::fault::Fault;
use super::phase::Phase;

/// What stands in a cell that did not hold.
pub(super) const BROKEN: &str = "**did not hold**";

/// Writes down what came of a cell, or why there is none; nowhere if nobody asked.
pub(super) fn record(fault: Fault, phase: Phase, what: &str) {
    println!("{} | {} | {what}", fault.name(), phase.name());
    let Some(folder) = std::env::var_os("SCALR_AGENT_FAULTS").map(PathBuf::from) else { return };
    let file = folder.join(format!("{}|{}", fault.name(), phase.name()));
    std::fs::write(file, what).expect("the folder for results takes files");
}

//! The accounts that the package's script makes.

use std::process::Command;

use anyhow::{Context as _, Result};

use config::layout;
use host::changes::Changes;
use host::command::CommandExt as _;
use host::machine::Machine;
use host::users;

/// What makes them. It can be repeated.
const SCRIPT: &str = "/usr/lib/scalr-agent/maintain";

/// Runs the package's script again where it has not made all of them: rpm takes a package for
/// installed whose script failed, and what fails later for want of an account does not say why.
///
/// # Errors
/// The script fails.
pub(super) fn require(changes: &mut Changes) -> Result<()> {
    let machine = changes.machine().clone();
    if changes.is_dry_run() || are_there(&machine)? {
        return Ok(());
    }
    let again = || {
        let made = Command::new(SCRIPT).arg("installed").run();
        made.context("the package is unpacked, and its script can't make the accounts")
    };
    changes.act("make the package's accounts", again, None)
}

fn are_there(machine: &Machine) -> Result<bool> {
    let has_engine = machine.path(layout::ENGINE_PROGRAMS).exists();
    Ok(users::user_id(machine, layout::AGENT)?.is_some()
        && users::user_id(machine, layout::RUN_USER)?.is_some()
        && users::group_exists(machine, has_engine.then_some(layout::ENGINE_GROUP)))
}

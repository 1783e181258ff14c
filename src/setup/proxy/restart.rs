//! Restarts the services so that they use a changed proxy: systemd sets a unit's
//! environment only when it starts it. Runs continue.

use anyhow::Result;

use crate::start;
use cli::{eprintln, println};
use config::layout::{AGENT_UNIT, ENGINE_UNIT};
use host::changes::Changes;
use host::systemd::Services;

/// The units that are given the proxy, in the order they are restarted in.
const UNITS: [&str; 2] = [ENGINE_UNIT, AGENT_UNIT];

/// How far a restart of the agent goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It is begun.
    Begin,
    /// It is waited for.
    Wait,
}

/// Restarts the units that are up or coming up.
///
/// # Errors
/// One that was up before does not come up again.
pub(super) fn restart(changes: &mut Changes, services: Services, wait: Restart) -> Result<()> {
    let machine = changes.machine().clone();
    for unit in UNITS {
        // One that has not come up yet may be waiting for just this proxy.
        let state = services.state(unit).unwrap_or_default();
        let was_up = state.active == "active";
        if !state.is_up() {
            continue;
        }
        changes.when_undone(start::again(unit))?;
        let restart = || {
            if unit == AGENT_UNIT && wait == Restart::Begin {
                println!(
                    "scalr-agent restarts, and its runs continue; `scalr-agent-setup status` shows \
                     whether it is up"
                );
                return Ok(services.begin_restart(unit)?);
            }
            let restarted = match unit {
                AGENT_UNIT if was_up => start::restart_agent(&machine, services),
                _ => start::bring_up(services, unit),
            };
            match restarted {
                // It failed before, so the proxy need not be what is wrong now.
                Err(error) if !was_up => {
                    eprintln!("warning: {error:#}");
                    Ok(())
                }
                result => result,
            }
        };
        changes.act(format!("restart {unit}"), restart, None)?;
    }
    Ok(())
}

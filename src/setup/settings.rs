//! The settings as the agent's service has them.

use anyhow::Result;

use config::Settings;
use config::layout::AGENT_DROP_INS;
use host::machine::Machine;
use host::unit;

/// Those of the file, overridden by the variables that the unit's drop-ins set.
///
/// # Errors
/// The file or a drop-in can't be read, or a setting is not of its kind.
pub(crate) fn of_service(machine: &Machine) -> Result<Settings> {
    let variables = unit::environment(machine, AGENT_DROP_INS)?;
    let variables = variables.into_iter().map(|(name, given)| (name, given.value));
    Settings::load(&machine.path(config::FILE), variables)
}

//! `recover`: undoes what a command that was killed has left half done.

use anyhow::Result;

use crate::context::{Context, RECORDS, require_root};
use host::changes;

const EXAMPLES: &str = "\
Examples:
  sudo scalr-agent-setup recover

Each command that changes the machine notes on disk how to undo each step before
it does it (/var/lib/scalr-agent-setup.unfinished). Killed half-way, it is undone
by the next such command; this one does only that.";

/// Undo the changes of a command that was killed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs `recover`.
///
/// # Errors
/// Not root; another scalr-agent-setup is at work; what was left can't be read.
pub(crate) fn run(context: &Context, _: &Args) -> Result<()> {
    require_root(&context.machine, false)?;
    if changes::recover(&context.machine, &RECORDS)? {
        println!("The machine is as it was before that command.");
    } else {
        println!("No command was interrupted; there is nothing to undo.");
    }
    Ok(())
}

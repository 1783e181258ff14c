//! `recover`: undoes what a command that was killed has left half done.

use anyhow::Result;

use crate::context::{Context, RECORDS, require_root};
use crate::document::{self, Progress};
use cli::println;
use host::changes;

const EXAMPLES: &str = "\
Examples:
  sudo scalr-agent-setup recover
  sudo scalr-agent-setup recover --discard

Each command that changes the machine notes on disk how to undo each step before
it does it (/var/lib/scalr-agent-setup.unfinished). Killed half-way, it is undone
by the next such command; this one does only that. A step that cannot be undone
is kept, with the reason, for another try; --discard forgets what is left, and
the machine stays as it is.";

/// Undo the changes of a command that was killed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Forget what is left to undo instead, and change nothing
    #[arg(long)]
    discard: bool,
}

/// Runs `recover`.
///
/// # Errors
/// Not root; another scalr-agent-setup is at work; what was left can't be read or undone.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    document::of_changes("recover", false, |progress| recover(context, args, progress))
}

fn recover(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    require_root(&context.machine, false)?;
    if args.discard {
        match changes::discard(&context.machine, &RECORDS)? {
            true => {
                progress.changed(&["forget what was left of an interrupted command".to_owned()]);
                println!("Forgotten; the machine stays as that command left it.");
            }
            false => println!("No command was interrupted; there is nothing to forget."),
        }
        return Ok(());
    }
    if changes::recover(&context.machine, &RECORDS)? {
        progress.changed(&["undo an interrupted command".to_owned()]);
        println!("The machine is as it was before that command.");
    } else {
        println!("No command was interrupted; there is nothing to undo.");
    }
    Ok(())
}

//! The options before the subcommand, and what every subcommand gets from them.

use std::path::PathBuf;

use anyhow::Result;

use crate::output::Format;
use cli::Failure;
use config::layout;
use host::changes::Records;
use host::machine::Machine;
use host::users;

/// Where it is recorded what we change.
pub(crate) static RECORDS: Records = Records {
    manifest: layout::SETUP_MANIFEST,
    unfinished: layout::SETUP_UNFINISHED,
    lock: layout::SETUP_LOCK,
};

#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The machine or directory tree that the subcommand works on.
    pub machine: Machine,
    pub format: Format,
    /// Whether each command that is run is named.
    pub verbose: bool,
}

/// The options before the subcommand.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Options {
    /// Work on this directory tree as if it were the machine: files are
    /// written, services are not touched
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    root: PathBuf,
    /// How results are printed
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: Format,
    /// Show each command that is run, the package manager's output and the
    /// checks that passed or were skipped
    #[arg(short, long, global = true)]
    verbose: bool,
}

impl From<Options> for Context {
    fn from(options: Options) -> Self {
        Self {
            machine: Machine::at(options.root),
            format: options.format,
            verbose: options.verbose,
        }
    }
}

/// Refuses to change this machine without root rights. A directory tree and a dry
/// run need none.
pub(crate) fn require_root(machine: &Machine, dry_run: bool) -> Result<()> {
    if machine.is_this_one() && !dry_run && !users::are_root() {
        return Err(
            Failure::NotPermitted.because("this changes the machine: run it as root (sudo)")
        );
    }
    Ok(())
}

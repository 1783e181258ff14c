//! `scalr-agent-setup`: one file per subcommand.
//!
//! Each subcommand has its arguments in `Args` and does its work in
//! `run(&Context, &Args)`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::host::machine::Machine;

/// What every subcommand gets from the options before it.
#[derive(Clone, Debug)]
pub struct Context {
    /// The machine that is worked on.
    pub machine: Machine,
    /// How results are printed.
    pub format: Format,
    /// Whether each command that is run is named.
    pub verbose: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The options before the subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Work on this directory tree as if it were the machine: files are
    /// written, services are not touched
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    root: PathBuf,
    /// How results are printed
    #[arg(long, value_enum, default_value_t, global = true)]
    format: Format,
    /// Name each command that is run
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

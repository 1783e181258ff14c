//! `scalr-agent-setup`: one file per subcommand.
//!
//! Each subcommand has its arguments in `Args` and does its work in
//! `run(&Context, &Args)`.

mod bundle;
mod check;
mod install;
mod network;
mod package;
mod proxy;
mod recover;
mod report;
mod repository;
mod runs;
mod secrets;
mod start;
mod status;
mod uninstall;
mod units;

use std::path::PathBuf;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use cli::Failure;
use cli::documents;
use host::machine::Machine;
use host::{command, interrupt, users};

/// Install, check and configure the agent on this host
#[derive(Debug, Parser)]
#[command(name = "scalr-agent-setup", version, max_term_width = 80, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check failed, 4 only warnings,
5 platform not supported, 6 something needed could not be installed, 7 not
permitted, 8 a download failed, 9 a key or checksum is not the expected one,
10 another program held a lock for too long.";

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Install(Box<install::Args>),
    Package(package::Args),
    Repository(repository::Args),
    Bundle(bundle::Args),
    Proxy(proxy::Args),
    Units(units::Args),
    Status(status::Args),
    Report(report::Args),
    Uninstall(uninstall::Args),
    Recover(recover::Args),
    Network(network::Args),
    #[command(hide = true)]
    Documents(documents::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever the subcommand says; [`cli::exit::report`] makes the exit code of
/// it.
pub fn run(cli: Cli) -> Result<()> {
    interrupt::end_with_the_reader();
    let context = Context::from(cli.options);
    if context.verbose {
        command::name_each();
    }
    match cli.command {
        Command::Check(args) => check::run(&context, &args),
        Command::Install(args) => install::run(&context, &args),
        Command::Package(args) => package::run(&context, &args),
        Command::Repository(args) => repository::run(&context, &args),
        Command::Bundle(args) => bundle::run(&context, &args),
        Command::Proxy(args) => proxy::run(&context, &args),
        Command::Units(args) => units::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Recover(args) => recover::run(&context, &args),
        Command::Report(args) => report::run(&context, &args),
        Command::Uninstall(args) => uninstall::run(&context, &args),
        Command::Network(args) => network::run(&context, &args),
        Command::Documents(args) => documents::write(Cli::command(), &args),
    }
}

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
#[command(next_help_heading = "Options of every command")]
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

/// Refuses to change this machine for somebody who is not root; a tree and a dry
/// run are anybody's.
fn require_root(machine: &Machine, dry_run: bool) -> Result<()> {
    if machine.is_this_one() && !dry_run && !users::are_root() {
        return Err(
            Failure::NotPermitted.because("this changes the machine: run it as root (sudo)")
        );
    }
    Ok(())
}

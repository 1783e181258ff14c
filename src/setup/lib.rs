//! `scalr-agent-setup`: one file per subcommand.
//!
//! Each subcommand has its arguments in `Args` and does its work in
//! `run(&Context, &Args)`.

// A terminal that is gone must not end a change half way: see `cli::print`.
#![warn(clippy::print_stderr)]

mod bundle;
mod check;
mod context;
mod created;
mod data_dir;
mod document;
mod fixes;
mod install;
mod network;
mod output;
mod package;
mod proxy;
mod recover;
mod report;
mod repository;
mod runs;
mod secrets;
mod settings;
mod start;
mod status;
#[cfg(test)]
mod test_programs;
mod uninstall;
mod units;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use nix::sys::stat::{Mode, umask};

use self::context::{Context, Options};
use crate::output::Format;
use cli::{Failure, documents};
use host::{command, interrupt};

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

/// Runs the subcommand of this process's command line.
///
/// # Errors
/// The command line is wrong, or whatever the subcommand says; [`cli::exit::report`] makes
/// the exit code of it.
pub fn run() -> Result<()> {
    interrupt::end_with_the_reader();
    let matches = Cli::command().try_get_matches();
    let parsed = matches.and_then(|matches| {
        Ok((Cli::from_arg_matches(&matches)?, matches.subcommand_name().map(str::to_owned)))
    });
    let (cli, name) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    if cli.options.format == Format::Json {
        document::instead_of_text()?;
    }
    let result = dispatch(cli);
    document::of_ending(name.as_deref(), &result)?;
    result
}

/// Says why the command line can't be run, also as JSON if it asks for that.
fn refuse(error: &clap::Error) -> Result<()> {
    if !error.use_stderr() {
        error.exit();
    }
    let _ = error.print();
    let line: Vec<String> = std::env::args().collect();
    if line.windows(2).any(|pair| pair == ["--format", "json"])
        || line.contains(&"--format=json".to_owned())
    {
        document::instead_of_text()?;
        let text = error.to_string();
        let why = text.trim_start_matches("error: ").trim_end();
        document::of_ending(None, &Err(Failure::Usage.because(why)))?;
    }
    Err(Failure::Usage.into())
}

fn dispatch(cli: Cli) -> Result<()> {
    command::prepare_environment();
    let context = Context::from(cli.options);
    if context.verbose {
        command::name_each();
    }
    if matches!(cli.command, Command::Package(_) | Command::Repository(_) | Command::Bundle(_)) {
        // What is made is for everybody to read.
        umask(Mode::from_bits_truncate(0o022));
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

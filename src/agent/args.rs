//! The command line of `scalr-agent`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::{configure, image_check, probe, service, status};
use cli::documents;
use config::Settings;

/// Takes tasks from an agent pool and runs each in a container
#[derive(Debug, Parser)]
#[command(name = "scalr-agent", version, max_term_width = 80)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The settings' file
    #[arg(long, value_name = "FILE", default_value = config::FILE, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  scalr-agent configure --url=https://pools.example.com --token-file=token
  scalr-agent status
  systemctl reload scalr-agent && journalctl -u scalr-agent

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 7 not permitted (not
root, or the server refuses the token).";

#[derive(Debug, Subcommand)]
enum Command {
    Configure(configure::Args),
    Run(Run),
    Status(status::Args),
    #[command(hide = true)]
    Probe(probe::Args),
    /// Check that the image of the settings exists: 4 means that nobody answers
    #[command(hide = true)]
    CheckImage,
    #[command(hide = true)]
    Documents(documents::Args),
}

/// Take tasks from the pool until stopped: what the service starts
///
/// SIGTERM ends it in order. The settings come from the file, overridden by
/// variables such as SCALR_URL, SCALR_AGENT_TOKEN and SCALR_AGENT_CONCURRENCY.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct Run {
    /// Take one task, finish it and end
    #[arg(long)]
    once: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  By hand, with settings of one's own:
    scalr-agent run --config ./agent.toml

  One task, then end, with the settings from the environment:
    SCALR_URL=https://pools.example.com SCALR_AGENT_TOKEN=… \\
      scalr-agent run --once";

/// Runs the command.
///
/// # Errors
/// Whatever the command says; [`cli::exit::report`] makes the exit code of it.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Configure(args) => configure::run(&cli.config, args),
        Command::Run(Run { once }) => service::run(&cli.config, once),
        Command::Status(args) => status::run(&cli.config, &args),
        Command::Probe(args) => probe::run(&args),
        Command::CheckImage => image_check::run(&Settings::read(&cli.config)?),
        Command::Documents(args) => documents::write(Cli::command(), &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

//! `scalr-agent`: takes tasks from a pool and runs each in a container.

use std::process::ExitCode;

use agent_pools::agent::cli;
use agent_pools::exit;
use clap::Parser as _;

fn main() -> ExitCode {
    exit::report(cli::run(cli::Cli::parse()))
}

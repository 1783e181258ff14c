use std::process::ExitCode;

use agent_pools::exit::report;
use agent_pools::server::cli::{Cli, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let Command::Serve(options) = Cli::parse().command;
    report(agent_pools::server::serve(options))
}

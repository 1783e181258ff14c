//! `scalr-server`: keeps pools, workspaces, runs and state.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::exit::report(server::run(server::Cli::parse()))
}

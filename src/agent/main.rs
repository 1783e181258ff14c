//! `scalr-agent`: takes tasks from a pool and runs each in a container.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    cli::exit::report(agent::run(agent::Cli::parse()))
}

//! `scalr-server`: keeps pools, workspaces, runs and state.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::exit::report(server::run(server::Cli::of_process()))
}

use std::process::ExitCode;

use agent_pools::exit::report;
use agent_pools::server::cli::{Cli, Command};
use agent_pools::{documents, server};
use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    report(match Cli::parse().command {
        Command::Serve(options) => server::serve(*options),
        Command::AdminToken(options) => server::admin_token(&options),
        Command::Documents(args) => documents::write(Cli::command(), &args),
    })
}

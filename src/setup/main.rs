//! `scalr-agent-setup`: installs, checks, configures and removes the agent on a
//! host, and makes its packages and repositories.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::exit::report(setup::run())
}

//! The commands for people, which call the pool API: a file for each noun.

mod archive;
mod client;
mod connection;
mod follow;
mod pool;
mod run;
mod sign_in_link;
mod table;
mod trial;
mod trust_key;
mod variable;
mod workspace;

use anyhow::Result;

pub(crate) use connection::quote;
pub(crate) use pool::Pool;
pub(crate) use run::Run;
pub(crate) use sign_in_link::SignInLink;
pub(crate) use trial::Trial;
pub(crate) use trust_key::TrustKey;
pub(crate) use variable::Variable;
pub(crate) use workspace::Workspace;

/// Runs one of them.
///
/// # Errors
/// Whatever it says.
pub(crate) fn run(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

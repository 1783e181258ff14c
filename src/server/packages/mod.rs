//! What agents are installed from: the install script, the definitions of the
//! package repositories, and the repositories themselves.

mod newest_agent;
mod routes;
mod trust;

pub(crate) use newest_agent::newest_agent;
pub(crate) use routes::{authority_sha256, key_sha256, routes};
pub(crate) use trust::{KEY, Packages, accept};

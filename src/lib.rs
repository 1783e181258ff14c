//! Self-hosted agent pools for Terraform runs.
//!
//! | room | what it is for | who calls it |
//! |---|---|---|
//! | `setup` | `scalr-agent-setup`: one file per subcommand | its program |
//! | `agent` | `scalr-agent`: takes tasks from a pool and runs each in a container | its program |
//! | `server` | `scalr-server`: keeps pools, workspaces, runs and state | its program |
//! | [`config`] | `agent.toml` and the environment's variables | `setup`, `agent` |
//! | [`protocol`] | what agent and server say to each other | `agent`, `server` |
//! | [`host`] | what we ask of a machine and do to it, each external tool wrapped once | all of the above |
//! | [`documents`] | a program's manual pages and completions | the programs |
//! | [`exit`] | the exit codes, the same for all three programs | the programs |
//! | [`secret`] | a text that never shows in a log | all of the above |
//!
//! Calls go down this table, never up; `setup`, `agent` and `server` never call
//! each other.

#![warn(missing_docs)]

#[cfg(feature = "agent")]
pub mod agent;
pub mod config;
pub mod documents;
pub mod exit;
pub mod host;
pub mod protocol;
pub mod secret;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "setup")]
pub mod setup;

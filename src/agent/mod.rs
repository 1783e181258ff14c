//! `scalr-agent`: takes tasks from a pool and runs each in a container.
//!
//! [`run`] is the service: it registers, polls, and hands each task to
//! [`task`], which takes it from its claim to its outcome. What a task has
//! reached is in the [`journal`], so that a restarted agent goes on with it.

pub mod cli;
pub mod client;
mod configure;
pub mod connection;
pub mod context;
pub mod engine;
pub mod images;
pub mod journal;
pub mod log;
mod logging;
pub mod progress;
pub mod providers;
pub mod proxy;
mod registry;
pub mod run;
pub mod slots;
mod status;
mod stop;
mod sum;
pub mod task;
pub mod telemetry;
mod trusted;

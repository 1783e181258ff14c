//! `scalr-agent`: takes tasks from a pool and runs each in a container.
//!
//! [`service`] registers, polls, and hands each task to
//! [`task`], which takes it from its claim to its outcome. What a task has
//! reached is in the [`journal`], so that a restarted agent continues it.

mod args;
mod client;
mod configure;
mod connection;
mod context;
mod engine;
mod firewall;
mod host_memory;
mod https;
mod identity;
mod image_check;
mod journal;
mod json_file;
mod log;
mod logging;
mod phase;
mod probe;
mod progress;
mod providers;
mod proxy_variables;
mod pulled_images;
mod registry;
mod seen_images;
mod service;
mod slots;
mod status;
mod stop;
mod sum;
mod task;
mod telemetry;
mod trusted;

pub use args::{Cli, run};
// The acceptance tests send logs as the agent does.
pub use client::{Client, TaskClient};
pub use https::Https;
pub use log::spool::Spool;
pub use log::upload::upload;

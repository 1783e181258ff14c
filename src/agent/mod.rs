//! `scalr-agent`: takes tasks from a pool and runs each in a container.

pub mod engine;

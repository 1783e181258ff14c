//! A really started `scalr-server`, over real HTTP.

mod agents;
mod certificates;
mod commands;
mod fleet;
mod flood;
mod harness;
mod lists;
mod logs;
mod metrics;
mod openapi;
mod packages;
mod pools;
mod run_options;
mod run_settings;
mod run_tokens;
mod start;
mod states;
mod terraform;
mod time_limits;
mod trial;
mod webhook_integrations;
mod webhooks;

//! `scalr-agent-setup` as people run it, on directory trees.

mod check;
mod help;
mod install;
mod links;
mod network;
mod proxy;
mod recover;
mod report;
mod status;
mod tree;
mod uninstall;

//! `scalr-agent-setup` as people run it, on directory trees.

mod check;
mod help;
mod install;
mod json;
mod links;
mod network;
mod odd_files;
mod proxy;
mod recover;
mod report;
mod status;
mod tree;
mod uninstall;

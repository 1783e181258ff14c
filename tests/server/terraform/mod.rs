//! Terraform's own command line against a started server.
//!
//! `terraform` on PATH, and the old one that TERRAFORM_OLD names, if there is one
//! (scripts/test fetches it).

mod agent;
mod cli;
mod local;
mod login;
mod logs;
mod remote;
mod remote_state;

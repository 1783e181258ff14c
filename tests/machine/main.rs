//! What only a booted machine can show: a real systemd, package manager,
//! container engine, Terraform and proxy, on throwaway machines that
//! `scripts/machine` boots in a network of their own.
//!
//! Every test here is ignored by a plain `cargo test`, which says so: they need
//! root and a kit (programs, packages, repositories, run image) that is built
//! from this checkout. `scripts/test` builds one, names its folder in
//! `SCALR_AGENT_KIT` and runs them with `--ignored`; run without it, they fail.
//!
//! A matrix that takes long is split: a telling part of it always runs, what is
//! left stands in a module named `full` (`lifecycle::full::…`) and runs only
//! with `scripts/test --full`, which passes no `--skip ::full::`.

mod abandoned_install;
mod ahead;
mod ansible;
mod attack;
mod authority;
mod bundle;
mod by_hand;
mod check;
mod client;
mod cloud_init;
mod engine;
mod environment;
mod failed_install;
#[path = "../faults/mod.rs"]
mod faults;
mod fencing;
mod fleet;
mod getting_started;
mod held;
mod hooks;
mod host_docker;
mod images;
mod install;
mod install_times;
mod interruption;
mod isolation;
mod lifecycle;
mod limits;
mod log_times;
mod logs;
mod lost_rules;
mod machine;
mod migrating;
mod observed;
mod opentofu;
mod pool;
mod providers;
mod proxy;
mod recovery;
mod repository;
mod restart;
mod run_inputs;
mod run_options;
mod run_times;
mod runs;
mod secrets;
mod server_package;
mod slots;
mod soak;
mod stop;
mod terraform_cli;
mod trial;
mod uninstall;
mod watch;
mod web_page;

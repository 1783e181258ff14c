//! Questions to a machine and changes of it.
//!
//! Each external tool is wrapped in one module of its own; nothing here knows
//! of `setup`, `agent` or `server`.

// A terminal that is gone must not end a change half way: see `cli::print`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod command;
pub mod machine;

pub mod apt;
pub mod authorities;
pub mod changes;
pub mod clock;
mod command_line;
pub mod curl;
pub mod disk;
pub mod docker;
pub mod dpkg;
pub mod engine;
pub mod fence;
pub mod file_lock;
pub mod firewalld;
pub mod full_disk;
pub mod hold;
pub mod installation;
pub mod interrupt;
pub mod iptables;
pub mod journal;
pub mod kernel;
pub mod locks;
pub mod memory;
pub mod network;
pub mod os;
pub mod package_tool;
pub mod packages;
pub mod rpm;
pub mod selinux;
pub mod subscription;
pub mod systemd;
pub mod unit;
pub mod users;
pub mod yum;

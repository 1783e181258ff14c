//! What we ask of a machine and do to it.
//!
//! Each external tool is wrapped in one module of its own; nothing here knows
//! of `setup`, `agent` or `server`.

#[cfg(feature = "setup")]
pub mod changes;
pub mod command;
#[cfg(feature = "setup")]
pub mod iptables;
pub mod machine;
#[cfg(feature = "setup")]
pub mod network;
pub mod selinux;
pub mod systemd;
pub mod users;

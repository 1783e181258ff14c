//! What we ask of a machine and do to it.
//!
//! Each external tool is wrapped in one module of its own; nothing here knows
//! of `setup`, `agent` or `server`.

pub mod command;
pub mod machine;

#[cfg(feature = "setup")]
pub mod apt;
#[cfg(feature = "setup")]
pub mod changes;
#[cfg(feature = "setup")]
pub mod curl;
#[cfg(feature = "setup")]
pub mod disk;
#[cfg(feature = "setup")]
pub mod docker;
#[cfg(feature = "setup")]
pub mod dpkg;
#[cfg(feature = "setup")]
pub mod firewalld;
#[cfg(feature = "setup")]
pub mod interrupt;
#[cfg(feature = "setup")]
pub mod iptables;
#[cfg(feature = "setup")]
pub mod journal;
#[cfg(feature = "setup")]
pub mod kernel;
#[cfg(feature = "setup")]
pub mod locks;
#[cfg(feature = "setup")]
pub mod memory;
#[cfg(feature = "setup")]
pub mod network;
#[cfg(feature = "setup")]
pub mod os;
#[cfg(feature = "setup")]
pub mod package_tool;
#[cfg(feature = "setup")]
pub mod packages;
#[cfg(feature = "setup")]
pub mod rpm;
#[cfg(feature = "setup")]
pub mod selinux;
#[cfg(feature = "setup")]
pub mod subscription;
pub mod systemd;
pub mod users;
#[cfg(feature = "setup")]
pub mod yum;

//! The products that have packages.

use clap::ValueEnum;

/// A product that has packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Product {
    /// scalr-agent and scalr-agent-setup, for the hosts that run Terraform.
    #[default]
    Agent,
    /// scalr-server, for the host that keeps the pools.
    Server,
}

impl Product {
    /// The package's name, which is that of its first program.
    pub(super) fn name(self) -> &'static str {
        self.programs()[0]
    }

    /// Its programs.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["scalr-agent", "scalr-agent-setup"],
            Self::Server => &["scalr-server"],
        }
    }

    /// The crates that its programs are in; the first one's manifest describes the
    /// package.
    pub(super) fn crates(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["agent", "setup"],
            Self::Server => &["server"],
        }
    }
    /// The profile that its programs are built with. Those for hosts are half as large in it, and
    /// mostly wait; the server computes.
    pub(super) fn profile(self) -> &'static str {
        match self {
            Self::Agent => "small",
            Self::Server => "release",
        }
    }
}

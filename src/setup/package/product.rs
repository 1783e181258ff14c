//! What there are packages of.

use clap::ValueEnum;

/// What is packaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Product {
    /// scalr-agent and scalr-agent-setup, for the hosts that run Terraform.
    #[default]
    Agent,
    /// scalr-server, for the host that keeps the pools.
    Server,
}

impl Product {
    /// The package's name, which is that of its first program.
    pub fn name(self) -> &'static str {
        self.programs()[0]
    }

    /// Its programs.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["scalr-agent", "scalr-agent-setup"],
            Self::Server => &["scalr-server"],
        }
    }

    /// cargo's features that they are built with.
    pub fn features(self) -> &'static str {
        match self {
            Self::Agent => "setup,agent",
            Self::Server => "server",
        }
    }
}

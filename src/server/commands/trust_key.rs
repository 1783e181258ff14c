//! `scalr-server trust-key`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::args::ServerFolder;
use crate::packages;
use cli::answer;

/// Which key.
#[derive(Debug, Args)]
pub struct TrustKey {
    /// The server's folder
    #[command(flatten)]
    folder: ServerFolder,

    /// Folder with the package repositories
    #[arg(long, value_name = "DIR", env = "SCALR_SERVER_PACKAGES")]
    packages: PathBuf,

    /// The SHA-256 of the key's file, scalr-agent.asc, where the packages are signed
    #[arg(long, value_name = "HEX")]
    sha256: String,
}

impl TrustKey {
    /// Trusts the key that lies beside the packages.
    ///
    /// # Errors
    /// It has another SHA-256 (9), or can't be read or copied.
    pub(crate) fn run(self) -> Result<()> {
        packages::accept(&self.packages, &self.folder.data, &self.sha256)?;
        answer!("trusting the packages' key with the SHA-256 {}", self.sha256);
        Ok(())
    }
}

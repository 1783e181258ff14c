//! How much the disk of the engine's data takes yet.

use std::fmt;

use anyhow::{Context as _, Result};
use nix::sys::statvfs::statvfs;

use super::Engine;

/// What is free on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeSpace {
    /// In bytes.
    pub bytes: u64,
    /// How many more files and directories it takes; none: its file system has no limit of them.
    pub files: Option<u64>,
}

impl fmt::Display for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB", self.bytes / (1024 * 1024))?;
        self.files.map_or(Ok(()), |files| write!(f, " and {files} inodes"))
    }
}

impl Engine {
    /// What is free on the disk of the engine's data.
    ///
    /// # Errors
    /// The engine doesn't answer, or its folder is not on this host.
    pub(crate) async fn free_space(&self) -> Result<FreeSpace> {
        let info = self.docker.info().await.context("cannot ask the engine for its folder")?;
        let folder = info.docker_root_dir.context("the engine does not tell its folder")?;
        let disk = statvfs(folder.as_str())
            .with_context(|| format!("cannot look at the disk of {folder}"))?;
        Ok(FreeSpace {
            bytes: disk.blocks_available() * disk.fragment_size(),
            // btrfs counts none.
            files: (disk.files() > 0).then(|| disk.files_available()),
        })
    }
}

//! A file's entry in an index.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::files::Files;
use crate::package::sha256;

/// A file's path, size and SHA-256.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the index's base.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// As hex digits.
    pub sha256: String,
}

impl Entry {
    /// The file, which is at `path` in the repository, if it is as it is said to be.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn require(&self, files: &Files, path: &str) -> Result<PathBuf> {
        let file = files.get(path)?;
        let size = fs::metadata(&file).context("cannot read it")?.len();
        if size != self.size {
            bail!("it has {size} bytes, and its index says {}", self.size);
        }
        let sum = sha256(&file)?;
        if sum != self.sha256 {
            bail!("its SHA-256 is {sum}, and its index says {}", self.sha256);
        }
        Ok(file)
    }

    /// Where apt asks for it by what it is to be.
    pub(super) fn by_hash(&self) -> String {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _name)| folder);
        format!("{folder}/by-hash/SHA256/{}", self.sha256)
    }
}

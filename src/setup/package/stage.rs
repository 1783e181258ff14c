//! The folder that stands for `/` in a package.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

/// What is packed. Its files are written again for each package, hence newer than
/// the sources: both packers turn their times back to the sources'.
pub(super) struct Stage {
    root: PathBuf,
}

impl Stage {
    /// `root`, with nothing in it.
    ///
    /// # Errors
    /// What is there can't be removed.
    pub(super) fn empty(root: &Path) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("cannot clear {}", root.display()))?;
        }
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where `path`, which is relative to `/`, is for now.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Copies `file` into the folder `directory`.
    ///
    /// # Errors
    /// It can't be read, or written.
    pub(super) fn add(&self, file: &Path, directory: &str, mode: u32) -> Result<()> {
        let name = file.file_name().context("a file without a name")?;
        let target = self.path(directory).join(name);
        fs::create_dir_all(self.path(directory))?;
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let target = self.path(path);
        fs::create_dir_all(target.parent().context("a path without a folder")?)?;
        fs::write(&target, content).with_context(|| format!("cannot write {}", target.display()))
    }

    /// Writes a file in gzip's format, always the same for the same content.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn write_compressed(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(content.as_ref())?;
        self.write(path, gzip.finish()?)
    }
}

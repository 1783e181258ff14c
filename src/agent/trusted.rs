//! Files of the host that decide about every run: nobody but root may have a say
//! in them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use cli::untrusted_file;

/// Who has to own them.
pub(crate) const ROOT: u32 = 0;

/// Whoever may write to a file besides its owner.
const OTHERS_WRITE: u32 = 0o022;

/// Only the owner of a file in such a folder may rename or remove it.
const STICKY: u32 = 0o1000;

/// Checks that nobody but `owner` and root can change what is at `path`, which
/// has no links in it.
///
/// # Errors
/// Somebody can, or it can't be looked at.
pub(crate) fn check(path: &Path, owner: u32) -> Result<()> {
    for (above, part) in path.ancestors().enumerate() {
        let about = fs::metadata(part).with_context(|| format!("{}", part.display()))?;
        let is_safe_folder = above > 0 && about.mode() & STICKY != 0;
        check_one(part, &about, owner, is_safe_folder)?;
    }
    Ok(())
}

/// Checks the same of what is in a folder that has been checked.
///
/// # Errors
/// Somebody else can change it.
pub(crate) fn check_inside(path: &Path, about: &Metadata, owner: u32) -> Result<()> {
    check_one(path, about, owner, false)
}

/// The text of a file with passwords; links are followed.
///
/// # Errors
/// Everybody can read it, or it can't be read.
pub(crate) fn private_text(file: &Path) -> Result<String> {
    if fs::metadata(file).context("cannot open it")?.mode() & 0o007 != 0 {
        bail!("everybody can read it: chown root:scalr-agent and chmod 0640 it");
    }
    untrusted_file::read_text(file).context("cannot read it")
}

fn check_one(path: &Path, about: &Metadata, owner: u32, is_safe_folder: bool) -> Result<()> {
    if about.uid() != ROOT && about.uid() != owner {
        bail!("{} is not owned by root: chown root:root {0}", path.display());
    }
    if about.mode() & OTHERS_WRITE != 0 && !is_safe_folder {
        bail!("{} can be written by others than root: chmod go-w {0}", path.display());
    }
    Ok(())
}

//! The yum repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::copy_into;
use super::keys::Key;
use crate::host::command::CommandExt as _;

/// Makes the repository at `root`: signed packages, signed metadata.
///
/// # Errors
/// A file can't be written, or a tool fails.
pub fn make(root: &Path, rpms: &[PathBuf], key: &Key) -> Result<()> {
    for rpm in rpms {
        let copy = copy_into(&root.join("packages"), rpm)?;
        Command::new("rpmsign")
            .args(["--define", &format!("_gpg_name {}", key.fingerprint())])
            .args(["--define", "_gpg_digest_algo sha256"])
            // Debian's rpm looks for a gpg2, which Debian no longer has.
            .args(["--define", "__gpg /usr/bin/gpg"])
            .arg("--addsign")
            .arg(&copy)
            .run()?;
    }
    // yum 3 reads gzip; what is newer reads it as well.
    Command::new("createrepo_c")
        .args(["--quiet", "--no-database", "--general-compress-type", "gz"])
        .args(["--checksum", "sha256"])
        .arg(root)
        .run()?;
    let index = root.join("repodata/repomd.xml");
    key.sign(&index, &root.join("repodata/repomd.xml.asc"))
}

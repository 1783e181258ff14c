//! The yum repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

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

/// Checks rpms against the key in one file, and no other.
pub struct Verifier {
    database: TempDir,
}

impl Verifier {
    /// Trusts the key in `file`, which is in ASCII.
    ///
    /// # Errors
    /// rpmkeys can't read it.
    pub fn trusting(file: &Path) -> Result<Self> {
        let verifier =
            Self { database: tempfile::tempdir().context("cannot make a temporary folder")? };
        verifier.rpmkeys().arg("--import").arg(file).run()?;
        Ok(verifier)
    }

    /// Checks that an rpm is whole and signed with the key.
    ///
    /// # Errors
    /// It isn't.
    pub fn verify(&self, file: &Path) -> Result<()> {
        let said = self.rpmkeys().arg("--checksig").arg(file).read()?;
        // An rpm without a signature passes too: its digests are all there is.
        let words = said.rsplit(':').next().unwrap_or_default();
        if !words.contains("signatures") && !words.contains("pgp") {
            bail!("{} is not signed", file.display());
        }
        Ok(())
    }

    fn rpmkeys(&self) -> Command {
        let mut command = Command::new("rpmkeys");
        command.arg("--dbpath").arg(self.database.path()).env("LC_ALL", "C");
        command
    }
}

//! The apt repository.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::copy_into;
use super::keys::Key;
use crate::host::command::CommandExt as _;

/// The suite's folder.
pub const SUITE: &str = "dists/stable";

/// Both are indexed, if only one has packages: apt asks for its own.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Makes the repository at `root`.
///
/// # Errors
/// A file can't be written, or a tool fails.
pub fn make(root: &Path, debs: &[PathBuf], key: &Key) -> Result<()> {
    for deb in debs {
        copy_into(&root.join("pool/main/s/scalr-agent"), deb)?;
    }
    for architecture in ARCHITECTURES {
        let folder = root.join(format!("{SUITE}/main/binary-{architecture}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let index = Command::new("apt-ftparchive")
            .current_dir(root)
            .args(["--arch", architecture, "packages", "pool"])
            .read()?;
        write(&folder.join("Packages"), index.as_bytes())?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(index.as_bytes())?;
        write(&folder.join("Packages.gz"), &packed.finish()?)?;
    }
    let suite = root.join(SUITE);
    let release = Command::new("apt-ftparchive")
        .current_dir(root)
        .args(release_options())
        .args(["release", SUITE])
        .read()?;
    let file = suite.join("Release");
    write(&file, release.as_bytes())?;
    key.clear_sign(&file, &suite.join("InRelease"))?;
    key.sign(&file, &suite.join("Release.gpg"))
}

fn release_options() -> Vec<String> {
    let architectures = ARCHITECTURES.join(" ");
    [
        ("Origin", "scalr-agent"),
        ("Label", "scalr-agent"),
        ("Suite", "stable"),
        ("Codename", "stable"),
        ("Components", "main"),
        ("Architectures", &architectures),
        // Old hosts know SHA-256; nobody should trust less.
        ("MD5", "false"),
        ("SHA1", "false"),
    ]
    .iter()
    .flat_map(|(name, value)| {
        ["-o".to_owned(), format!("APT::FTPArchive::Release::{name}={value}")]
    })
    .collect()
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

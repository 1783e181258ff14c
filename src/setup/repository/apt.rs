//! The apt repository.

use std::cmp::Ordering;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::Terms;
use super::keys::Keys;
use super::publication::Publication;
use super::versions::{self, Choice, Package};
use crate::package::sha256;
use cli::eprintln;
use host::command::CommandExt as _;
use host::dpkg;

/// The part of the output that this is.
pub(super) const PART: &str = "apt";

/// The suite's folder.
pub(super) const SUITE: &str = "dists/stable";

/// Both are indexed, if only one has packages: apt asks for its own.
pub(super) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Makes the repository of `debs` and of those that are published.
///
/// # Errors
/// A file can't be written, or a tool fails; a version is published already with
/// another content.
pub(super) fn make(
    publication: &Publication,
    debs: &[PathBuf],
    keys: &Keys,
    terms: &Terms,
) -> Result<Choice> {
    let mut packages = Vec::new();
    for path in publication.published("apt/pool")? {
        packages.push(read(&publication.output().join(&path), Some(path))?);
    }
    for deb in debs {
        packages.push(read(deb, None)?);
    }
    if packages.is_empty() {
        return Ok(Choice::default());
    }
    eprintln!("Making the apt repository");
    let choice = versions::choose(packages, terms.keep.into(), compare)?;
    for package in &choice.kept {
        match &package.published {
            Some(path) => publication.link(&package.file, path)?,
            None => publication.copy(&package.file, &place(package))?,
        };
    }
    index(&publication.folder().join(PART), keys, terms)?;
    Ok(choice)
}

fn read(deb: &Path, published: Option<String>) -> Result<Package> {
    let format = "${Package}\n${Version}\n${Architecture}\n";
    let said =
        Command::new("dpkg-deb").arg("--show").arg("--showformat").arg(format).arg(deb).read()?;
    let mut lines = said.lines().map(str::to_owned);
    let mut next = || lines.next().with_context(|| format!("{} is no package", deb.display()));
    Ok(Package {
        name: next()?,
        version: next()?,
        architecture: next()?,
        content: sha256(deb)?,
        file: deb.to_owned(),
        published,
    })
}

/// Where Debian's archive would have it, without the epoch, which is in no file's
/// name.
fn place(package: &Package) -> String {
    let Package { name, version, architecture, .. } = package;
    let version = version.split_once(':').map_or(version.as_str(), |(_epoch, version)| version);
    format!("apt/pool/main/{}/{name}/{name}_{version}_{architecture}.deb", &name[..1])
}

fn compare(one: &str, other: &str) -> Ordering {
    if one == other {
        Ordering::Equal
    } else if dpkg::is_older(one, other) {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

fn index(root: &Path, keys: &Keys, terms: &Terms) -> Result<()> {
    for architecture in ARCHITECTURES {
        let folder = root.join(format!("{SUITE}/main/binary-{architecture}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let index = ftparchive(root).args(["--arch", architecture, "packages", "pool"]).read()?;
        write(&folder.join("Packages"), index.as_bytes())?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(index.as_bytes())?;
        write(&folder.join("Packages.gz"), &packed.finish()?)?;
    }
    let suite = root.join(SUITE);
    let release = ftparchive(root).args(release_options(terms)).args(["release", SUITE]).read()?;
    let file = suite.join("Release");
    write(&file, release.as_bytes())?;
    keys.clear_sign(&file, &suite.join("InRelease"))?;
    keys.sign(&file, &suite.join("Release.gpg"))
}

/// Old hosts support SHA-256; weaker hashes are not safe.
fn ftparchive(root: &Path) -> Command {
    let mut command = Command::new("apt-ftparchive");
    command.current_dir(root);
    for hash in ["MD5", "SHA1", "SHA512"] {
        command.args(["-o", &format!("APT::FTPArchive::{hash}=false")]);
    }
    command
}

fn release_options(terms: &Terms) -> Vec<String> {
    let architectures = ARCHITECTURES.join(" ");
    let mut options: Vec<String> = [
        ("Origin", "scalr-agent"),
        ("Label", "scalr-agent"),
        ("Suite", "stable"),
        ("Codename", "stable"),
        ("Components", "main"),
        ("Architectures", &architectures),
        ("Description", "Agents for self-hosted pools of Terraform runs"),
        // A client gets the very index that the Release it has read is about.
        ("Acquire-By-Hash", "yes"),
    ]
    .iter()
    .map(|(name, value)| format!("APT::FTPArchive::Release::{name}={value}"))
    .collect();
    options.push("APT::FTPArchive::DoByHash=true".into());
    if let Some(days) = terms.valid_days {
        options.push(format!("APT::FTPArchive::Release::ValidTime={}", u64::from(days) * 86400));
    }
    options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

//! The crates that are in the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::checkout::Checkout;
use super::product::Product;
use super::symbols::Processor;
use host::command::CommandExt as _;

/// A crate that is linked into a program.
#[derive(Debug)]
pub(super) struct Crate {
    /// Its name on crates.io.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SPDX expression of its licence.
    pub license: String,
    /// Who wrote it, where it says so.
    pub authors: Vec<String>,
    /// The SHA-256 of its archive, in hex.
    pub checksum: Option<String>,
    folder: PathBuf,
}

/// The crates in a product's programs, sorted: those of its crates and the
/// processor it is built for, and neither those that only the build takes nor the
/// macros. Our own is not among them.
///
/// # Errors
/// cargo fails; a crate does not name its licence.
pub(super) fn of(
    checkout: &Checkout,
    product: Product,
    processor: Processor,
) -> Result<Vec<Crate>> {
    // cargo takes as long for either.
    let (linked, packages) = thread::scope(|scope| {
        let linked = scope.spawn(|| linked(checkout, product, processor));
        let packages = packages(checkout, processor);
        (linked.join().expect("reading lines does not panic"), packages)
    });
    let (linked, packages) = (linked?, packages?);
    let checksums = checksums(&checkout.file("Cargo.lock"))?;
    let mut crates = Vec::new();
    for package in packages {
        let key = (package.name, package.version);
        // What has no source is ours.
        if package.source.is_none() || !linked.contains(&key) {
            continue;
        }
        let checksum = checksums.get(&key).cloned();
        let (name, version) = key;
        let license =
            package.license.with_context(|| format!("{name} {version} names no licence"))?;
        crates.push(Crate {
            license: license.replace('/', " OR "),
            authors: package.authors,
            folder: package.manifest_path.parent().context("a crate without a folder")?.to_owned(),
            checksum,
            name,
            version,
        });
    }
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(crates)
}

impl Crate {
    /// The texts of its licence and notices, as they are in its archive.
    ///
    /// # Errors
    /// One can't be read.
    pub(super) fn license_texts(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for path in entries(&self.folder)?.into_iter().filter(|path| is_license(path)) {
            if path.is_dir() {
                files.extend(entries(&path)?.into_iter().filter(|path| path.is_file()));
            } else {
                files.push(path);
            }
        }
        files
            .iter()
            .map(|file| {
                let text =
                    fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            })
            .collect()
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    entries.sort();
    Ok(entries)
}

fn is_license(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    ["license", "licence", "copying", "copyright", "notice", "unlicense"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

/// Names and versions, with the features as cargo resolves them for a build.
fn linked(
    checkout: &Checkout,
    product: Product,
    processor: Processor,
) -> Result<BTreeSet<(String, String)>> {
    let ours = product.crates().iter().flat_map(|name| ["--package", name]);
    let tree = Command::new("cargo")
        .current_dir(checkout.root())
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}", "--target", processor.triple()])
        .args(ours)
        .read()
        .context("cannot list the crates in the programs")?;
    // "name v1.2.3", and sometimes more.
    let names = tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    });
    Ok(names.collect())
}

fn packages(checkout: &Checkout, processor: Processor) -> Result<Vec<Package>> {
    let text = Command::new("cargo")
        .current_dir(checkout.root())
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", processor.triple()])
        .read()
        .context("cannot look up the crates")?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("cannot understand `cargo metadata`")?;
    Ok(metadata.packages)
}

fn checksums(lock: &Path) -> Result<BTreeMap<(String, String), String>> {
    let text =
        fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("cannot understand {}", lock.display()))?;
    let locked = lock.package.into_iter();
    Ok(locked
        .filter_map(|locked| Some(((locked.name, locked.version), locked.checksum?)))
        .collect())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let checkout = Checkout::find().unwrap();
        let crates = of(&checkout, Product::Agent, Processor::X86_64).unwrap();
        let names: Vec<&str> = crates.iter().map(|found| found.name.as_str()).collect();
        assert!(names.contains(&"clap") && names.contains(&"bollard"), "{names:?}");
        // The server's, a macro's, the build's, and our own.
        for other in ["sqlx", "serde_derive", "cc", "agent"] {
            assert!(!names.contains(&other), "{other} is not in the agent");
        }
        assert!(crates.iter().all(|found| found.checksum.is_some()));
        let clap = crates.iter().find(|found| found.name == "clap").unwrap();
        assert!(clap.license_texts().unwrap().iter().any(|text| text.contains("Apache License")));
    }
}

//! Compares an apt repository's indexes with its files.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use deb822_fast::Deb822;
use flate2::read::GzDecoder;
use hex::encode;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use sha2::{Digest as _, Sha256};

use super::super::apt::{ARCHITECTURES, SUITE};
use super::super::keys::Verifier;
use super::Findings;
use super::entry::Entry;
use super::files::Files;

/// Looks at everything in it.
pub(super) fn inspect(files: &Files, signatures: &Verifier, findings: &mut Findings) {
    let named = |name: &str| format!("apt/{SUITE}/{name}");
    let release = named("Release");
    findings.note(&named("Release.gpg"), detached(files, signatures, &release));
    let inline = named("InRelease");
    let signed = files.get(&inline).and_then(|file| signatures.verify_inline(&file));
    let Some(signed) = findings.note(&inline, signed) else { return };
    findings.note(&release, same(files, &release, &signed));
    let Some(release) = findings.note(&inline, Release::parse(&signed)) else { return };
    for index in &release.indexes {
        let name = named(&index.path);
        let file = findings.note(&name, index.require(files, &name));
        if release.is_by_hash {
            let name = named(&index.by_hash());
            findings.note(&name, index.require(files, &name));
        }
        let Some(file) = file else { continue };
        if let Some(unpacked) = index.path.strip_suffix(".gz") {
            findings.note(&name, release.is_packed(&file, unpacked));
        } else {
            let debs = fs::read_to_string(file).context("cannot read it");
            let debs = debs.and_then(|text| debs_in(&text));
            for deb in findings.note(&name, debs).unwrap_or_default() {
                let name = format!("apt/{}", deb.path);
                let file = findings.note(&name, deb.require(files, &name));
                file.inspect(|file| files.done(file));
            }
        }
    }
}

fn detached(files: &Files, signatures: &Verifier, release: &str) -> Result<()> {
    let signature = files.get(&format!("{release}.gpg"))?;
    signatures.verify(&signature, &files.get(release)?)
}

/// Old and new clients read different ones; they have to say the same.
fn same(files: &Files, release: &str, signed: &str) -> Result<()> {
    let text = fs::read_to_string(files.get(release)?).context("cannot read it")?;
    if text.trim_end() != signed.trim_end() {
        bail!("its content differs from InRelease's");
    }
    Ok(())
}

/// The content of a `Release`.
#[derive(Debug)]
struct Release {
    indexes: Vec<Entry>,
    is_by_hash: bool,
}

impl Release {
    fn parse(text: &str) -> Result<Self> {
        let parsed: Deb822 = text.parse().context("cannot understand it")?;
        let field = |name: &str| parsed.iter().find_map(|paragraph| paragraph.get(name));
        let indexes = entries(field("SHA256").context("it has no SHA256 field")?)?;
        for architecture in ARCHITECTURES {
            let index = format!("main/binary-{architecture}/Packages");
            if !indexes.iter().any(|entry| entry.path == index) {
                bail!("it names no {index}, so apt fails on {architecture}");
            }
        }
        if let Some(end) = field("Valid-Until") {
            let end = rfc2822::parse(end).map_err(|error| anyhow!("Valid-Until: {error}"))?;
            if end.timestamp() < Timestamp::now() {
                bail!("it expired at {end}: recreate it with `repository`");
            }
        }
        Ok(Self { indexes, is_by_hash: field("Acquire-By-Hash") == Some("yes") })
    }

    /// Whether `file` unpacks to what is said of the index `path`.
    fn is_packed(&self, file: &Path, path: &str) -> Result<()> {
        let mut content = Vec::new();
        GzDecoder::new(fs::File::open(file)?)
            .read_to_end(&mut content)
            .context("it can't be unpacked")?;
        let unpacked = self.indexes.iter().find(|index| index.path == path);
        let unpacked = unpacked.with_context(|| format!("{path} is not named"))?;
        if encode(Sha256::digest(&content)) != unpacked.sha256 {
            bail!("it unpacks to something else than {path}");
        }
        Ok(())
    }
}

/// Lines of a SHA-256, a size and a path.
fn entries(sums: &str) -> Result<Vec<Entry>> {
    sums.lines()
        .map(str::split_whitespace)
        .map(Iterator::collect::<Vec<_>>)
        .filter(|words| !words.is_empty())
        .map(|words| match words.as_slice() {
            [sum, size, path] => Ok(Entry {
                path: (*path).to_owned(),
                size: size.parse().context("a size is not a number")?,
                sha256: (*sum).to_owned(),
            }),
            _ => bail!("a line is not understood: {}", words.join(" ")),
        })
        .collect()
}

/// The debs in a `Packages`.
fn debs_in(text: &str) -> Result<Vec<Entry>> {
    let index: Deb822 = text.parse().context("cannot understand it")?;
    index
        .iter()
        .map(|package| {
            let field = |name: &str| {
                package.get(name).with_context(|| format!("a package has no field {name}"))
            };
            Ok(Entry {
                path: field("Filename")?.to_owned(),
                size: field("Size")?.parse().context("a size is not a number")?,
                sha256: field("SHA256")?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "\
Suite: stable
Acquire-By-Hash: yes
SHA256:
 abc 12 main/binary-amd64/Packages
 def 7 main/binary-arm64/Packages
";

    #[test]
    fn a_release_names_its_indexes() {
        let release = Release::parse(RELEASE).unwrap();
        assert!(release.is_by_hash);
        assert_eq!(release.indexes.len(), 2);
        let first = &release.indexes[0];
        assert_eq!(first.path, "main/binary-amd64/Packages");
        assert_eq!((first.size, first.sha256.as_str()), (12, "abc"));
    }

    #[test]
    fn both_architectures_are_wanted() {
        let error = Release::parse(&RELEASE.replace("binary-arm64", "binary-i386")).unwrap_err();
        assert!(error.to_string().ends_with("apt fails on arm64"), "{error}");
    }

    #[test]
    fn a_release_ends() {
        let until = |year: u16| {
            Release::parse(&format!("Valid-Until: Fri, 01 Jan {year} 00:00:00 +0000\n{RELEASE}"))
        };
        let error = until(2021).unwrap_err().to_string();
        assert!(error.starts_with("it expired at 2021-01-01"), "{error}");
        until(2100).unwrap();
    }
}

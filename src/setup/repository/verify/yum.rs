//! Compares a yum repository's indexes with its files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::keys::Verifier;
use super::super::yum::{self, INDEX};
use super::Findings;
use super::entry::Entry;
use super::files::Files;

/// The indexes that every yum asks for.
const KINDS: [&str; 3] = ["primary", "filelists", "other"];

/// Looks at everything in the folder `part`.
pub(super) fn inspect(
    part: &str,
    files: &Files,
    signatures: &Verifier,
    rpms: &yum::Verifier,
    findings: &mut Findings,
) {
    let name = format!("{part}/{INDEX}");
    let signature = format!("{name}.asc");
    let signed = files
        .get(&signature)
        .and_then(|signature| signatures.verify(&signature, &files.get(&name)?));
    findings.note(&signature, signed);
    let repomd = files.get(&name).and_then(|file| Ok(fs::read_to_string(file)?));
    let repomd = repomd.and_then(|text| Repomd::parse(&text));
    let Some(repomd) = findings.note(&name, repomd) else { return };

    let mut named = None;
    for data in &repomd.data {
        let name = format!("{part}/{}", data.location.href);
        let file = data.entry().and_then(|entry| entry.require(files, &name));
        let Some(file) = findings.note(&name, file) else { continue };
        let sums = match data.kind.as_str() {
            "primary" => {
                let Some(primary) = findings.note(&name, read::<Primary>(&file)) else { continue };
                primary.inspect(part, files, rpms, findings);
                Ok(primary.package.into_iter().map(|package| package.checksum.sum).collect())
            }
            "filelists" | "other" => read::<Listed>(&file)
                .map(|list| list.package.into_iter().map(|package| package.id).collect()),
            _ => continue,
        };
        let Some(sums): Option<BTreeSet<String>> = findings.note(&name, sums) else { continue };
        let packages = named.get_or_insert_with(|| sums.clone());
        if *packages != sums {
            findings.note::<()>(&name, Err(anyhow::anyhow!("it names other packages")));
        }
    }
}

#[derive(Debug, Deserialize)]
struct Repomd {
    data: Vec<Data>,
}

impl Repomd {
    fn parse(text: &str) -> Result<Self> {
        let repomd: Self = quick_xml::de::from_str(text).context("cannot understand it")?;
        for kind in KINDS {
            if !repomd.data.iter().any(|data| data.kind == kind) {
                bail!("it names no index {kind}");
            }
        }
        Ok(repomd)
    }
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(rename = "@type")]
    kind: String,
    checksum: Checksum,
    location: Location,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Primary {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    checksum: Checksum,
    size: PackageSize,
    location: Location,
}

/// `filelists` and `other`.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default)]
    package: Vec<ListedPackage>,
}

#[derive(Debug, Deserialize)]
struct ListedPackage {
    #[serde(rename = "@pkgid")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Checksum {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(rename = "$text")]
    sum: String,
}

#[derive(Debug, Deserialize)]
struct PackageSize {
    #[serde(rename = "@package")]
    package: u64,
}

#[derive(Debug, Deserialize)]
struct Location {
    #[serde(rename = "@href")]
    href: String,
}

impl Data {
    fn entry(&self) -> Result<Entry> {
        entry(&self.location, self.size, &self.checksum)
    }
}

impl Primary {
    fn inspect(&self, part: &str, files: &Files, rpms: &yum::Verifier, findings: &mut Findings) {
        for package in &self.package {
            let name = format!("{part}/{}", package.location.href);
            let result = entry(&package.location, package.size.package, &package.checksum)
                .and_then(|entry| entry.require(files, &name))
                .and_then(|file| {
                    rpms.verify(&file)?;
                    Ok(file)
                });
            findings.note(&name, result).inspect(|file| files.done(file));
        }
    }
}

/// Of the kinds of checksums, yum 3 knows SHA-256 and weaker ones.
fn entry(location: &Location, size: u64, checksum: &Checksum) -> Result<Entry> {
    if checksum.kind != "sha256" {
        bail!("its checksum is of the kind {}, not sha256", checksum.kind);
    }
    Ok(Entry { path: location.href.clone(), size, sha256: checksum.sum.clone() })
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(file)?)
        .read_to_string(&mut text)
        .context("it is not packed with gzip, which is all that an old yum reads")?;
    quick_xml::de::from_str(&text).context("cannot understand it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_wanted() {
        let data = |kind: &str| {
            format!(
                "<data type=\"{kind}\"><checksum type=\"sha256\">ab</checksum>\
                 <location href=\"repodata/{kind}.xml.gz\"/><size>7</size></data>"
            )
        };
        let text = |kinds: &[&str]| {
            format!("<repomd>{}</repomd>", kinds.iter().map(|kind| data(kind)).collect::<String>())
        };
        let repomd = Repomd::parse(&text(&KINDS)).unwrap();
        let entry = repomd.data[0].entry().unwrap();
        assert_eq!((entry.path.as_str(), entry.size), ("repodata/primary.xml.gz", 7));
        let error = Repomd::parse(&text(&KINDS[..2])).unwrap_err();
        assert_eq!(error.to_string(), "it names no index other");
        let weak = Repomd::parse(&text(&KINDS).replace("sha256", "sha")).unwrap();
        assert!(weak.data[0].entry().is_err());
    }
}

//! `repository verify`: everything that an index names is there, whole and signed.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path};

use anyhow::{Context as _, Result, anyhow, bail};
use deb822_fast::Deb822;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::keys::Verifier;
use super::{KEY, PROGRAM, apt, yum};
use crate::exit::Failure;
use crate::setup::Format;
use crate::setup::package::sha256;

/// What was found. Its JSON is the command's output.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// How many files were looked at.
    pub files: usize,
    problems: Vec<String>,
}

/// Runs `repository verify`.
///
/// # Errors
/// Something is wrong with the repository, or it can't be looked at.
pub fn run(format: Format, directory: &Path) -> Result<()> {
    let findings = inspect(directory)?;
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
        return if findings.problems.is_empty() {
            Ok(())
        } else {
            Err(Failure::CheckFailed.into())
        };
    }
    findings.require_sound()?;
    println!("{}: {} files, all there, whole and signed", directory.display(), findings.files);
    Ok(())
}

/// Looks at everything in the repository `root`.
///
/// # Errors
/// It is no repository, or a tool is missing.
pub fn inspect(root: &Path) -> Result<Findings> {
    let key = root.join(KEY);
    if !key.is_file() {
        return Err(Failure::Usage
            .because(format!("{} is no repository of ours: it has no {KEY}", root.display())));
    }
    let mut findings = Findings::default();
    findings.note(KEY, require_public(&key));
    let signatures = Verifier::trusting(&key)?;
    let mut found = false;
    if root.join("apt").is_dir() {
        found = true;
        findings.apt(&root.join("apt"), &signatures);
    }
    if root.join("yum").is_dir() {
        found = true;
        findings.yum(&root.join("yum"), &signatures, &yum::Verifier::trusting(&key)?);
    }
    if !found {
        findings.problems.push("there is neither apt nor yum".into());
    }
    for entry in fs::read_dir(root)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(PROGRAM) && !name.ends_with(".sha256") {
            findings.note(&name, require_checksum(&file));
        }
    }
    Ok(findings)
}

impl Findings {
    /// Fails if something was wrong, and says what.
    ///
    /// # Errors
    /// Something was wrong.
    pub fn require_sound(&self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Failure::CheckFailed
            .because(format!("the repository is not in order:\n  {}", self.problems.join("\n  "))))
    }

    /// Counts a file, and notes what is wrong with it.
    fn note<T>(&mut self, name: &str, result: Result<T>) -> Option<T> {
        self.files += 1;
        result.map_err(|error| self.problems.push(format!("{name}: {error:#}"))).ok()
    }

    fn apt(&mut self, root: &Path, signatures: &Verifier) {
        let suite = root.join(apt::SUITE);
        let named = |name: &str| format!("apt/{}/{name}", apt::SUITE);
        let release = suite.join("Release");
        self.note(&named("Release.gpg"), signatures.verify(&suite.join("Release.gpg"), &release));
        let Some(signed) =
            self.note(&named("InRelease"), signatures.verify_inline(&suite.join("InRelease")))
        else {
            return;
        };
        // Old and new clients read different ones; they have to say the same.
        let same = match fs::read_to_string(&release) {
            Ok(text) if text.trim_end() == signed.trim_end() => Ok(()),
            Ok(_) => Err(anyhow!("it says something else than InRelease")),
            Err(error) => Err(error).context("cannot read it"),
        };
        self.note(&named("Release"), same);
        let indexes = match release_entries(&signed) {
            Ok(indexes) => indexes,
            Err(error) => {
                return self.problems.push(format!("{}: {error:#}", named("InRelease")));
            }
        };
        for index in &indexes {
            let name = named(&index.path);
            if self.note(&name, index.require(&suite)).is_none() || !index.is_packages() {
                continue;
            }
            let text = fs::read_to_string(suite.join(&index.path));
            let Some(debs) =
                self.note(&name, text.context("cannot read it").and_then(|text| debs(&text)))
            else {
                continue;
            };
            for deb in &debs {
                self.note(&format!("apt/{}", deb.path), deb.require(root));
            }
        }
        if !indexes.iter().any(Entry::is_packages) {
            self.problems.push(format!("{}: it names no Packages", named("InRelease")));
        }
    }

    fn yum(&mut self, root: &Path, signatures: &Verifier, rpms: &yum::Verifier) {
        let index = root.join("repodata/repomd.xml");
        let name = "yum/repodata/repomd.xml";
        self.note(
            &format!("{name}.asc"),
            signatures.verify(&root.join("repodata/repomd.xml.asc"), &index),
        );
        let text = fs::read_to_string(&index).context("cannot read it");
        let Some(repomd) =
            self.note(name, text.and_then(|text| Ok(quick_xml::de::from_str::<Repomd>(&text)?)))
        else {
            return;
        };
        let mut primary = None;
        for data in &repomd.data {
            let entry = data.entry();
            let sound = self.note(&format!("yum/{}", entry.path), entry.require(root)).is_some();
            if data.kind == "primary" {
                primary = sound.then_some(entry);
            }
        }
        let Some(primary) = primary else {
            return self.problems.push(format!("{name}: it names no sound primary index"));
        };
        let packages = read_gz(&root.join(&primary.path))
            .and_then(|text| Ok(quick_xml::de::from_str::<Primary>(&text)?));
        let Some(primary) = self.note(&format!("yum/{}", primary.path), packages) else { return };
        for package in &primary.package {
            let entry = package.entry();
            let result = entry.require(root).and_then(|()| rpms.verify(&root.join(&entry.path)));
            self.note(&format!("yum/{}", entry.path), result);
        }
    }
}

/// What an index says of a file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Relative to the index's base.
    path: String,
    size: u64,
    sha256: String,
}

impl Entry {
    fn require(&self, base: &Path) -> Result<()> {
        let path = Path::new(&self.path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("its path leads out of the repository");
        }
        let file = base.join(path);
        let size = fs::metadata(&file).context("it is not there")?.len();
        if size != self.size {
            bail!("it has {size} bytes, and its index says {}", self.size);
        }
        let sum = sha256(&file)?;
        if sum != self.sha256 {
            bail!("its SHA-256 is {sum}, and its index says {}", self.sha256);
        }
        Ok(())
    }

    fn is_packages(&self) -> bool {
        Path::new(&self.path).file_name().is_some_and(|name| name == "Packages")
    }
}

/// The files in a `Release`: a line each of SHA-256, size and path.
fn release_entries(text: &str) -> Result<Vec<Entry>> {
    let release: Deb822 = text.parse().context("cannot understand it")?;
    let sums = release
        .iter()
        .find_map(|paragraph| paragraph.get("SHA256"))
        .context("it has no SHA256 field")?;
    sums.lines()
        .map(str::split_whitespace)
        .map(Iterator::collect::<Vec<_>>)
        .filter(|words| !words.is_empty())
        .map(|words| match words.as_slice() {
            [sum, size, path] => Ok(Entry {
                path: (*path).to_owned(),
                size: size.parse().context("a size is no number")?,
                sha256: (*sum).to_owned(),
            }),
            _ => bail!("a line is not understood: {}", words.join(" ")),
        })
        .collect()
}

/// The debs in a `Packages`.
fn debs(text: &str) -> Result<Vec<Entry>> {
    let index: Deb822 = text.parse().context("cannot understand it")?;
    index
        .iter()
        .map(|package| {
            let field = |name: &str| {
                package.get(name).with_context(|| format!("a package has no field {name}"))
            };
            Ok(Entry {
                path: field("Filename")?.to_owned(),
                size: field("Size")?.parse().context("a size is no number")?,
                sha256: field("SHA256")?.to_owned(),
            })
        })
        .collect()
}

#[derive(Debug, Deserialize)]
struct Repomd {
    data: Vec<Data>,
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

#[derive(Debug, Deserialize)]
struct Checksum {
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
    fn entry(&self) -> Entry {
        entry(&self.location, self.size, &self.checksum)
    }
}

impl Package {
    fn entry(&self) -> Entry {
        entry(&self.location, self.size.package, &self.checksum)
    }
}

fn entry(location: &Location, size: u64, checksum: &Checksum) -> Entry {
    Entry { path: location.href.clone(), size, sha256: checksum.sum.clone() }
}

fn read_gz(file: &Path) -> Result<String> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(file)?)
        .read_to_string(&mut text)
        .context("it is not packed with gzip, which is all that an old yum reads")?;
    Ok(text)
}

/// Refuses a file that has a secret key in it.
fn require_public(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    if text.contains("PRIVATE KEY") || !text.contains("BEGIN PGP PUBLIC KEY BLOCK") {
        bail!("it is not just a public key in ASCII");
    }
    Ok(())
}

fn require_checksum(program: &Path) -> Result<()> {
    let file = program.with_added_extension("sha256");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let sum = sha256(program)?;
    if text.split_whitespace().next() != Some(&sum) {
        bail!("its SHA-256 is {sum}, and {} says something else", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_indexes() {
        let text = "Suite: stable\nSHA256:\n abc 12 main/binary-amd64/Packages\n def 7 x/y\n";
        let entries = release_entries(text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].path, "main/binary-amd64/Packages");
        assert_eq!((entries[0].size, entries[0].sha256.as_str()), (12, "abc"));
        assert!(entries[0].is_packages() && !entries[1].is_packages());
    }

    #[test]
    fn a_path_stays_in_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../secret", "/etc/passwd", "a/../../b"] {
            let entry = Entry { path: path.into(), size: 0, sha256: String::new() };
            let error = entry.require(folder.path()).unwrap_err();
            assert_eq!(error.to_string(), "its path leads out of the repository", "{path}");
        }
    }
}

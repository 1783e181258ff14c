//! What a volume holds of a provider: its package as the registry has it, below
//! `packed/`, and what is in the package, below `unpacked/`; both in the layout
//! of a mirror's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zip::read::{Config, ZipReadOptions};
use zip::unstable::read::ZipIterable;

use super::archive::Archive;
use super::provider::Provider;

/// The folder with the package itself.
pub(super) const PACKED: &str = "packed";
/// The folder with what is in it.
pub(super) const UNPACKED: &str = "unpacked";

/// The most that a package may unpack to, in bytes: more than any provider does,
/// and no more than a disk takes.
const LARGEST: u64 = 4 * 1024 * 1024 * 1024;

/// The most files that a package may have.
const MOST: usize = 10_000;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// How many bytes, headers aside.
    pub bytes: u64,
    /// What Terraform calls the hash of the unpacked package: `h1:…`.
    pub h1: String,
}

/// Writes a tar archive of the package in `zip`; it is never in memory as a whole.
///
/// # Errors
/// It is no zip, has something else than files and folders in it, a path that
/// leads out, or more than a provider has.
pub(super) fn pack(
    zip: &Path,
    into: impl Write,
    provider: &Provider,
    platform: &str,
) -> Result<Written> {
    let cannot = || format!("cannot unpack {}", provider.package(platform));
    let packed = File::open(zip).with_context(cannot)?;
    let size = packed.metadata().with_context(cannot)?.len();
    let mut archive = Archive::new(into);
    let path = format!("{PACKED}/{}/{}", provider.address(), provider.package(platform));
    archive.file(&path, 0o644, size, &packed).with_context(cannot)?;

    // Not by a list of all that is in it: how long that is, whoever made the package
    // decides.
    let mut entries = ZipIterable::try_new(File::open(zip)?, Config::default())
        .with_context(cannot)?
        .enforce_header_consistency(true);
    if entries.len() > MOST {
        bail!("{}: it has {} files", cannot(), entries.len());
    }
    let mut entries =
        entries.files_with_reader(File::open(zip)?, ZipReadOptions::new()).with_context(cannot)?;
    let folder = format!("{UNPACKED}/{}/{}/{platform}", provider.address(), provider.version);
    let mut hashes = BTreeMap::new();
    let mut left = LARGEST;
    while let Some(entry) = entries.next() {
        let mut entry = entry.with_context(cannot)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name().with_context(cannot)?.into_owned();
        if !entry.is_file() || !is_inside(&name) || hashes.contains_key(&name) {
            bail!("{}: `{}` in it is no file of a provider", cannot(), name.escape_debug());
        }
        let size = entry.size();
        left = left.checked_sub(size).with_context(|| format!("{}: it is too large", cannot()))?;
        let mut content = Hashed { inner: &mut entry, hash: Sha256::new() };
        archive
            .file(&format!("{folder}/{name}"), 0o755, size, &mut content)
            .with_context(cannot)?;
        // What it announces is not what it has to have.
        if content.read(&mut [0]).with_context(cannot)? != 0 {
            bail!("{}: `{name}` is larger than it says", cannot());
        }
        let hash = hex::encode(content.hash.finalize());
        hashes.insert(name, hash);
    }
    archive.finish().with_context(cannot)?;
    Ok(Written { bytes: size + (LARGEST - left), h1: h1(&hashes) })
}

/// The hash that Go calls `dirhash.Hash1`: of the list of all hashes and names.
fn h1(hashes: &BTreeMap<String, String>) -> String {
    let list: String = hashes.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    format!("h1:{}", STANDARD.encode(Sha256::digest(list)))
}

/// Whether the path of a file is short and stays where it is put. Names that only
/// some systems understand as more than a name are refused, too.
fn is_inside(name: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= 255
        && name.split('/').all(is_name)
        && !name.contains(['\\', ':'])
        && !name.contains(char::is_control)
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    const PLATFORM: &str = "linux_amd64";

    /// A package with these files, for tests.
    pub(crate) fn package(files: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = ZipWriter::new(file.as_file());
        for (name, content) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn packed(zip: &Path) -> Result<(Written, Vec<u8>)> {
        let provider = Provider::new("registry.terraform.io/hashicorp/null", "3.2.1").unwrap();
        let mut tar = Vec::new();
        let written = pack(zip, &mut tar, &provider, PLATFORM)?;
        Ok((written, tar))
    }

    #[test]
    fn a_package_is_there_packed_and_unpacked() {
        let zip = package(&[("terraform-provider-null_v3.2.1", "program"), ("LICENSE", "text")]);
        let (written, tar) = packed(zip.path()).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .filter(|entry| entry.header().entry_type().is_file())
            .map(|mut entry| {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        let folder = "registry.terraform.io/hashicorp/null";
        assert_eq!(
            found,
            [
                (
                    format!("packed/{folder}/terraform-provider-null_3.2.1_linux_amd64.zip"),
                    std::fs::read(zip.path()).unwrap()
                ),
                (
                    format!("unpacked/{folder}/3.2.1/{PLATFORM}/terraform-provider-null_v3.2.1"),
                    b"program".to_vec()
                ),
                (format!("unpacked/{folder}/3.2.1/{PLATFORM}/LICENSE"), b"text".to_vec()),
            ]
        );
        assert_eq!(written.bytes, zip.path().metadata().unwrap().len() + 11);
        // Of the same two files, by terraform 1.11.4.
        assert_eq!(written.h1, "h1:Vypzp17fzsUPpwLADkkzLL/+WpbUYBRtRDe366Q5Q8w=");
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let long = "x".repeat(256);
        for name in [&long, "../x", "/x", "a/../../x", "a//b", "./x", "a\\b", "C:x", "a\nb"] {
            assert!(!is_inside(name), "{name:?}");
            let error = packed(package(&[(name, "")]).path()).unwrap_err();
            assert!(error.to_string().contains("is no file of a provider"), "{error}");
        }
    }

    #[test]
    fn links_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut zip = ZipWriter::new(file.as_file());
        zip.add_symlink("provider", "/etc/shadow", SimpleFileOptions::default()).unwrap();
        zip.finish().unwrap();
        assert!(packed(file.path()).is_err());
    }

    #[test]
    fn what_is_larger_than_it_says_is_refused() {
        let zip = package(&[("provider", &"x".repeat(100_000))]);
        let mut bytes = std::fs::read(zip.path()).unwrap();
        // The size as it is written down, in the file's header and in the list.
        let size = 100_000u32.to_le_bytes();
        let places: Vec<_> =
            (0..bytes.len() - 4).filter(|place| bytes[*place..*place + 4] == size).collect();
        assert_eq!(places.len(), 2);
        for place in places {
            bytes[place..place + 4].copy_from_slice(&10u32.to_le_bytes());
        }
        std::fs::write(zip.path(), bytes).unwrap();
        assert!(packed(zip.path()).is_err());
    }

    #[test]
    fn something_else_is_no_package() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a zip").unwrap();
        assert!(packed(file.path()).is_err());
    }
}

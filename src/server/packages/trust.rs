//! The packages' key that this server trusts, and what of the packages' folder is signed with
//! it. Whoever can write that folder cannot choose what root runs on hosts: the key is
//! compared with a copy in the server's own folder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use cli::Failure;
use cli::whole_file::{WholeFile, folder_of};

/// The public key that the packages are signed with, in their folder.
pub(crate) const KEY: &str = "scalr-agent.asc";

/// The trusted key's file in the server's folder.
const TRUSTED: &str = "packages-key.asc";

/// The architectures of setup programs, as `uname -m` has them.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

/// A folder with signed packages.
#[derive(Debug)]
pub(crate) struct Packages {
    /// It.
    pub folder: PathBuf,
    /// The copy of the key.
    trusted: PathBuf,
    /// What was found, and of which files.
    known: Mutex<Option<(Stamps, Result<Pins, String>)>>,
}

/// The install script's comparisons, in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    /// The SHA-256 of the key's file.
    pub key: String,
    /// Words, each an architecture and the SHA-256 of its setup program; without gpgv none,
    /// and the script verifies the program's signature itself.
    pub setup: String,
}

/// Sizes and times of the files that matter.
type Stamps = Vec<Option<(u64, SystemTime)>>;

impl Packages {
    /// Trusts the folder's key from the first start on.
    ///
    /// # Errors
    /// The key can't be read or copied.
    pub(crate) fn open(folder: PathBuf, data: &Path) -> Result<Self> {
        let trusted = data.join(TRUSTED);
        let key = fs::read(folder.join(KEY))
            .with_context(|| format!("cannot read {}", folder.join(KEY).display()))?;
        let packages = Self { folder, trusted, known: Mutex::default() };
        match fs::read(&packages.trusted) {
            Ok(before) if before == key => {}
            Ok(before) => error!("{}", packages.other_key(&before, &key)),
            Err(_) => {
                replace(&packages.trusted, &key)?;
                info!(sha256 = sha256(&key), "trusting the packages' key from now on");
            }
        }
        Ok(packages)
    }

    /// The trusted key's SHA-256.
    pub(crate) fn key_sha256(&self) -> Option<String> {
        fs::read(&self.trusted).ok().map(|key| sha256(&key))
    }

    /// The trusted key.
    pub(super) async fn key(&self) -> Result<Vec<u8>> {
        Ok(tokio::fs::read(&self.trusted).await?)
    }

    /// The pins of what is signed with the trusted key.
    ///
    /// # Errors
    /// The folder has another key, or a setup program that is not signed with it, as a
    /// text for people.
    pub(super) async fn pins(&self) -> Result<Pins, String> {
        let stamps = self.stamps();
        let mut known = self.known.lock().await;
        if let Some((of, found)) = &*known
            && *of == stamps
        {
            return found.clone();
        }
        let found = self.verified().await;
        if let Err(refusal) = &found {
            error!("{refusal}");
        }
        *known = Some((stamps, found.clone()));
        found
    }

    async fn verified(&self) -> Result<Pins, String> {
        let read = |path: PathBuf| async move {
            let text = |error: io::Error| format!("cannot read {}: {error}", path.display());
            tokio::fs::read(&path).await.map_err(text)
        };
        let trusted = read(self.trusted.clone()).await?;
        let key = read(self.folder.join(KEY)).await?;
        if key != trusted {
            return Err(self.other_key(&trusted, &key));
        }
        let mut setup = Vec::new();
        for machine in MACHINES {
            let file = self.program(machine);
            if !file.exists() {
                continue;
            }
            let program = read(file.clone()).await?;
            let signature = read(file.with_extension("asc")).await.unwrap_or_default();
            match is_signed(&program, &signature, &trusted).await {
                Ok(true) => setup.push(format!("{machine}:{}", sha256(&program))),
                Ok(false) => return Err(self.unsigned(&file)),
                Err(error) => {
                    warn!("cannot verify {}: {error:#}; hosts verify it", file.display());
                }
            }
        }
        Ok(Pins { key: sha256(&trusted), setup: setup.join(" ") })
    }

    fn program(&self, machine: &str) -> PathBuf {
        self.folder.join(format!("scalr-agent-setup-{machine}"))
    }

    fn stamps(&self) -> Stamps {
        let programs = MACHINES.map(|machine| self.program(machine));
        let signatures = programs.clone().map(|program| program.with_extension("asc"));
        [self.trusted.clone(), self.folder.join(KEY)]
            .into_iter()
            .chain(programs)
            .chain(signatures)
            .map(|file| {
                let metadata = fs::metadata(file).ok()?;
                Some((metadata.len(), metadata.modified().ok()?))
            })
            .collect()
    }

    fn other_key(&self, trusted: &[u8], found: &[u8]) -> String {
        format!(
            "cannot serve the install script: {} is not the packages' key that this server \
             trusts (SHA-256 {}, not {})\nIf nobody has replaced the key, somebody has changed \
             that folder: publish the packages there again.\nIf the packages have a new key, \
             compare that SHA-256 with the key's where they are signed, and run: scalr-server \
             trust-key --packages {} --sha256 HEX",
            self.folder.join(KEY).display(),
            sha256(found),
            sha256(trusted),
            self.folder.display()
        )
    }

    fn unsigned(&self, program: &Path) -> String {
        format!(
            "cannot serve the install script: {} is not signed with the packages' key\nSomebody \
             has changed it after it was published. Publish the packages there again: \
             scalr-agent-setup repository --output {}",
            program.display(),
            self.folder.display()
        )
    }
}

/// Trusts the key of a packages' folder if it has that SHA-256.
///
/// # Errors
/// It has another one (9), or can't be read or copied.
pub(crate) fn accept(folder: &Path, data: &Path, expected: &str) -> Result<()> {
    let file = folder.join(KEY);
    let key = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = sha256(&key);
    if !found.eq_ignore_ascii_case(expected) {
        return Err(Failure::NotTrusted.because(format!(
            "cannot trust {}: its SHA-256 is {found}, not {expected}",
            file.display()
        )));
    }
    replace(&data.join(TRUSTED), &key)
}

fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let new = WholeFile::at(file);
    // The server reads what root accepts.
    if geteuid().is_root() {
        let owner = fs::metadata(folder_of(file))?;
        return new.owner(owner.uid(), owner.gid()).write(content);
    }
    new.write(content)
}

/// Whether gpgv finds a good signature of one of the keys.
///
/// # Errors
/// There is no gpgv.
async fn is_signed(program: &[u8], signature: &[u8], keys: &[u8]) -> Result<bool> {
    let home = tempfile::tempdir()?;
    let file = |name: &str, content: &[u8]| -> Result<PathBuf> {
        let file = home.path().join(name);
        fs::write(&file, content)?;
        Ok(file)
    };
    let status = Command::new("gpgv")
        .arg("--homedir")
        .arg(home.path())
        .arg("--keyring")
        .arg(file("keys.gpg", &dearmored(keys))?)
        .arg(file("program.asc", signature)?)
        .arg(file("program", program)?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .context("cannot start gpgv")?;
    Ok(status.success())
}

/// Blocks of OpenPGP in ASCII, as gpgv reads a keyring. Each ends with a checksum, which
/// begins with `=`.
fn dearmored(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut keys = Vec::new();
    for block in text.split("-----BEGIN PGP PUBLIC KEY BLOCK-----").skip(1) {
        let block = block.split("-----END").next().unwrap_or_default().replace('\r', "");
        // Below the headers.
        let data = block.split_once("\n\n").map_or("", |(_, data)| data);
        let lines = data.lines().map(str::trim).filter(|line| !line.starts_with('='));
        keys.extend(STANDARD.decode(lines.collect::<String>()).unwrap_or_default());
    }
    keys
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_all_blocks_without_headers_and_checksums() {
        let text = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: 1\n\nQUJD\nREVG\n=aaaa\n\
                    -----END PGP PUBLIC KEY BLOCK-----\n\n-----BEGIN PGP PUBLIC KEY \
                    BLOCK-----\r\n\r\nR0hJ\r\n=bbbb\r\n-----END PGP PUBLIC KEY BLOCK-----\r\n";
        assert_eq!(dearmored(text.as_bytes()), b"ABCDEFGHI");
        assert_eq!(dearmored(b"no key"), b"");
    }

    #[tokio::test]
    async fn the_first_key_is_trusted_and_another_one_only_when_it_is_accepted() {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || Packages::open(folder.path().to_owned(), data.path()).unwrap();
        fs::write(folder.path().join(KEY), "first").unwrap();
        let first = open().pins().await.unwrap();
        assert_eq!(first, Pins { key: sha256(b"first"), setup: String::new() });
        fs::write(folder.path().join(KEY), "another").unwrap();
        let packages = open();
        assert!(packages.pins().await.unwrap_err().contains("trust-key"));
        assert_eq!(packages.key_sha256(), Some(first.key.clone()));
        let wrong = accept(folder.path(), data.path(), &first.key).unwrap_err();
        assert_eq!(Failure::of(&wrong), Failure::NotTrusted);
        assert!(packages.pins().await.is_err());
        accept(folder.path(), data.path(), &sha256(b"another")).unwrap();
        assert_eq!(packages.pins().await.unwrap().key, sha256(b"another"));
    }
}

//! The key that a repository is signed with: one of the caller's own keyring. And
//! the check of what it signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::exit::Failure;
use crate::host::command::CommandExt as _;

/// The number of RSA among OpenPGP's algorithms (RFC 4880, 9.1).
const RSA: &str = "1";

/// A secret key in the caller's GnuPG keyring.
#[derive(Debug)]
pub struct Key {
    fingerprint: String,
}

impl Key {
    /// The key that `name` means: an address, an id or a fingerprint.
    ///
    /// # Errors
    /// The keyring has no secret key of that name, or it is not an RSA key of at
    /// least 2048 bits: rpm 4.11 can't verify any other.
    pub fn find(name: &str) -> Result<Self> {
        let list = Command::new("gpg")
            .args(["--batch", "--with-colons", "--list-secret-keys", "--", name])
            .read()
            .map_err(|error| {
                Failure::Usage
                    .because(format!("your GnuPG keyring has no secret key `{name}`: {error}"))
            })?;
        parse(&list, name)
    }

    /// Refuses to be another key than the one that hosts trust already, whose
    /// public part is in `file`, if there is such a file.
    ///
    /// # Errors
    /// It is another one, or gpg can't read the file.
    pub fn require_same_as(&self, file: &Path) -> Result<()> {
        if !file.exists() {
            return Ok(());
        }
        let list = Command::new("gpg")
            .args(["--batch", "--with-colons", "--show-keys"])
            .arg(file)
            .read()
            .with_context(|| format!("cannot read the key {}", file.display()))?;
        if list.lines().any(|line| is_fingerprint(line, &self.fingerprint)) {
            return Ok(());
        }
        Err(Failure::Usage.because(format!(
            "{} is another key than {}, and hosts that trust it would refuse what this one signs; \
             to begin anew, remove that repository first",
            file.display(),
            self.fingerprint
        )))
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The public key in ASCII.
    ///
    /// # Errors
    /// gpg fails.
    pub fn public(&self) -> Result<String> {
        Ok(Command::new("gpg")
            .args(["--batch", "--armor", "--export-options", "export-minimal", "--export", "--"])
            .arg(&self.fingerprint)
            .read()?)
    }

    /// Signs `file` into `signature`, apart from it.
    ///
    /// # Errors
    /// gpg fails.
    pub fn sign(&self, file: &Path, signature: &Path) -> Result<()> {
        Ok(self.gpg("--detach-sign", file, signature).run()?)
    }

    /// Writes `file` with its signature around it into `signed`.
    ///
    /// # Errors
    /// gpg fails.
    pub fn clear_sign(&self, file: &Path, signed: &Path) -> Result<()> {
        Ok(self.gpg("--clear-sign", file, signed).run()?)
    }

    fn gpg(&self, how: &str, file: &Path, output: &Path) -> Command {
        let mut command = Command::new("gpg");
        command
            .args(["--batch", "--yes", "--armor", "--digest-algo", "SHA256", "--local-user"])
            .arg(&self.fingerprint)
            .arg("--output")
            .arg(output)
            .arg(how)
            .arg(file);
        command
    }
}

/// Checks signatures against the key in one file, and no other.
pub struct Verifier {
    home: TempDir,
    keyring: PathBuf,
}

impl Verifier {
    /// Trusts the key in `file`, which is in ASCII.
    ///
    /// # Errors
    /// GnuPG can't read it.
    pub fn trusting(file: &Path) -> Result<Self> {
        let home = tempfile::tempdir().context("cannot make a temporary folder")?;
        let keyring = home.path().join("key.gpg");
        Command::new("gpg")
            .args(["--batch", "--output"])
            .arg(&keyring)
            .arg("--dearmor")
            .arg(file)
            .run()
            .with_context(|| format!("cannot read the key {}", file.display()))?;
        Ok(Self { home, keyring })
    }

    /// Checks that `signature` is the key's, of `file`.
    ///
    /// # Errors
    /// It isn't.
    pub fn verify(&self, signature: &Path, file: &Path) -> Result<()> {
        self.gpgv().arg(signature).arg(file).run()?;
        Ok(())
    }

    /// The text in `signed`, if its signature is the key's.
    ///
    /// # Errors
    /// It isn't.
    pub fn verify_inline(&self, signed: &Path) -> Result<String> {
        let text = self.home.path().join("text");
        if text.exists() {
            fs::remove_file(&text)?;
        }
        self.gpgv().arg("--output").arg(&text).arg(signed).run()?;
        Ok(fs::read_to_string(&text)?)
    }

    fn gpgv(&self) -> Command {
        let mut command = Command::new("gpgv");
        command.arg("--homedir").arg(self.home.path()).arg("--keyring").arg(&self.keyring);
        command
    }
}

/// A line `sec:…:BITS:ALGORITHM:…` and, behind it, its `fpr:::::::::FINGERPRINT:`
/// (GnuPG's doc/DETAILS).
fn parse(list: &str, name: &str) -> Result<Key> {
    let fields = |line: &str, kind: &str| -> Option<Vec<String>> {
        let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        (fields[0] == kind).then_some(fields)
    };
    let secret = list.lines().find_map(|line| fields(line, "sec"));
    let secret = secret.with_context(|| format!("gpg lists no secret key `{name}`"))?;
    let bits: u32 = secret.get(2).and_then(|bits| bits.parse().ok()).unwrap_or(0);
    if secret.get(3).map(String::as_str) != Some(RSA) || bits < 2048 {
        return Err(Failure::Usage.because(format!(
            "the key `{name}` is not an RSA key of 2048 bits or more; Enterprise Linux 7 can't verify another kind"
        )));
    }
    let fingerprint = list
        .lines()
        .find_map(|line| fields(line, "fpr"))
        .and_then(|fields| fields.get(9).cloned())
        .with_context(|| format!("gpg tells no fingerprint of `{name}`"))?;
    Ok(Key { fingerprint })
}

fn is_fingerprint(line: &str, wanted: &str) -> bool {
    line.split(':').next() == Some("fpr") && line.split(':').nth(9) == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gpg 2.2.40 prints.
    const RSA_KEY: &str = "\
sec:u:4096:1:0D4B6AB1D1E8B0F6:1763900000:::u:::scSC:::+:::23::0:
fpr:::::::::5C1F3A0B7E9D2C4A6B8E0F120D4B6AB1D1E8B0F6:
grp:::::::::0123456789ABCDEF0123456789ABCDEF01234567:
uid:u::::1763900000::AA::Packages <packages@example.com>::::::::::0:
";

    #[test]
    fn an_rsa_key_is_taken() {
        let key = parse(RSA_KEY, "packages@example.com").unwrap();
        assert_eq!(key.fingerprint(), "5C1F3A0B7E9D2C4A6B8E0F120D4B6AB1D1E8B0F6");
    }

    #[test]
    fn a_key_that_old_hosts_do_not_know_is_refused() {
        let ed25519 = RSA_KEY.replace(":4096:1:", ":255:22:");
        let error = parse(&ed25519, "new").unwrap_err();
        assert!(error.to_string().contains("not an RSA key"), "{error}");
        assert!(parse(&RSA_KEY.replace(":4096:", ":1024:"), "small").is_err());
    }
}

//! The key that a repository is signed with, compared with what it is expected
//! to be.

use std::io::Write as _;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use cli::Failure;
use host::command::CommandExt as _;

/// A key's fingerprint or checksum, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fingerprint {
    /// Of OpenPGP, as gpg prints it: 40 digits.
    Key(String),
    /// The SHA-256 of its file: 64 digits. No tool is needed to compare it.
    File(String),
}

impl FromStr for Fingerprint {
    type Err = String;

    /// gpg prints it with spaces, other tools with colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
        if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err("a fingerprint has only the digits 0-9 and a-f".to_owned());
        }
        match digits.len() {
            40 => Ok(Self::Key(digits.to_ascii_lowercase())),
            64 => Ok(Self::File(digits.to_ascii_lowercase())),
            length => Err(format!(
                "a key's fingerprint has 40 digits, its file's SHA-256 has 64; this has {length}"
            )),
        }
    }
}

impl Fingerprint {
    /// Refuses a key that is another one.
    ///
    /// # Errors
    /// It is another one, or has others beside it, or can't be read (9); there is
    /// no gpg to tell (6).
    pub(crate) fn require(&self, key: &str) -> Result<()> {
        let sum = hex::encode(Sha256::digest(key));
        let (what, found, expected) = match self {
            Self::File(expected) => ("the SHA-256 of its file", sum, expected),
            Self::Key(expected) => ("its fingerprint", alone(&gpg(key, &sum)?, &sum)?, expected),
        };
        if found == *expected {
            return Ok(());
        }
        Err(Failure::NotTrusted.because(format!(
            "the packages' key is not the expected one: {what} is {found}, not {expected}; if the \
             server has a new key, take its fingerprint from whoever runs the server"
        )))
    }
}

/// What gpg prints of a key; 2.0 has no `--show-keys`.
fn gpg(key: &str, sum: &str) -> Result<String> {
    if which::which("gpg").is_err() {
        return Err(Failure::NotInstalled.because(format!(
            "without gpg, the fingerprint can't be compared; install it (the package gnupg), or \
             give --key-fingerprint the SHA-256 of the key's file instead, once you know that it \
             is this: {sum}"
        )));
    }
    let home = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut file = tempfile::NamedTempFile::new_in(&home)?;
    file.write_all(key.as_bytes())?;
    Command::new("gpg")
        .args(["--batch", "--with-colons", "--with-fingerprint", "--homedir"])
        .arg(home.path())
        .arg(file.path())
        .read()
        .map_err(|error| {
            Failure::NotTrusted.because(format!("cannot read the packages' key: {error}"))
        })
}

/// The fingerprint of the one key in a list of gpg's: an old rpm trusts also a
/// subkey, which anybody can put beside it. (GnuPG's doc/DETAILS)
fn alone(list: &str, sum: &str) -> Result<String> {
    let of =
        |kind: &'static str| list.lines().filter(move |line| line.split(':').next() == Some(kind));
    if of("pub").count() != 1 || of("sub").count() != 0 {
        return Err(Failure::NotTrusted.because(format!(
            "the key's file has more in it than one key, for which a fingerprint does not speak; \
             give --key-fingerprint the SHA-256 of the file instead, once you know that it is \
             this: {sum}"
        )));
    }
    let fingerprint = of("fpr").find_map(|line| line.split(':').nth(9));
    Ok(fingerprint.context("gpg printed no fingerprint")?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_and_a_checksum_differ_in_length() {
        let key = "5C1F 3A0B 7E9D 2C4A 6B8E  0F12 0D4B 6AB1 D1E8 B0F6";
        let parsed: Fingerprint = key.parse().unwrap();
        assert_eq!(parsed, Fingerprint::Key("5c1f3a0b7e9d2c4a6b8e0f120d4b6ab1d1e8b0f6".to_owned()));
        assert!(matches!("ab:".repeat(32).parse(), Ok(Fingerprint::File(_))));
        for wrong in ["", "xyz", "0D4B6AB1D1E8B0F6"] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_is_compared_by_its_sum() {
        // The SHA-256 of "abc" (FIPS 180-2, B.1).
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let fingerprint: Fingerprint = sum.parse().unwrap();
        fingerprint.require("abc").unwrap();
        let error = fingerprint.require("abd").unwrap_err();
        assert_eq!(Failure::of(&error), Failure::NotTrusted);
        assert!(error.to_string().contains(sum), "{error}");
    }

    /// What gpg 2.2.40 prints of a key, and of one that a subkey was put to.
    #[test]
    fn a_key_has_to_be_alone() {
        let list = "\
tru::1:1763900000:0:3:1:5
pub:-:4096:1:0D4B6AB1D1E8B0F6:1763900000:::-:::scSC::::::23::0:
fpr:::::::::5C1F3A0B7E9D2C4A6B8E0F120D4B6AB1D1E8B0F6:
uid:-::::1763900000::AA::Packages <packages@example.com>::::::::::0:
";
        let found = alone(list, "").unwrap();
        assert_eq!(found, "5c1f3a0b7e9d2c4a6b8e0f120d4b6ab1d1e8b0f6");
        let more = format!("{list}sub:-:2048:1:AAAABBBBCCCCDDDD:1763900000::::::s::::::23:\n");
        assert_eq!(Failure::of(&alone(&more, "").unwrap_err()), Failure::NotTrusted);
        let two = list.repeat(2);
        assert!(alone(&two, "").is_err());
    }
}

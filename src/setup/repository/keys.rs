//! The keys that a repository is signed with: of the caller's own keyring. And
//! the check of what they signed.
//!
//! More than one while one takes the other's place. The first signs the packages,
//! and its signature comes first everywhere: yum 3 looks at no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use tempfile::TempDir;

use cli::Failure;
use host::command::CommandExt as _;

/// The number of RSA among OpenPGP's algorithms (RFC 4880, 9.1).
const RSA: &str = "1";

/// The numbers of SHA-256, SHA-384 and SHA-512 (RFC 4880, 9.4).
const STRONG_HASHES: [&str; 3] = ["8", "9", "10"];

/// A secret key in the caller's GnuPG keyring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    fingerprint: String,
    expires: Option<Timestamp>,
}

impl Key {
    /// Its fingerprint.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When it ends, if it does.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Its id, the last 16 digits in small letters, as rpm tells it.
    pub(super) fn id(&self) -> String {
        self.fingerprint[self.fingerprint.len().saturating_sub(16)..].to_ascii_lowercase()
    }

    fn find(name: &str) -> Result<Self> {
        let list = Command::new("gpg")
            .args(["--batch", "--with-colons", "--list-secret-keys", "--", name])
            .read()
            .map_err(|error| {
                Failure::Usage
                    .because(format!("your GnuPG keyring has no secret key `{name}`: {error}"))
            })?;
        parse(&list, name)
    }

    /// In ASCII, without subkeys: an old rpm knows none, or trusts whatever stands
    /// there.
    fn public(&self) -> Result<String> {
        Ok(Command::new("gpg")
            .args(["--batch", "--armor", "--export-options", "export-minimal"])
            .args(["--export-filter", "drop-subkey=key_algo -gt 0", "--export", "--"])
            .arg(&self.fingerprint)
            .read()?)
    }
}

/// The keys of a repository, at least one.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// The keys that these names mean: addresses, ids or fingerprints.
    ///
    /// # Errors
    /// The keyring has no secret key of a name, or it is not an RSA key of at
    /// least 2048 bits: rpm 4.11 can't verify any other. Two names mean the same.
    pub(super) fn find(names: &[String]) -> Result<Self> {
        let mut keys = Vec::new();
        for name in names {
            let key = Key::find(name)?;
            if keys.contains(&key) {
                return Err(Failure::Usage.because(format!(
                    "`{name}` is a key that is named already: {}",
                    key.fingerprint
                )));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// Refuses to have none of the keys that hosts trust already, which are in
    /// `file`, if there is such a file.
    ///
    /// # Errors
    /// It has none of them, or gpg can't read the file.
    pub(super) fn require_trusted(&self, file: &Path) -> Result<()> {
        if !file.exists() {
            return Ok(());
        }
        let trusted = in_file(file)?;
        if self.0.iter().any(|key| trusted.contains(&key.fingerprint)) {
            return Ok(());
        }
        let (old, new) = (trusted.join(", "), &self.first().fingerprint);
        Err(Failure::Usage.because(format!(
            "{} has the key {old}, and hosts that trust it would refuse what {new} alone signs; \
             sign with both for a while (--key {} --key {new}), or, to start again, remove that \
             repository first",
            file.display(),
            trusted.first().map_or("OLD", String::as_str),
        )))
    }

    /// Each of them.
    pub(super) fn all(&self) -> &[Key] {
        &self.0
    }

    /// The one that signs the packages.
    pub(super) fn first(&self) -> &Key {
        &self.0[0]
    }

    /// Their fingerprints.
    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|key| key.fingerprint.clone()).collect()
    }

    /// Whether the one with this id is among them.
    pub(super) fn have(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id() == id)
    }

    /// The public keys in ASCII, each in a block of its own: rpm 4.11 reads one key
    /// of a block.
    ///
    /// # Errors
    /// gpg fails.
    pub(super) fn public(&self) -> Result<String> {
        self.0.iter().map(Key::public).collect()
    }

    /// Signs `file` into `signature`, apart from it.
    ///
    /// # Errors
    /// gpg fails.
    pub(super) fn sign(&self, file: &Path, signature: &Path) -> Result<()> {
        Ok(self.gpg("--detach-sign", file, signature).run()?)
    }

    /// Writes `file` with its signature around it into `signed`.
    ///
    /// # Errors
    /// gpg fails.
    pub(super) fn clear_sign(&self, file: &Path, signed: &Path) -> Result<()> {
        Ok(self.gpg("--clear-sign", file, signed).run()?)
    }

    fn gpg(&self, how: &str, file: &Path, output: &Path) -> Command {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--armor", "--digest-algo", "SHA256"]);
        for key in &self.0 {
            // Exactly this one, and none of its subkeys.
            command.args(["--local-user", &format!("{}!", key.fingerprint)]);
        }
        command.arg("--output").arg(output).arg(how).arg(file);
        command
    }
}

/// Checks signatures against the keys in one file, and no other.
pub(super) struct Verifier {
    home: TempDir,
    keyring: PathBuf,
    keys: Vec<String>,
}

impl Verifier {
    /// Trusts the keys in `file`, which is in ASCII.
    ///
    /// # Errors
    /// GnuPG can't read it.
    pub(super) fn trusting(file: &Path) -> Result<Self> {
        let keys = in_file(file)?;
        let home = tempfile::tempdir().context("cannot make a temporary folder")?;
        let keyring = home.path().join("keys.gpg");
        Command::new("gpg")
            .args(["--batch", "--quiet", "--no-permission-warning", "--homedir"])
            .arg(home.path())
            .args(["--no-default-keyring", "--keyring"])
            .arg(&keyring)
            .arg("--import")
            .arg(file)
            .run()
            .with_context(|| format!("cannot read the key {}", file.display()))?;
        Ok(Self { home, keyring, keys })
    }

    /// Checks that `signature` is of `file`, and of every key.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn verify(&self, signature: &Path, file: &Path) -> Result<()> {
        require(signature)?;
        require(file)?;
        self.judge(self.gpgv().arg(signature).arg(file))
    }

    /// The text in `signed`, if every key signed it.
    ///
    /// # Errors
    /// One didn't.
    pub(super) fn verify_inline(&self, signed: &Path) -> Result<String> {
        require(signed)?;
        let text = self.home.path().join("text");
        if text.exists() {
            fs::remove_file(&text)?;
        }
        self.judge(self.gpgv().arg("--output").arg(&text).arg(signed))?;
        Ok(fs::read_to_string(&text)?)
    }

    fn judge(&self, gpgv: &mut Command) -> Result<()> {
        let output = gpgv.probe()?;
        judge(&String::from_utf8_lossy(&output.stdout), &self.keys)
    }

    fn gpgv(&self) -> Command {
        let mut command = Command::new("gpgv");
        command.arg("--homedir").arg(self.home.path()).arg("--keyring").arg(&self.keyring);
        command.args(["--status-fd", "1"]);
        command
    }
}

fn require(file: &Path) -> Result<()> {
    if !file.is_file() {
        bail!("{} is not there", file.file_name().unwrap_or_default().display());
    }
    Ok(())
}

/// The result of gpgv's status lines, where each of `keys` has to have signed, the
/// first of them first (GnuPG's doc/DETAILS).
fn judge(status: &str, keys: &[String]) -> Result<()> {
    let mut signers = BTreeSet::new();
    let mut first = None;
    for line in status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["BADSIG", id, ..] => bail!("the signature of {id} is of another content"),
            ["EXPKEYSIG" | "REVKEYSIG" | "EXPSIG", id, ..] => {
                bail!("the key {id}, or its signature, has expired or was revoked")
            }
            ["ERRSIG", id, ..] => {
                first.get_or_insert((*id).to_owned());
            }
            // The key, the date, four more, and the hash; the primary key is the last.
            ["VALIDSIG", _, _, _, _, _, _, _, hash, .., key] => {
                if !STRONG_HASHES.contains(hash) {
                    bail!("the signature of {key} is not made with SHA-256");
                }
                first.get_or_insert((*key).to_owned());
                signers.insert((*key).to_owned());
            }
            _ => {}
        }
    }
    if let Some(missing) = keys.iter().find(|key| !signers.contains(*key)) {
        bail!("it is not signed with {missing}");
    }
    if first.as_ref() != keys.first() {
        bail!(
            "its first signature is of {}, and that is the only one that yum 3 looks at; the \
             keys' file begins with {}",
            first.unwrap_or_default(),
            keys.first().map_or("", String::as_str)
        );
    }
    Ok(())
}

/// Refuses a key in `file` that says with a weak hash who it is.
///
/// # Errors
/// One does: Enterprise Linux 9 would not import it. Or gpg can't read the file.
pub(super) fn require_strong_hashes(file: &Path) -> Result<()> {
    let packets = Command::new("gpg").args(["--batch", "--list-packets"]).arg(file).read()?;
    let mut hashes = packets
        .lines()
        .filter_map(|line| line.trim().strip_prefix("digest algo ")?.split(',').next());
    if hashes.any(|hash| !STRONG_HASHES.contains(&hash)) {
        bail!(
            "a key in it is signed by itself with SHA-1, and Enterprise Linux 9 refuses such a \
             key; make another one"
        );
    }
    Ok(())
}

/// The fingerprints of the keys in a file.
fn in_file(file: &Path) -> Result<Vec<String>> {
    let list = Command::new("gpg")
        .args(["--batch", "--with-colons", "--show-keys"])
        .arg(file)
        .read()
        .with_context(|| format!("cannot read the key {}", file.display()))?;
    let keys = fingerprints(&list, "pub");
    if keys.is_empty() {
        bail!("there is no key in {}", file.display());
    }
    Ok(keys)
}

/// Behind each line `pub:…` or `sec:…` the next `fpr:::::::::FINGERPRINT:` (GnuPG's
/// doc/DETAILS).
fn fingerprints(list: &str, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_next = false;
    for line in list.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some(begin) if begin == kind => is_next = true,
            Some("fpr") if is_next => {
                found.extend(fields.nth(8).map(str::to_owned));
                is_next = false;
            }
            _ => {}
        }
    }
    found
}

/// A line `sec:…:BITS:ALGORITHM:…` and, behind it, the fingerprint.
fn parse(list: &str, name: &str) -> Result<Key> {
    let found = fingerprints(list, "sec");
    let [fingerprint] = found.as_slice() else {
        return Err(Failure::Usage.because(format!(
            "`{name}` means {} secret keys; name one by its fingerprint",
            found.len()
        )));
    };
    let secret = list.lines().find(|line| line.starts_with("sec:")).unwrap_or_default();
    let fields: Vec<&str> = secret.split(':').collect();
    let bits: u32 = fields.get(2).and_then(|bits| bits.parse().ok()).unwrap_or(0);
    if fields.get(3) != Some(&RSA) || bits < 2048 {
        return Err(Failure::Usage.because(format!(
            "the key `{name}` is not an RSA key of 2048 bits or more; Enterprise Linux 7 can't verify another kind"
        )));
    }
    let expires = fields.get(6).and_then(|seconds| seconds.parse().ok());
    let expires = expires.and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(Key { fingerprint: fingerprint.clone(), expires })
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
ssb:u:4096:1:4BC539CC107450B3:1763900000::::::e:::+:::23:
fpr:::::::::2FB638BA1F601625472FE3D74BC539CC107450B3:
";

    const OLD: &str = "C83B84953BE39E98BB811BFC7F525CD3AF7CD816";
    const NEW: &str = "4CA51EFF2934A9079E1E8BA012C6ED0A3202EFE6";

    fn valid(key: &str, hash: &str) -> String {
        format!(
            "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG {} Packages\n\
             [GNUPG:] VALIDSIG {key} 2026-11-24 1795490071 0 4 0 1 {hash} 00 {key}\n",
            &key[24..]
        )
    }

    fn judged(status: &str, keys: &[&str]) -> String {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        judge(status, &keys).map_or_else(|error| error.to_string(), |()| "sound".to_owned())
    }

    #[test]
    fn an_rsa_key_is_taken() {
        let key = parse(RSA_KEY, "packages@example.com").unwrap();
        assert_eq!(key.fingerprint(), "5C1F3A0B7E9D2C4A6B8E0F120D4B6AB1D1E8B0F6");
        assert_eq!(key.id(), "0d4b6ab1d1e8b0f6");
        assert_eq!(key.expires(), None);
        let ends = RSA_KEY.replace(":1763900000:::u:", ":1763900000:1858562071::u:");
        let ends = parse(&ends, "packages@example.com").unwrap().expires().unwrap();
        assert_eq!(ends.to_string(), "2028-11-23T03:14:31Z");
    }

    #[test]
    fn a_key_that_old_hosts_do_not_know_is_refused() {
        let ed25519 = RSA_KEY.replace(":4096:1:", ":255:22:");
        let error = parse(&ed25519, "new").unwrap_err();
        assert!(error.to_string().contains("not an RSA key"), "{error}");
        assert!(parse(&RSA_KEY.replace(":4096:", ":1024:"), "small").is_err());
        assert!(
            parse(&RSA_KEY.repeat(2), "two").unwrap_err().to_string().contains("2 secret keys")
        );
    }

    #[test]
    fn every_key_has_to_have_signed() {
        let both = valid(OLD, "8") + &valid(NEW, "8");
        assert_eq!(judged(&both, &[OLD, NEW]), "sound");
        assert_eq!(judged(&both, &[OLD]), "sound");
        assert_eq!(judged(&valid(OLD, "8"), &[OLD, NEW]), format!("it is not signed with {NEW}"));
        assert_eq!(judged("", &[OLD]), format!("it is not signed with {OLD}"));
    }

    #[test]
    fn an_old_yum_looks_at_the_first_signature() {
        let both = valid(OLD, "8") + &valid(NEW, "8");
        assert!(judged(&both, &[NEW, OLD]).contains("its first signature is of C83B"));
        let foreign = format!("[GNUPG:] ERRSIG {} 1 8 00 1795490071 9 {OLD}\n", &OLD[24..]);
        assert!(judged(&(foreign + &valid(NEW, "8")), &[NEW]).contains("its first signature"));
    }

    #[test]
    fn bad_old_and_weak_signatures_are_refused() {
        let sound = valid(OLD, "8");
        assert!(judged(&sound.replace("GOODSIG", "BADSIG"), &[OLD]).contains("another content"));
        assert!(judged(&sound.replace("GOODSIG", "EXPKEYSIG"), &[OLD]).contains("expired"));
        assert!(judged(&valid(OLD, "2"), &[OLD]).contains("not made with SHA-256"));
    }
}

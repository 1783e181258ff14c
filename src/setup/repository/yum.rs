//! The yum repositories. Each is for both architectures: yum and dnf take what fits.
//!
//! Enterprise Linux 7 has one of its own: in one for all, newer hosts would take its
//! rpm, since `1.el7` is a newer release than `1`.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rpm_version::rpm_evr_compare;
use tempfile::TempDir;

use super::Terms;
use super::keys::Keys;
use super::publication::Publication;
use super::versions::{self, Choice, Package};
use cli::eprintln;
use host::command::CommandExt as _;

/// The index of the indexes.
pub(super) const INDEX: &str = "repodata/repomd.xml";

/// The systemd of Enterprise Linux 7.
const EL7_SYSTEMD: &str = "219";

/// A part of the output, for the hosts that take the same rpms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// For all hosts but those of the other.
    Newer,
    /// For Enterprise Linux 7 and its relatives.
    El7,
}

impl Part {
    /// Each of them.
    pub(super) const ALL: [Self; 2] = [Self::Newer, Self::El7];

    /// Its folder.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Newer => "yum",
            Self::El7 => "yum-el7",
        }
    }

    /// Whether an rpm is for its hosts; some are for those of both.
    fn takes(self, version: &str, requires: &[String]) -> bool {
        let is_el7s = version.ends_with(".el7");
        match self {
            Self::Newer => !is_el7s,
            Self::El7 => is_el7s || !requires.iter().any(|what| is_newer_systemd(what)),
        }
    }
}

/// Whether a package that requires this can't be installed on Enterprise Linux 7.
fn is_newer_systemd(required: &str) -> bool {
    let version = required.strip_prefix("systemd >= ");
    version.is_some_and(|version| rpm_evr_compare(version, EL7_SYSTEMD) == Ordering::Greater)
}

/// Makes a part of those `rpms` that are for it, and of those that are published:
/// signed packages, signed metadata.
///
/// # Errors
/// A file can't be written, or a tool fails; a version is published already with
/// another content.
pub(super) fn make(
    part: Part,
    publication: &Publication,
    rpms: &[PathBuf],
    keys: &Keys,
    terms: &Terms,
) -> Result<Choice> {
    let mut packages = Vec::new();
    for path in publication.published(&format!("{}/packages", part.folder()))? {
        packages.push(read(&publication.output().join(&path), Some(path))?);
    }
    for rpm in rpms {
        let package = read(rpm, None)?;
        if part.takes(&package.version, &requires(rpm)?) {
            packages.push(package);
        }
    }
    if packages.is_empty() {
        return Ok(Choice::default());
    }
    eprintln!("Making the repository {}", part.folder());
    let choice = versions::choose(packages, terms.keep.into(), rpm_evr_compare)?;
    for package in &choice.kept {
        // An rpm has one signature. Once its key is gone, it gets another one, and
        // another path: a path always has the same content.
        match &package.published {
            Some(path) if is_signed(&package.file, keys)? => {
                publication.link(&package.file, path)?;
            }
            _ => sign(&publication.copy(&package.file, &place(part, package, keys))?, keys)?,
        }
    }
    index(&publication.folder().join(part.folder()), keys)?;
    Ok(choice)
}

fn read(rpm: &Path, published: Option<String>) -> Result<Package> {
    // The digest of header and payload is the same with any signature, or none.
    let said = query(rpm, "%{NAME}\n%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n%{ARCH}\n%{SIGMD5}\n")?;
    let mut lines = said.lines().map(str::to_owned);
    let mut next = || lines.next().with_context(|| format!("{} is no package", rpm.display()));
    Ok(Package {
        name: next()?,
        version: next()?,
        architecture: next()?,
        content: next()?,
        file: rpm.to_owned(),
        published,
    })
}

/// Its requirements, each as `name >= version` or as a name alone.
fn requires(rpm: &Path) -> Result<Vec<String>> {
    Ok(query(rpm, "[%{REQUIRENEVRS}\n]")?.lines().map(str::to_owned).collect())
}

fn place(part: Part, package: &Package, keys: &Keys) -> String {
    let Package { name, version, architecture, .. } = package;
    let version = version.split_once(':').map_or(version.as_str(), |(_epoch, version)| version);
    let (part, key) = (part.folder(), keys.first().id());
    format!("{part}/packages/{key}/{name}-{version}.{architecture}.rpm")
}

/// Whether its header and its payload are both signed by one of the keys, which
/// rpm tells as `RSA/SHA256, DATE, Key ID 0d4b6ab1d1e8b0f6`, or as `(none)`.
fn is_signed(rpm: &Path, keys: &Keys) -> Result<bool> {
    let said = query(rpm, "%{RSAHEADER:pgpsig}\n%{SIGPGP:pgpsig}\n")?;
    let signers = said.lines().map(|line| line.split_whitespace().last().unwrap_or_default());
    Ok(signers.filter(|id| keys.have(id)).count() == 2)
}

fn query(rpm: &Path, format: &str) -> Result<String> {
    Ok(Command::new("rpm")
        .args(["--query", "--nosignature", "--queryformat", format, "--package"])
        .arg(rpm)
        .env("LC_ALL", "C")
        .read()?)
}

fn sign(rpm: &Path, keys: &Keys) -> Result<()> {
    Ok(Command::new("rpmsign")
        .args(["--define", &format!("_gpg_name {}!", keys.first().fingerprint())])
        .args(["--define", "_gpg_digest_algo sha256"])
        // Debian's rpm looks for a gpg2, which Debian no longer has.
        .args(["--define", "__gpg /usr/bin/gpg"])
        // Before 4.14, rpm knows no digest of the payload: it is signed, too.
        .args(["--rpmv3", "--addsign"])
        .arg(rpm)
        .run()?)
}

fn index(root: &Path, keys: &Keys) -> Result<()> {
    // yum 3 reads gzip and XML; what is newer reads it as well.
    Command::new("createrepo_c")
        .args(["--quiet", "--no-database", "--general-compress-type", "gz"])
        .args(["--checksum", "sha256", "--repomd-checksum", "sha256"])
        .arg(root)
        .run()?;
    let index = root.join(INDEX);
    keys.sign(&index, &index.with_added_extension("asc"))
}

/// Checks rpms against the keys in one file, and no other.
pub(super) struct Verifier {
    database: TempDir,
}

impl Verifier {
    /// Trusts the keys in `file`, which is in ASCII.
    ///
    /// # Errors
    /// rpmkeys can't read it.
    pub(super) fn trusting(file: &Path) -> Result<Self> {
        let verifier =
            Self { database: tempfile::tempdir().context("cannot make a temporary folder")? };
        verifier.rpmkeys().arg("--import").arg(file).run()?;
        Ok(verifier)
    }

    /// Checks that an rpm is whole and signed, so that old and new hosts take it.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn verify(&self, file: &Path) -> Result<()> {
        let output = self.rpmkeys().args(["--checksig", "--verbose"]).arg(file).probe()?;
        judge(&String::from_utf8_lossy(&output.stdout))?;
        if !output.status.success() {
            bail!("rpmkeys refuses it: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn rpmkeys(&self) -> Command {
        let mut command = Command::new("rpmkeys");
        command.arg("--dbpath").arg(self.database.path()).env("LC_ALL", "C");
        command
    }
}

/// Lines such as `Header V4 RSA/SHA256 Signature, key ID d1e8b0f6: OK`; without
/// `Header`, it is that of header and payload.
fn judge(said: &str) -> Result<()> {
    let mut lines = said.lines().skip(1).map(str::trim);
    if let Some(line) = lines.clone().find(|line| !line.ends_with(": OK")) {
        bail!("{line}");
    }
    if !lines.clone().any(|line| line.starts_with("Header ") && is_strong(line)) {
        bail!("it is not signed with RSA and SHA-256");
    }
    if !lines.any(|line| line.starts_with('V') && is_strong(line)) {
        bail!("its payload is not signed, which rpm before 4.14 looks for");
    }
    Ok(())
}

fn is_strong(line: &str) -> bool {
    ["RSA/SHA256 ", "RSA/SHA384 ", "RSA/SHA512 "].iter().any(|kind| line.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rpm 4.18 prints.
    const SIGNED: &str = "\
scalr-agent.rpm:
    Header V4 RSA/SHA256 Signature, key ID af7cd816: OK
    Header SHA256 digest: OK
    Header SHA1 digest: OK
    Payload SHA256 digest: OK
    V4 RSA/SHA256 Signature, key ID af7cd816: OK
    MD5 digest: OK
";

    #[test]
    fn an_rpm_is_for_hosts_that_can_install_it() {
        let takers = |version: &str, required: &str| {
            let requires = ["glibc >= 2.17".to_owned(), required.to_owned()];
            Part::ALL.map(|part| part.takes(version, &requires))
        };
        assert_eq!(takers("0:1.0.0-1", "systemd >= 230"), [true, false]);
        assert_eq!(takers("0:1.0.0-1.el7", "systemd"), [false, true]);
        assert_eq!(takers("0:1.0.0-1", "systemd"), [true, true]);
        assert_eq!(takers("0:1.0.0-1", "systemd >= 219"), [true, true]);
    }

    #[test]
    fn both_signatures_are_wanted() {
        judge(SIGNED).unwrap();
        let without = |start: &str| {
            let lines = SIGNED.lines().filter(|line| !line.trim().starts_with(start));
            judge(&lines.collect::<Vec<_>>().join("\n")).unwrap_err().to_string()
        };
        assert_eq!(without("Header V4"), "it is not signed with RSA and SHA-256");
        assert!(without("V4").starts_with("its payload is not signed"));
    }

    #[test]
    fn a_problem_of_the_repository_is_reported() {
        let foreign =
            SIGNED.replace("Signature, key ID af7cd816: OK", "Signature, key ID 1: NOKEY");
        let error = judge(&foreign).unwrap_err().to_string();
        assert_eq!(error, "Header V4 RSA/SHA256 Signature, key ID 1: NOKEY");
        assert!(judge(&SIGNED.replace("SHA256 Sig", "SHA1 Sig")).is_err());
    }
}

//! Where the package comes from: its file, or a repository with the key that it
//! is signed with.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use deb822_fast::Deb822;
use tera::Tera;
use url::Url;

use super::authority::{self, Authority};
use super::key::Fingerprint;
use super::{route, same_id, signed_by};
use cli::eprintln;
use cli::{Failure, untrusted_file};
use config::layout;
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::os::{Family, Os};
use host::package_tool::PackageTool;
use host::{apt, curl, rpm};

/// The key's name in the repository.
const KEY: &str = "scalr-agent.asc";

/// The largest file of keys that is taken from a folder, in bytes.
const MAX_KEY: u64 = 1024 * 1024;

/// The name of a server's repository.
pub(super) const ID: &str = "scalr-agent";

/// The part of a repository that has the debs.
const APT_PART: &str = "apt";

/// The name of the repository in a folder.
const BUNDLE_ID: &str = "scalr-agent-bundle";

const SOURCES: &str = include_str!("../../../templates/repository/scalr-agent.sources.tera");
const REPO: &str = include_str!("../../../templates/repository/scalr-agent.repo.tera");

/// How the server is reached.
pub(crate) struct Access {
    /// The variables of the proxy.
    pub(super) proxy: Vec<(String, String)>,
    /// What to trust instead of the system's authorities.
    pub(super) authority: Option<Authority>,
}

impl Access {
    fn ca_cert(&self) -> Option<&Path> {
        self.authority.as_ref().map(|authority| authority.file.as_path())
    }

    /// The package tool of this host, which reaches the repository like this.
    ///
    /// # Errors
    /// There is none, or a variable is not the URL of a proxy.
    pub(super) fn tool(
        &self,
        family: Family,
        source: &Source,
        repository: &Repository,
    ) -> Result<PackageTool> {
        let tool = PackageTool::of(family, source.patience())?.with_environment(self.proxy.clone());
        match repository {
            Repository::Folder(_) => Ok(tool.reading_folders()),
            Repository::Server(url) if self.authority.is_some() => {
                Ok(tool.with_authorities(authority::of_proxy(&self.proxy, url)?))
            }
            Repository::Server(_) => Ok(tool),
        }
    }
}

/// Where the package comes from, as options.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// Install this package file, if the agent is not installed yet
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    pub package: Option<PathBuf>,
    /// Install the package from this repository, if the agent is not installed
    /// yet: a server, or the folder of an offline bundle; --url's if not named
    #[arg(long, value_name = "URL|DIR")]
    pub repository: Option<Repository>,
    /// Go on only if the repository is signed with this key: the 40 digits of its
    /// fingerprint, or the 64 of its file's SHA-256
    #[arg(long, value_name = "HEX")]
    pub key_fingerprint: Option<Fingerprint>,
    /// Install the newest version, although one is installed
    #[arg(long)]
    pub upgrade: bool,
    /// How long to wait for another program that holds the package tool's lock
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    lock_timeout: u64,
}

impl Source {
    /// How long another program's lock is waited for.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.lock_timeout)
    }
}

/// A repository that `scalr-agent-setup repository` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Repository {
    /// This server has it.
    Server(Url),
    /// It is in this folder.
    Folder(PathBuf),
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return text.parse().map(Self::Server).map_err(|error| format!("{error}"));
        }
        let folder = fs::canonicalize(text).map_err(|error| error.to_string())?;
        if !folder.join(KEY).is_file() {
            return Err(format!("that is no repository: it has no {KEY}"));
        }
        Ok(Self::Folder(folder))
    }
}

impl Repository {
    /// What yum calls it, and its files are named by. A folder never takes the
    /// place of the server that newer versions come from.
    pub(crate) fn id(&self) -> &'static str {
        match self {
            Self::Server(_) => ID,
            Self::Folder(_) => BUNDLE_ID,
        }
    }

    /// Its address for apt and yum.
    fn base(&self) -> String {
        match self {
            Self::Server(url) => format!("{}/packages", url.as_str().trim_end_matches('/')),
            Self::Folder(folder) => Url::from_file_path(folder)
                .map_or_else(|()| format!("file://{}", folder.display()), |url| url.to_string()),
        }
    }

    pub(super) fn apt_uri(&self) -> String {
        apt_uri(&self.base())
    }

    /// Refuses an address over which anybody on the network could change what root
    /// installs.
    fn require_encryption(&self) -> Result<()> {
        match self {
            Self::Server(url) if !config::is_encrypted_or_local(url) => Err(Failure::Usage
                .because(format!(
                    "the package repository {url} is not encrypted, so anyone on the network could \
                     change what is installed; give its https:// address (plain http is only for \
                     localhost)"
                ))),
            _ => Ok(()),
        }
    }

    /// Refuses it if it has no rpms for hosts of `os`: each later call of yum would
    /// fail with it. A server that does not answer is left to yum.
    fn require_rpms(&self, os: &Os, access: &Access) -> Result<()> {
        let part = yum_part(os);
        let is_missing = match self {
            Self::Server(_) => {
                let index: Url = format!("{}/{part}/repodata/repomd.xml", self.base()).parse()?;
                [404, 410].contains(&curl::get(&index, &access.proxy, access.ca_cert())?.status)
            }
            Self::Folder(folder) => !folder.join(part).is_dir(),
        };
        if !is_missing {
            return Ok(());
        }
        let kind = if os.is_el7() { "rpm-el7" } else { "rpm" };
        Err(Failure::NotInstalled.because(format!(
            "the package repository {} has no packages for {} (no {part}/); where it is made: \
             `scalr-agent-setup package --type {kind}`, then `scalr-agent-setup repository`",
            self.base(),
            os.name
        )))
    }

    fn key(&self, access: &Access) -> Result<String> {
        match self {
            Self::Server(_) => {
                let url: Url = format!("{}/{KEY}", self.base()).parse()?;
                curl::text(&url, &access.proxy, access.ca_cert()).map_err(|error| {
                    Failure::DownloadFailed
                        .because(format!("cannot download the packages' key: {error}"))
                })
            }
            // Whoever unpacked a bundle may be another user.
            Self::Folder(folder) => untrusted_file::read(&folder.join(KEY), MAX_KEY)
                .map_err(anyhow::Error::from)
                .and_then(|key| Ok(String::from_utf8(key)?))
                .with_context(|| format!("cannot read {KEY} in {}", folder.display())),
        }
    }
}

/// Adds a repository, verifies its key, and fetches what it says of itself, by `read`, which gets
/// the path of its definition.
///
/// # Errors
/// Its address is not encrypted (2), its key can't be fetched (8), is not the expected one (9), or the repository
/// has nothing for this system (6), can't be read or is not signed with it.
pub(crate) fn add(
    changes: &mut Changes,
    os: &Os,
    repository: &Repository,
    expected: Option<&Fingerprint>,
    access: &Access,
    read: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    repository.require_encryption()?;
    let base = repository.base();
    eprintln!("Adding the package repository {base} …");
    let id = repository.id();
    let files = Files::of(os.family, id);
    if os.family == Family::Debian {
        signed_by::require_no_conflict(
            changes.machine(),
            &files.definition,
            &apt_uri(&base),
            &files.key,
        )?;
    } else {
        same_id::require_no_other(changes.machine(), &files.definition, id)?;
    }
    let key = repository.key(access)?;
    match expected {
        Some(fingerprint) => fingerprint.require(&key)?,
        None => eprintln!(
            "note: the packages' key is trusted as it came; --key-fingerprint would compare it"
        ),
    }
    if os.family == Family::RedHat {
        repository.require_rpms(os, access)?;
    }
    changes.write(&files.key, &key, Attributes::PUBLIC)?;
    let ca_cert = match (repository, &access.authority) {
        (Repository::Server(url), Some(authority)) => {
            authority.put(changes)?;
            if let Some(file) = files.apt_trust {
                changes.write(file, &authority::apt_setting(url)?, Attributes::PUBLIC)?;
            }
            Some(layout::CA_CERT)
        }
        _ => None,
    };
    let before = changes.machine().path(&files.definition);
    let before = untrusted_file::read_text(before).unwrap_or_default();
    let definition = route::keep(&before, &files.text(id, &base, os, ca_cert)?);
    changes.write(&files.definition, &definition, Attributes::PUBLIC)?;
    if changes.is_dry_run() {
        return Ok(());
    }
    if let Repository::Server(_) = repository {
        // apt's and yum's own settings of a proxy count more than variables.
        route::put(changes, os.family, &access.proxy)?;
    }
    let uri = apt_uri(&base);
    let undo = (os.family == Family::Debian && !apt::has_lists(&uri))
        .then(|| apt::forget_lists_command(&uri));
    changes
        .prepare(format!("read the repository {base}"), || read(&files.definition), undo)
        .with_context(|| format!("cannot use the package repository {base}"))
}

/// Removes what [`add`] added of the repository in a folder, and the keys that rpm
/// got from it.
///
/// # Errors
/// As [`remove`].
pub(crate) fn forget_folder(changes: &mut Changes, family: Family, keys: &[String]) -> Result<()> {
    forget(changes, family, BUNDLE_ID, keys)
}

/// Removes what was added of a server's repository, and the keys that rpm got.
///
/// # Errors
/// A file can't be removed, or rpm keeps a key.
pub(crate) fn remove(changes: &mut Changes, family: Family) -> Result<()> {
    let keys = changes.manifest().keys.clone();
    forget(changes, family, ID, &keys)?;
    route::remove(changes, family)
}

fn forget(changes: &mut Changes, family: Family, id: &str, keys: &[String]) -> Result<()> {
    let files = Files::of(family, id);
    for name in keys {
        changes.run(
            format!("forget the key {name}"),
            rpm::forget_key_command(name),
            Some(rpm::import_key_command(&files.key)),
        )?;
    }
    changes.forget_keys(keys);
    if let Some(uri) = files.fetched(changes.machine()) {
        changes.run("delete apt's lists of it", apt::forget_lists_command(&uri), None)?;
    }
    changes.remove(&files.definition)?;
    changes.remove(&files.key)?;
    if let Some(file) = files.apt_trust {
        changes.remove(file)?;
    }
    Ok(())
}

/// What makes a repository known to apt or yum.
pub(super) struct Files {
    pub definition: String,
    /// apt has to be able to read it as another user.
    key: String,
    /// Where apt's setting for the authorities is; yum has it in the definition.
    apt_trust: Option<&'static str>,
    template: &'static str,
}

impl Files {
    pub(super) fn of(family: Family, id: &str) -> Self {
        match family {
            Family::Debian => Self {
                definition: format!("/etc/apt/sources.list.d/{id}.sources"),
                key: format!("/usr/share/keyrings/{id}.asc"),
                apt_trust: (id == ID).then_some("/etc/apt/apt.conf.d/90scalr-agent"),
                template: SOURCES,
            },
            _ => Self {
                definition: format!("/etc/yum.repos.d/{id}.repo"),
                key: format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-{id}"),
                apt_trust: None,
                template: REPO,
            },
        }
    }

    fn text(&self, id: &str, base: &str, os: &Os, ca_cert: Option<&str>) -> Result<String> {
        let (part, key) = match self.template {
            SOURCES => (APT_PART, self.key.clone()),
            _ => (yum_part(os), format!("file://{}", self.key)),
        };
        let mut context = tera::Context::new();
        for (name, value) in [("id", id), ("base", base), ("part", part), ("key", &key)] {
            context.insert(name, value);
        }
        context.insert("ca_cert", &ca_cert);
        Tera::one_off(self.template, &context, false)
            .context("cannot render a repository's definition")
    }

    /// The address that apt has fetched lists from.
    fn fetched(&self, machine: &Machine) -> Option<String> {
        if !machine.is_this_one() || self.template != SOURCES {
            return None;
        }
        let text = untrusted_file::read_text(machine.path(&self.definition)).ok()?;
        let parsed: Deb822 = text.parse().ok()?;
        let uri = parsed.iter().find_map(|paragraph| paragraph.get("URIs").map(str::to_owned))?;
        apt::has_lists(&uri).then_some(uri)
    }
}

fn apt_uri(base: &str) -> String {
    format!("{base}/{APT_PART}")
}

/// The part of a repository that has the rpms of `os`. The host's own version never
/// stands in a definition: RHEL 7 says `7Server`.
fn yum_part(os: &Os) -> &'static str {
    if os.is_el7() { "yum-el7" } else { "yum" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, version: &str) -> Os {
        let lines = [format!("ID={id}"), format!("VERSION_ID={version}")];
        Os::from(lines.into_iter().collect::<os_release::OsRelease>())
    }

    #[test]
    fn definitions_name_repository_and_key() {
        let repository: Repository = "https://pools.example.com/".parse().unwrap();
        let base = repository.base();
        for (os, part) in [
            (os("rocky", "8.10"), "yum"),
            (os("amzn", "2023"), "yum"),
            (os("rhel", "7.9"), "yum-el7"),
            (os("amzn", "2"), "yum-el7"),
        ] {
            let text = Files::of(Family::RedHat, ID).text(ID, &base, &os, None).unwrap();
            assert!(!text.contains("sslcacert"), "{text}");
            let address = format!("\nbaseurl=https://pools.example.com/packages/{part}\n");
            assert!(text.contains(&address), "{text}");
            let key = "\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-scalr-agent\n";
            assert!(text.contains(key), "{text}");
        }
        let ca_cert = Some(layout::CA_CERT);
        let text =
            Files::of(Family::RedHat, ID).text(ID, &base, &os("rocky", "9"), ca_cert).unwrap();
        assert!(text.ends_with("\nsslcacert=/etc/scalr-agent/ca.pem\n"), "{text}");
        let text =
            Files::of(Family::Debian, ID).text(ID, &base, &os("debian", "12"), None).unwrap();
        assert!(text.contains("\nURIs: https://pools.example.com/packages/apt\n"), "{text}");
        assert!(text.contains("\nSigned-By: /usr/share/keyrings/scalr-agent.asc\n"), "{text}");
    }

    #[test]
    fn a_repository_without_rpms_for_the_host_is_refused_with_what_makes_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("yum")).unwrap();
        let repository = Repository::Folder(folder.path().to_owned());
        let access = Access { proxy: Vec::new(), authority: None };
        repository.require_rpms(&os("centos", "8"), &access).unwrap();
        let error = repository.require_rpms(&os("centos", "7"), &access).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::NotInstalled);
        let error = error.to_string();
        assert!(error.contains("no yum-el7/") && error.contains("--type rpm-el7"), "{error}");
    }

    #[test]
    fn a_server_has_to_be_reached_by_https() {
        for url in ["http://pools.example.com", "http://127.0.0.1.example.com/", "ftp://localhost"]
        {
            let repository: Repository = url.parse().unwrap();
            let error = repository.require_encryption().unwrap_err();
            assert_eq!(Failure::of(&error), Failure::Usage, "{url}");
            assert!(error.to_string().contains("give its https:// address"), "{error}");
        }
        for url in ["https://pools.example.com", "http://127.0.0.1:8080", "http://[::1]"] {
            url.parse::<Repository>().unwrap().require_encryption().unwrap();
        }
    }

    #[test]
    fn a_folder_has_to_be_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert!(name.parse::<Repository>().unwrap_err().contains(KEY));
        fs::write(folder.path().join(KEY), "").unwrap();
        let repository: Repository = name.parse().unwrap();
        assert!(repository.base().starts_with("file:///"), "{}", repository.base());
        assert_ne!(repository.id(), ID);
    }
}

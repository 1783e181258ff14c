//! The package scalr-agent, where it is not installed yet.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use url::Url;

use crate::exit::Failure;
use crate::host::changes::{Attributes, Changes};
use crate::host::machine::Machine;
use crate::host::os::{Family, Os};
use crate::host::packages::Packages;
use crate::host::yum::Yum;
use crate::host::{apt, curl};
use crate::setup::proxy::Proxy;

const PACKAGE: &str = "scalr-agent";

/// The program that shows that the package is installed.
const PROGRAM: &str = "/usr/bin/scalr-agent";

/// apt's key for the repository; it has to be readable by all.
pub const APT_KEY: &str = "/usr/share/keyrings/scalr-agent.asc";

/// The repository, to apt.
pub const APT_SOURCE: &str = "/etc/apt/sources.list.d/scalr-agent.sources";

/// The repository, to yum and dnf.
pub const YUM_REPOSITORY: &str = "/etc/yum.repos.d/scalr-agent.repo";

/// Where the package comes from if it is not installed yet.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Install this package file, if the agent is not installed yet
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    package: Option<PathBuf>,
    /// Install the package from this server's repository, if the agent is not
    /// installed yet; --url's if not named
    #[arg(long, value_name = "URL")]
    repository: Option<Url>,
    /// How long to wait for another program that holds the package tool's lock
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    lock_timeout: u64,
}

impl Source {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.lock_timeout)
    }
}

/// Whether the package is installed.
pub fn is_there(machine: &Machine) -> bool {
    machine.path(PROGRAM).exists()
}

/// Installs the package unless it is there. Its repository is set up like any
/// other change; when everything is undone the package is removed again.
///
/// # Errors
/// Its place is not known, or it can't be installed (6).
pub fn put(
    changes: &mut Changes,
    source: &Source,
    url: Option<&Url>,
    proxy: Option<&Proxy>,
) -> Result<()> {
    if is_there(changes.machine()) {
        return Ok(());
    }
    let failed = |error: anyhow::Error| Failure::NotInstalled.because(format!("{error:#}"));
    if !changes.machine().is_this_one() {
        return Err(Failure::NotInstalled.because(
            "the package scalr-agent is not installed in this tree; install it there first",
        ));
    }
    let os = Os::of(changes.machine())?;
    let package = match (&source.package, source.repository.as_ref().or(url)) {
        (Some(file), _) => file
            .canonicalize()
            .with_context(|| format!("cannot read {}", file.display()))
            .map_err(failed)?
            .display()
            .to_string(),
        (None, Some(server)) => {
            let proxy = proxy.map(Proxy::variables).unwrap_or_default();
            add_repository(changes, os.family, server, &proxy, source.patience())
                .context("cannot use the server's package repository")
                .map_err(failed)?;
            PACKAGE.to_owned()
        }
        (None, None) => {
            return Err(Failure::NotInstalled.because(
                "the package scalr-agent is not installed; name its file with --package or its \
                 server with --repository",
            ));
        }
    };
    install(changes, os.family, &package, source.patience()).map_err(failed)
}

fn install(changes: &mut Changes, family: Family, package: &str, patience: Duration) -> Result<()> {
    let before = Packages::installed(family)?;
    let what = format!("install {package}");
    if !changes.is_dry_run() {
        eprintln!("Installing {package} …");
    }
    match family {
        Family::Debian => {
            changes.install(before, what, &apt::install_command(package), || {
                apt::install(package, patience).or_else(|_| {
                    // What it depends on may be missing from lists that are old.
                    apt::update_all(patience)?;
                    apt::install(package, patience)
                })
            })
        }
        _ => {
            let yum = Yum::find()?;
            changes.install(before, what, &yum.install_command(package), || {
                yum.install(package, patience)
            })
        }
    }
}

fn add_repository(
    changes: &mut Changes,
    family: Family,
    server: &Url,
    proxy: &[(String, String)],
    patience: Duration,
) -> Result<()> {
    let files: &[(&str, &str)] = match family {
        Family::Debian => {
            &[("packages/scalr-agent.asc", APT_KEY), ("packages/scalr-agent.sources", APT_SOURCE)]
        }
        _ => &[("packages/scalr-agent.repo", YUM_REPOSITORY)],
    };
    for (name, file) in files {
        let text = curl::text(&server.join(name)?, proxy, None)?;
        changes.write(file, &text, Attributes::PUBLIC)?;
    }
    if family == Family::Debian && !changes.is_dry_run() {
        apt::update(APT_SOURCE, patience)?;
    }
    Ok(())
}

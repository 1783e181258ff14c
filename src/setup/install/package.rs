//! The package scalr-agent: installed, or made newer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use url::Url;

use super::accounts;
use super::source::{self, Access, Repository, Source};
use cli::Failure;
use cli::eprintln;
use config::layout;
use host::changes::Changes;
use host::hold::{Hold, Operation};
use host::installation::Installation;
use host::machine::Machine;
use host::os::Os;
use host::package_tool::PackageTool;
use host::packages::Packages;

/// The program that shows that the package is installed.
const PROGRAM: &str = "/usr/bin/scalr-agent";

/// The paths that the package's removal with its settings deletes.
const OF_PACKAGE: [&str; 2] = [layout::SETTINGS_DIR, layout::DATA_DIR];

/// No other package has these, or files below them. What is unpacked first is one of them.
const OWN_PATHS: [&str; 3] =
    ["/etc/needrestart/conf.d/scalr-agent.conf", PROGRAM, layout::LIBRARY_DIR];

/// What dpkg runs for a purge; rpm knows none.
const PURGE: &str = include_str!("../../../pkg/deb/postrm");

/// Whether the package is installed.
pub(super) fn is_there(machine: &Machine) -> bool {
    machine.path(PROGRAM).exists()
}

/// Refuses what the package tool would not do, before anything is changed.
///
/// # Errors
/// The package is held (6).
pub(super) fn require_no_hold(machine: &Machine, source: &Source, url: Option<&Url>) -> Result<()> {
    let is_there = is_there(machine);
    if is_there && !source.upgrade || !machine.is_this_one() {
        return Ok(());
    }
    let repository = source.repository.clone().or_else(|| url.cloned().map(Repository::Server));
    let id = repository.filter(|_| source.package.is_none()).map(|repository| repository.id());
    let tool = PackageTool::of(Os::of(machine)?.family, source.patience())?;
    refuse(machine, tool.hold(layout::AGENT, Operation::Install(id))?)
}

fn refuse(machine: &Machine, hold: Option<Hold>) -> Result<()> {
    let Some(hold) = hold else { return Ok(()) };
    Err(Failure::NotInstalled.because(format!(
        "cannot {} the package {}: {hold}",
        if is_there(machine) { "upgrade" } else { "install" },
        layout::AGENT
    )))
}

/// Installs the package unless it is there, or is to become newer. Its repository
/// is set up like any other change; when everything is undone, the package is
/// removed again.
///
/// # Errors
/// Its place is not known, or it can't be installed (6); besides those of
/// [`source::add`].
pub(super) fn put(
    changes: &mut Changes,
    source: &Source,
    url: Option<&Url>,
    access: &Access,
) -> Result<()> {
    let machine = changes.machine().clone();
    if is_there(&machine) && !source.upgrade {
        return Ok(());
    }
    if !machine.is_this_one() {
        return Err(Failure::NotInstalled.because(
            "the package scalr-agent is not installed in this tree; install it there first",
        ));
    }
    let from_url = || url.cloned().map(Repository::Server);
    match (&source.package, source.repository.clone().or_else(from_url)) {
        (Some(file), _) => from_file(changes, source, file, access),
        (None, Some(repository)) => from_repository(changes, source, &repository, access),
        (None, None) => Err(anyhow::anyhow!(
            "the package scalr-agent is not installed; name its file with --package or its \
             server with --repository"
        )),
    }
    .and_then(|()| accounts::require(changes))
    .map_err(|error| match Failure::of(&error) {
        Failure::Failed => Failure::NotInstalled.because(format!("{error:#}")),
        _ => error,
    })
}

/// Adds the repository, and installs nothing.
///
/// # Errors
/// No repository is named (2); besides those of [`source::add`].
pub(super) fn add_repository(
    changes: &mut Changes,
    source: &Source,
    url: Option<&Url>,
    access: &Access,
) -> Result<()> {
    let os = Os::of(changes.machine())?;
    let repository = source.repository.clone().or_else(|| url.cloned().map(Repository::Server));
    let repository = repository.ok_or_else(|| {
        Failure::Usage.because("which repository? Give --repository, or --url https://SERVER")
    })?;
    let tool = access.tool(os.family, source, &repository)?;
    let expected = source.key_fingerprint.as_ref();
    let read = |definition: &str| tool.refresh(definition, repository.id());
    source::add(changes, &os, &repository, expected, access, read)
}

fn from_file(changes: &mut Changes, source: &Source, file: &Path, access: &Access) -> Result<()> {
    let file = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
    let family = Os::of(changes.machine())?.family;
    let tool = PackageTool::of(family, source.patience())?.with_environment(access.proxy.clone());
    let before = before(changes.machine())?;
    let file = file.display().to_string();
    install(changes, &before, &tool, &file, || tool.install(&file)).map(drop)
}

fn from_repository(
    changes: &mut Changes,
    source: &Source,
    repository: &Repository,
    access: &Access,
) -> Result<()> {
    let os = Os::of(changes.machine())?;
    let tool = access.tool(os.family, source, repository)?;
    let is_folder = matches!(repository, Repository::Folder(_));
    // Before the repository: yum may take its key already when it reads that.
    let before = before(changes.machine())?;
    let expected = source.key_fingerprint.as_ref();
    let id = repository.id();
    if is_folder {
        let read = |definition: &str| tool.refresh(definition, id);
        source::add(changes, &os, repository, expected, access, read)?;
        let action = || tool.install_from(id, layout::AGENT);
        let keys = install(changes, &before, &tool, layout::AGENT, action)?;
        // A folder may be gone tomorrow, and then each later call of apt or yum
        // would fail.
        return source::forget_folder(changes, os.family, &keys);
    }
    let mut rival = None;
    let read = |definition: &str| {
        let uri = repository.apt_uri();
        rival = tool.refresh_and_find_rival(definition, layout::AGENT, &uri, id)?;
        Ok(())
    };
    source::add(changes, &os, repository, expected, access, read)?;
    refuse(changes.machine(), rival)?;
    let keys = install(changes, &before, &tool, layout::AGENT, || tool.install(layout::AGENT))?;
    changes.record_keys(keys);
    Ok(())
}

/// What is installed before; settings that are there already are nobody's to
/// delete.
fn before(machine: &Machine) -> Result<Packages> {
    let packages = Packages::installed(Os::of(machine)?.family)?;
    let has_settings = OF_PACKAGE.iter().any(|path| machine.path(path).exists());
    Ok(if has_settings { packages.keeping_settings() } else { packages })
}

fn install(
    changes: &mut Changes,
    before: &Packages,
    tool: &PackageTool,
    package: &str,
    action: impl FnOnce() -> Result<()>,
) -> Result<Vec<String>> {
    let what = format!("install {package}");
    if !changes.is_dry_run() {
        eprintln!("Installing {package} …");
    }
    let command = tool.install_command(package);
    let mut purge = Command::new("sh");
    purge.args(["-c", PURGE, "sh", "purge"]);
    let installation = Installation::new(layout::AGENT, &OWN_PATHS, &command, &purge);
    changes.install(before, what, installation, action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_unpacked_file_of_each_rpm_shows_that_its_installation_was_begun() {
        let manifest: toml::Table = toml::from_str(include_str!("../../agent/Cargo.toml")).unwrap();
        let rpm = &manifest["package"]["metadata"]["generate-rpm"];
        for described in [rpm, &rpm["variants"]["no-engine"]] {
            let assets = described["assets"].as_array().unwrap();
            let paths = assets.iter().map(|asset| asset["dest"].as_str().unwrap());
            // rpm unpacks them in the order of their names.
            let first = paths.min().unwrap();
            assert!(OWN_PATHS.iter().any(|own| Path::new(first).starts_with(own)), "{first}");
        }
    }
}

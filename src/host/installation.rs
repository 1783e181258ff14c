//! The installation of one package, as what finishes it after an interruption.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::command::CommandExt as _;
use super::command_line::CommandLine;
use super::machine::Machine;
use super::os::Family;
use super::package_tool::PackageTool;
use super::{dpkg, locks, rpm};
use cli::Failure;
use cli::eprintln;

/// How long it waits for the package tool's lock.
const PATIENCE: Duration = Duration::from_secs(120);

/// A package, and the command that installs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Installation {
    package: String,
    /// Paths that no other package has.
    own_paths: Vec<String>,
    command: CommandLine,
    /// What deletes the package's accounts, settings and data where its removal keeps them.
    purge: CommandLine,
}

impl Installation {
    /// The installation of `package` by `command`; no other package has one of `own_paths`
    /// or a file below it. After its removal, `purge` deletes its accounts, settings and data.
    pub fn new(package: &str, own_paths: &[&str], command: &Command, purge: &Command) -> Self {
        Self {
            package: package.to_owned(),
            own_paths: own_paths.iter().copied().map(str::to_owned).collect(),
            command: command.into(),
            purge: purge.into(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        (&self.command).into()
    }

    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// Deletes what the removal of a package with its settings leaves: rpm's leaves all.
    ///
    /// # Errors
    /// The command fails.
    pub(crate) fn purge(&self, family: Family) -> Result<()> {
        match family {
            Family::Debian => Ok(()),
            _ => Ok(Command::from(&self.purge).run()?),
        }
    }

    /// Brings the package to one whole version where an interruption has left it between two:
    /// then it can be used, and removed. What is whole is not touched.
    ///
    /// # Errors
    /// The package tool fails; a lock is held (10).
    pub(crate) fn finish(&self, family: Family, was_installed: bool) -> Result<()> {
        let tool = PackageTool::of(family, PATIENCE)?;
        match family {
            Family::Debian => self.finish_dpkg(&tool, was_installed),
            _ => self.finish_rpm(&tool),
        }
    }

    fn finish_dpkg(&self, tool: &PackageTool, was_installed: bool) -> Result<()> {
        // Somebody else's lock is not waited for when there is nothing to do.
        if dpkg::is_whole()? && !may_be_at_work()? {
            return Ok(());
        }
        match tool.configure_pending() {
            Err(error) if Failure::of(&error) == Failure::Locked => return Err(error),
            // A script that fails does not keep the package from being removed.
            Err(error) => eprintln!("{error:#}"),
            Ok(()) => {}
        }
        // dpkg knows the files of a package only once it has unpacked all of them: it removes
        // one that it has unpacked in part, and leaves those files.
        if dpkg::is_half_installed(&self.package)? {
            match self.install_again(tool) {
                Err(error) if !was_installed && Failure::of(&error) != Failure::Locked => {
                    eprintln!(
                        "{error:#}\n{} is removed as it is. Files that were unpacked, whose names end \
                     in .dpkg-new, may be left.",
                        self.package
                    )
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// rpm can remove only what it has recorded.
    fn finish_rpm(&self, tool: &PackageTool) -> Result<()> {
        let versions = rpm::installed_versions(&self.package)?;
        if let [older @ .., newest] = versions.as_slice() {
            for version in older {
                eprintln!("Removing {version}, which the upgrade to {newest} has left …");
                tool.run(rpm::erase_command(version))?;
            }
        }
        if rpm::is_incomplete(&self.package, &self.own_paths)? {
            self.install_again(tool)?;
        }
        rpm::remove_temporary_files(&self.package)
    }

    fn install_again(&self, tool: &PackageTool) -> Result<()> {
        eprintln!("Finishing the interrupted installation of {} …", self.package);
        tool.run(self.command())
    }
}

/// Whether an apt or dpkg runs: one that outlived what started it may still install a package.
fn may_be_at_work() -> Result<bool> {
    let lock = locks::of_package_tools(&Machine::at("/"))?;
    Ok(lock.is_some_and(|(_, holder)| ["apt", "apt-get", "dpkg"].contains(&holder.name.as_str())))
}

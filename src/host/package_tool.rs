//! The package tool of this host, apt or yum: installing and removing, with
//! patience for others who hold its lock.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use backon::{BlockingRetryable as _, ConstantBuilder};

use super::command::{CommandError, CommandExt as _};
use super::hold::{Hold, Operation};
use super::machine::Machine;
use super::os::Family;
use super::yum::{self, Yum};
use super::{apt, clock, dpkg, interrupt, locks, rpm};
use cli::Failure;
use cli::eprintln;

/// How long between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// apt, or one that is like yum, and how it is called.
#[derive(Clone, Debug)]
pub struct PackageTool {
    kind: Kind,
    patience: Duration,
    environment: Vec<(String, String)>,
    authorities: Option<OfProxy>,
    reads_folders: bool,
}

/// Whom an https proxy's certificate is of, where the system does not trust it.
#[derive(Clone, Debug)]
pub struct OfProxy {
    /// The proxy's host.
    pub host: String,
    /// A file of authorities, in PEM form.
    pub file: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Apt,
    Yum(Yum),
}

impl PackageTool {
    /// That of a family of systems, which waits for another one's lock for at
    /// most `patience`.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(family: Family, patience: Duration) -> Result<Self> {
        let kind = match family {
            Family::Debian => Kind::Apt,
            _ => Kind::Yum(Yum::find()?),
        };
        Ok(Self {
            kind,
            patience,
            environment: Vec::new(),
            authorities: None,
            reads_folders: false,
        })
    }

    /// The same, for a repository in a folder that maybe only root can read.
    #[must_use]
    pub fn reading_folders(self) -> Self {
        Self { reads_folders: true, ..self }
    }

    /// The same, with these variables for its proxy.
    #[must_use]
    pub fn with_environment(self, environment: Vec<(String, String)>) -> Self {
        Self { environment, ..self }
    }

    /// The same, with these authorities for its proxy.
    #[must_use]
    pub fn with_authorities(self, authorities: Option<OfProxy>) -> Self {
        Self { authorities, ..self }
    }

    /// Fetches what one repository says of itself: `definition` is its file for
    /// apt, `id` what it is called for yum.
    ///
    /// # Errors
    /// It can't be reached or its signature is not right; a lock is held (10).
    pub fn refresh(&self, definition: &str, id: &str) -> Result<()> {
        match self.kind {
            Kind::Apt => self.run(apt::update_command(definition)),
            Kind::Yum(yum) => self.run(yum.refresh_command(id)),
        }
    }

    /// The command that installs a package or a package file.
    pub fn install_command(&self, package: &str) -> Command {
        let mut command = self.installing(package);
        self.surround(&mut command);
        command
    }

    fn installing(&self, package: &str) -> Command {
        match self.kind {
            Kind::Apt => apt::install_command(package),
            Kind::Yum(yum) => yum.install_command(package),
        }
    }

    /// Gives it the proxy and its authorities.
    fn surround(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let Some(OfProxy { host, file }) = &self.authorities else { return };
        match self.kind {
            Kind::Apt => command.args(["-o", &format!("Acquire::https::{host}::CaInfo={file}")]),
            Kind::Yum(_) => command.arg(format!("--setopt=proxy_sslcacert={file}")),
        };
    }

    /// Installs a package or a package file, and what it depends on. Where the
    /// package is installed already, it becomes the newest; a file of the installed
    /// version changes nothing.
    ///
    /// # Errors
    /// It can't be installed; a lock is held (10).
    pub fn install(&self, package: &str) -> Result<()> {
        let result = self.run(self.installing(package));
        match self.kind {
            // What it depends on may be missing from lists that are old.
            Kind::Apt if result.as_ref().is_err_and(|error| Failure::of(error).is_ordinary()) => {
                self.run(apt::update_all_command())?;
                self.run(self.installing(package))
            }
            Kind::Yum(_) if result.as_ref().is_err_and(is_up_to_date) => Ok(()),
            _ => result,
        }
    }

    /// As [`Self::install`], from the repository `id`; yum asks the others only
    /// if that is not enough, since on a host without network they can't answer.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_from(&self, id: &str, package: &str) -> Result<()> {
        match self.kind {
            Kind::Apt => self.run(self.installing(package)),
            Kind::Yum(yum) => match self.run(yum.install_from_command(id, package)) {
                Err(error) if Failure::of(&error).is_ordinary() => {
                    self.run(self.installing(package)).map_err(|_| error)
                }
                result => result,
            },
        }
    }

    /// What keeps it from an operation on a package.
    ///
    /// # Errors
    /// Its configuration can't be read.
    pub fn hold(&self, package: &str, operation: Operation<'_>) -> Result<Option<Hold>> {
        let machine = Machine::at("/");
        match self.kind {
            Kind::Apt => apt::hold::against(&machine, package, operation),
            Kind::Yum(yum) => {
                let installed = rpm::installed(package)?;
                Ok(yum::hold::against(&machine, yum, package, installed.as_deref(), operation))
            }
        }
    }

    /// What makes it install another version of a package than those of a repository that is
    /// set up, or none: `uri` is its address for apt, `id` what it is called for yum.
    ///
    /// # Errors
    /// The repositories can't be read; a lock is held (10).
    pub fn rival(&self, package: &str, uri: &str, id: &str) -> Result<Option<Hold>> {
        match self.kind {
            Kind::Apt => apt::hold::rival(&Machine::at("/"), package, uri),
            Kind::Yum(yum) => yum.rival(&Machine::at("/"), package, id),
        }
    }

    /// Does [`Self::refresh`] and looks for a [`Self::rival`].
    ///
    /// # Errors
    /// Those of either.
    pub fn refresh_and_find_rival(
        &self,
        definition: &str,
        package: &str,
        uri: &str,
        id: &str,
    ) -> Result<Option<Hold>> {
        if let Kind::Yum(yum) = self.kind {
            // Each call takes a third of a second, and one does both where nothing is wrong.
            let machine = Machine::at("/");
            let mut command = yum.refresh_and_list_command(&machine, id, package);
            self.surround(&mut command);
            let output = command.probe()?;
            let all = String::from_utf8_lossy(&output.stdout);
            if output.status.success() && yum::is_listed(package, &all, id) {
                return yum.rival_in(&all, &machine, package, id);
            }
        }
        self.refresh(definition, id)?;
        self.rival(package, uri, id)
    }

    /// Removes packages and nothing else, also those that were installed or removed in part;
    /// with `purge` their settings as well, where the tool keeps those.
    ///
    /// # Errors
    /// It fails; a lock is held (10).
    pub fn remove(&self, packages: &[&str], purge: bool) -> Result<()> {
        match self.kind {
            Kind::Apt => {
                if dpkg::was_interrupted(&Machine::at("/")) {
                    self.configure_pending()?;
                }
                for package in packages {
                    if dpkg::needs_reinstallation(package)? {
                        self.run_dpkg(dpkg::remove_unfinished_command(package, purge))?;
                    }
                }
                self.run(apt::remove_command(packages, purge))
            }
            Kind::Yum(yum) => self.run(yum.remove_command(packages)),
        }
    }

    /// Has dpkg configure what an interrupted installation has left unpacked. A dpkg that
    /// outlived what started it is waited for.
    ///
    /// # Errors
    /// It fails; a lock is held (10).
    pub(crate) fn configure_pending(&self) -> Result<()> {
        self.run_dpkg(dpkg::configure_pending_command())
    }

    fn run_dpkg(&self, mut command: Command) -> Result<()> {
        patiently(&mut command, self.patience, dpkg::is_locked)
    }

    /// Runs a command of it.
    ///
    /// # Errors
    /// It fails; a lock is held (10).
    pub(crate) fn run(&self, mut command: Command) -> Result<()> {
        let is_locked = match self.kind {
            Kind::Apt => apt::is_locked,
            Kind::Yum(_) => yum::is_locked,
        };
        if self.reads_folders && matches!(self.kind, Kind::Apt) {
            // apt reads as another user.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        self.surround(&mut command);
        patiently(&mut command, self.patience, is_locked).map_err(|error| self.advised(error))
    }

    /// The error with what its output does not name: the configured proxy's place, and the
    /// clock as the cause.
    fn advised(&self, error: anyhow::Error) -> anyhow::Error {
        let said = format!("{error:#}");
        let of_proxy = match self.kind {
            Kind::Apt => apt::proxy::advice(&Machine::at("/"), &said),
            Kind::Yum(yum) => yum.proxy_advice(&Machine::at("/"), &said),
        };
        let advice: Vec<String> = of_proxy.into_iter().chain(clock::advice(&said)).collect();
        if advice.is_empty() {
            return error;
        }
        Failure::of(&error).because(format!("{said}\n{}", advice.join("\n")))
    }
}

/// Runs a command; a failure quotes the end of its output. While another program holds the
/// lock, tries again for at most `limit` and names that program.
fn patiently(
    command: &mut Command,
    limit: Duration,
    is_locked: fn(&CommandError) -> bool,
) -> Result<()> {
    let of_lock = |error: &anyhow::Error| error.downcast_ref().is_some_and(is_locked);
    let tries = usize::try_from(limit.as_secs() / PAUSE.as_secs()).unwrap_or(usize::MAX);
    let mut reported = None;
    let result = (|| {
        interrupt::check()?;
        Ok(command.run_shown()?)
    })
    .retry(ConstantBuilder::default().with_delay(PAUSE).with_max_times(tries))
    .when(of_lock)
    .notify(|_, _| {
        let holder = holder();
        if reported.as_ref() != Some(&holder) {
            eprintln!("Waiting for at most {} s: {holder} …", limit.as_secs());
        }
        reported = Some(holder);
    })
    .call();
    match result {
        Err(error) if of_lock(&error) => Err(Failure::Locked.because(format!(
            "{}, and still does after {} s; wait for its end, or end it, and run this again \
             (--lock-timeout SECONDS waits longer)",
            holder(),
            limit.as_secs()
        ))),
        Err(error) => Err(match error.downcast::<CommandError>() {
            Ok(error) => error.with_output().into(),
            Err(error) => error,
        }),
        Ok(()) => Ok(()),
    }
}

fn is_up_to_date(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(yum::has_nothing_to_do)
}

fn holder() -> String {
    match locks::of_package_tools(&Machine::at("/")) {
        Ok(Some((file, holder))) => format!("{holder} holds {file}"),
        _ => "another program holds the lock of the package tool".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let script = "[ -e once ] && exit 0; : >once; echo locked >&2; exit 1";
        let run = |is_locked: fn(&CommandError) -> bool| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(directory.path());
            patiently(&mut command, Duration::from_secs(10), is_locked)
        };
        assert!(run(|_| false).is_err());
        std::fs::remove_file(directory.path().join("once")).unwrap();
        run(|error| error.to_string().contains("locked")).unwrap();
    }

    #[test]
    fn the_output_of_a_failure_is_in_its_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no room; echo broken >&2; exit 1"]);
        let error = patiently(&mut command, Duration::ZERO, |_| false).unwrap_err();
        assert!(error.to_string().ends_with("broken\nno room"), "{error}");
    }

    #[test]
    fn patience_ends_with_a_code_of_its_own() {
        let mut command = Command::new("false");
        let error = patiently(&mut command, Duration::ZERO, |_| true).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Locked);
    }
}

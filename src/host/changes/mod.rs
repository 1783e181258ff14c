//! Changes of a machine as one transaction.
//!
//! Files with the same content are not written. All changes are undone, newest
//! first, unless [`Changes::commit`] is reached; what there is to undo is on disk
//! before each step, so that the next transaction undoes what was killed
//! half-way. What was committed is recorded in a [`Manifest`], together with what
//! was there before, so that it can be reversed for good later. A dry run prints
//! what would change instead.

mod diff;
mod lock;
mod manifest;
mod path_state;
mod snapshot;
#[cfg(test)]
mod tests;
mod unfinished;

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::diff::show;
pub use self::manifest::{FileChange, Manifest, Membership};
use self::path_state::{Mark, PathState};
pub use self::snapshot::Snapshot;
use self::unfinished::{Step, Unfinished};
use super::command::CommandExt as _;
use super::file_lock::FileLock;
use super::installation::Installation;
use super::machine::Machine;
use super::packages::Packages;
use super::{full_disk, interrupt, selinux, systemd, users};
use cli::Failure;
use cli::{eprintln, println};

/// Where a program keeps its records of what it changes on a machine.
#[derive(Debug)]
pub struct Records {
    /// What was changed for good: a [`Manifest`].
    pub manifest: &'static str,
    /// How to undo a transaction that is not committed. Not in a directory that
    /// comes and goes with a package.
    pub unfinished: &'static str,
    /// Held by the one process that changes the machine.
    pub lock: &'static str,
}

/// A transaction; see the module.
pub struct Changes {
    machine: Machine,
    records: &'static Records,
    dry_run: bool,
    manifest: Manifest,
    recorded: Manifest,
    changed: Vec<String>,
    /// What was at the paths of the files that were changed, when this transaction began.
    originals: HashMap<String, PathState>,
    unfinished: Unfinished,
    _lock: Option<FileLock>,
}

/// Who may do what with a file. Its owner is always root.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    mode: u32,
    group: Option<&'static str>,
    secret: bool,
}

impl Attributes {
    /// For everybody to read.
    pub const PUBLIC: Self = Self { mode: 0o644, group: None, secret: false };
    /// For root alone to read; a dry run does not show its text.
    pub const SECRET: Self = Self { mode: 0o600, group: None, secret: true };

    /// For root and a group to read; a dry run does not show its text.
    pub const fn secret_of(group: &'static str) -> Self {
        Self { mode: 0o640, group: Some(group), secret: true }
    }
}

impl Changes {
    /// Begins a transaction on `machine`, after undoing what an interrupted one
    /// has left. A signal that asks us to end is from now on noticed at the next
    /// change, and everything is undone.
    ///
    /// # Errors
    /// Another process changes this machine; what an interrupted transaction has left
    /// can't be undone; the manifest can't be read, was written by a newer version, or is
    /// not root's own.
    pub fn begin(machine: &Machine, records: &'static Records, dry_run: bool) -> Result<Self> {
        let mut lock = None;
        if !dry_run {
            lock = lock::take(machine, records.lock)?;
            interrupt::postpone()?;
            undo_interrupted(machine, records)?;
        }
        let manifest = Manifest::read(machine, records.manifest)?;
        Ok(Self {
            machine: machine.clone(),
            records,
            dry_run,
            recorded: manifest.clone(),
            manifest,
            changed: Vec::new(),
            originals: HashMap::new(),
            unfinished: Unfinished::at(records.unfinished),
            _lock: lock,
        })
    }

    /// The machine that is changed.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether changes are only printed.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The changes so far (in a dry run: the planned ones), oldest first. A file that is again
    /// as it was is not one of them.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// What earlier transactions and this one have changed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes the file at the machine's `path` hold `text`; returns whether it did
    /// not yet. Missing directories above it are made.
    ///
    /// # Errors
    /// It can't be written, the group does not exist, or something is there that
    /// is no text file.
    pub fn write(&mut self, path: &str, text: &str, attributes: Attributes) -> Result<bool> {
        let owner = self.owner(attributes.group)?;
        let before = PathState::at(&self.machine.entry(path))?;
        let (uid, gid) = owner.unwrap_or_else(|| before.owner());
        let after = PathState::File { mode: attributes.mode, uid, gid, text: text.to_owned() };
        self.replace(path, before, after, attributes.secret)
    }

    /// Makes the machine's `path` a symbolic link to `target`; returns whether it
    /// was not yet.
    ///
    /// # Errors
    /// It can't be made, or a directory is there.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<bool> {
        let before = PathState::at(&self.machine.entry(path))?;
        self.replace(path, before, PathState::Symlink { target: target.into() }, false)
    }

    /// Removes the file or symbolic link at the machine's `path`; returns whether
    /// there was one.
    ///
    /// # Errors
    /// It can't be removed, or is a directory.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let before = PathState::at(&self.machine.entry(path))?;
        // What is not shown: we can't know whether somebody else's file is secret.
        let secret = matches!(before, PathState::File { mode, .. } if mode & 0o004 == 0);
        self.replace(path, before, PathState::Absent, secret)
    }

    /// Runs a command; `undo` is what undoes it, if anything does. A dry run only
    /// prints it.
    ///
    /// # Errors
    /// It fails.
    pub fn run(
        &mut self,
        what: impl Into<String>,
        mut command: Command,
        undo: Option<Command>,
    ) -> Result<()> {
        let what = what.into();
        let step = format!("{what}: {}", command.line());
        let undo = undoing(&what, undo);
        self.tell(what, &step, undo, || Ok(command.run()?))
    }

    /// Makes a directory in one that is there; the umask says who may use it.
    ///
    /// # Errors
    /// It can't be made.
    pub fn make_directory(&mut self, path: &Path) -> Result<()> {
        let path = path.display().to_string();
        let what = format!("make the folder {path}");
        let directory = self.machine.entry(&path);
        let undo = Step::RemoveDirectory { path: path.clone() };
        self.tell(what.clone(), &what, undo, || {
            fs::create_dir(directory).with_context(|| format!("cannot make {path}"))
        })
    }

    /// Does something that is more than a command; else like [`Changes::run`].
    ///
    /// # Errors
    /// Those of `action`.
    pub fn act(
        &mut self,
        what: impl Into<String>,
        action: impl FnOnce() -> Result<()>,
        undo: Option<Command>,
    ) -> Result<()> {
        let what = what.into();
        let step = what.clone();
        let undo = undoing(&what, undo);
        self.tell(what, &step, undo, action)
    }

    /// Does something that is no change by itself but prepares one, such as reading
    /// lists again. A dry run does not do it.
    ///
    /// # Errors
    /// Those of `action`.
    pub fn prepare(
        &mut self,
        what: String,
        action: impl FnOnce() -> Result<()>,
        undo: Option<Command>,
    ) -> Result<()> {
        interrupt::check()?;
        if self.dry_run {
            return Ok(());
        }
        if let Some(undo) = undo {
            self.note(Step::Run { what: format!("undo: {what}"), command: (&undo).into() })?;
        }
        action().map_err(full_disk::explain)
    }

    /// Installs packages by `action`, where a dry run prints the command of `installation`;
    /// undone, all that it brought is removed. What was installed already may have
    /// become newer, and that is not undone but finished. Gives the keys that rpm got with them.
    ///
    /// # Errors
    /// Those of `action`.
    pub fn install(
        &mut self,
        before: &Packages,
        what: impl Into<String>,
        installation: Installation,
        action: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<String>> {
        let what = what.into();
        interrupt::check()?;
        if self.dry_run {
            println!("would {what}: {}", installation.command().line());
            self.changed.push(what);
            return Ok(Vec::new());
        }
        let package = installation.package().to_owned();
        self.note(Step::KeepPackages { before: before.clone(), installation })?;
        action().map_err(full_disk::explain)?;
        let after = before.now()?;
        // dnf is content with a database that it could not write.
        if !after.has(&package) {
            bail!(
                "cannot install the package {package}: its package manager reported success and \
                 did not install it\n{}",
                full_disk::of_package_database()
                    .unwrap_or_else(|| "Install it by hand and run this again.".to_owned())
            );
        }
        if !after.is_same(before) {
            self.changed.push(what);
        }
        Ok(after.keys_since(before).cloned().collect())
    }

    /// When all is undone, this command brings a service back as it was; such commands run
    /// in the order in which they were noted. Note it right before the step that needs it.
    ///
    /// # Errors
    /// That can't be noted on disk.
    pub fn when_undone(&mut self, command: Command) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        self.unfinished.note_service(&self.machine, &command).map_err(full_disk::explain)
    }

    /// Enables a unit: systemd starts it at each boot.
    ///
    /// # Errors
    /// systemctl fails.
    pub fn enable(&mut self, unit: &str) -> Result<()> {
        let undo = Some(systemd::disable(unit));
        self.run(format!("enable {unit}"), systemd::enable_before_reload(unit), undo)?;
        self.record_enabled(unit, true);
        Ok(())
    }

    /// Disables a unit. A masked unit cannot be disabled.
    ///
    /// # Errors
    /// systemctl fails.
    pub fn disable(&mut self, unit: &str) -> Result<()> {
        let undo = Some(systemd::enable(unit));
        self.run(format!("disable {unit}"), systemd::disable(unit), undo)?;
        self.record_enabled(unit, false);
        Ok(())
    }

    fn record_enabled(&mut self, unit: &str, enabled: bool) {
        self.manifest.enabled.retain(|known| known != unit);
        if enabled {
            self.manifest.enabled.push(unit.to_owned());
        }
    }

    /// Records that a user was removed from a group.
    pub fn forget_membership(&mut self, membership: &Membership) {
        self.manifest.memberships.retain(|known| known != membership);
    }

    /// Records that rpm was given these keys.
    pub fn record_keys(&mut self, keys: Vec<String>) {
        self.manifest.keys.extend(keys);
    }

    /// Records that rpm has none of these keys any more.
    pub fn forget_keys(&mut self, keys: &[String]) {
        self.manifest.keys.retain(|key| !keys.contains(key));
    }

    /// Whether the file or link at `path` is as an earlier call left it: ours,
    /// and nobody has changed it since.
    ///
    /// # Errors
    /// It can't be read.
    pub fn is_ours(&self, path: &str) -> Result<bool> {
        let Some(entry) = self.manifest.entry(path) else { return Ok(false) };
        Ok(PathState::at(&self.machine.entry(path))?.mark() == entry.now)
    }

    /// Puts back what was there before the first recorded change, newest first,
    /// except for the paths in `keep`. Gives the paths that somebody else has
    /// changed since: they are left alone.
    ///
    /// # Errors
    /// Something can't be put back.
    pub fn reverse(&mut self, keep: &[&str]) -> Result<Vec<String>> {
        let mut left_alone = Vec::new();
        let entries: Vec<FileChange> = self.manifest.files.iter().rev().cloned().collect();
        for entry in entries.into_iter().filter(|entry| !keep.contains(&entry.path.as_str())) {
            if entry.now == Mark::Directory {
                let file = self.machine.entry(&entry.path);
                let found = PathState::at(&file)?;
                let mode = if let PathState::Directory { mode } = found { mode } else { 0o755 };
                if !self.dry_run && is_empty(&file) {
                    self.note(Step::MakeDirectory { path: entry.path.clone(), mode })?;
                    fs::remove_dir(&file)
                        .with_context(|| format!("cannot remove {}", entry.path))?;
                }
                self.manifest.files.retain(|known| known.path != entry.path);
            } else if !self.put_back(&entry)? {
                left_alone.push(entry.path);
            }
        }
        Ok(left_alone)
    }

    /// Puts back what was there before one change; `false` if somebody else has changed the
    /// file since, so that it is left alone.
    ///
    /// # Errors
    /// It can't be put back.
    pub fn put_back(&mut self, change: &FileChange) -> Result<bool> {
        let found = PathState::at(&self.machine.entry(&change.path))?;
        if found != PathState::Absent && found.mark() != change.now {
            return Ok(false);
        }
        let secret = matches!(found, PathState::File { mode, .. } if mode & 0o004 == 0);
        self.replace(&change.path, found, change.before.clone(), secret)?;
        self.manifest.files.retain(|known| known.path != change.path);
        Ok(true)
    }

    /// Keeps the changes and records them.
    ///
    /// # Errors
    /// The manifest can't be written; then everything is undone.
    pub fn commit(mut self) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        if self.manifest != self.recorded {
            let path = self.records.manifest;
            let before = PathState::at(&self.machine.entry(path))?;
            let after = self.manifest.state()?;
            self.note(Step::PutBack { path: path.to_owned(), before, after: after.mark() })?;
            self.manifest.write(&self.machine, path).map_err(full_disk::explain)?;
        }
        // From here on it has happened.
        if !self.unfinished.is_empty() {
            self.unfinished.forget(&self.machine)?;
            self.unfinished = Unfinished::at(self.records.unfinished);
        }
        Ok(())
    }

    /// Commits, and tells people what was changed.
    ///
    /// # Errors
    /// As [`Changes::commit`].
    pub fn finish(self) -> Result<()> {
        let changed = if self.dry_run { Vec::new() } else { self.changed.clone() };
        self.commit()?;
        if !changed.is_empty() {
            println!("Changed:\n  {}", changed.join("\n  "));
        }
        Ok(())
    }

    fn replace(
        &mut self,
        path: &str,
        before: PathState,
        after: PathState,
        secret: bool,
    ) -> Result<bool> {
        if let PathState::Directory { .. } = before {
            bail!("{path} is a directory, not a file\nRemove it, and run this again.");
        }
        if before == after {
            return Ok(false);
        }
        let original = self.originals.entry(path.to_owned()).or_insert_with(|| before.clone());
        self.changed.retain(|known| known != path);
        if after != *original {
            self.changed.push(path.to_owned());
        }
        if self.dry_run {
            show(path, &before, &after, secret);
            return Ok(true);
        }
        interrupt::check()?;
        let file = self.machine.entry(path);
        if after != PathState::Absent {
            self.make_parents(path)?;
        }
        self.note(Step::PutBack {
            path: path.to_owned(),
            before: before.clone(),
            after: after.mark(),
        })?;
        let put = after.put(&file).with_context(|| format!("cannot change {path}"));
        put.map_err(full_disk::explain)?;
        if after != PathState::Absent && selinux::is_on(&self.machine) {
            selinux::restore_label(&file)?;
        }
        self.manifest.record(path, before, after.mark());
        Ok(true)
    }

    fn make_parents(&mut self, path: &str) -> Result<()> {
        let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            let directory = self.machine.path(parent);
            if directory.is_dir() {
                continue;
            }
            let name = parent.display().to_string();
            if let Ok(target) = fs::read_link(self.machine.entry(parent)) {
                bail!(
                    "{name} is a symbolic link to {}, which is no folder; make that folder, or \
                     remove the link",
                    target.display()
                );
            }
            self.note(Step::RemoveDirectory { path: name.clone() })?;
            let made = fs::create_dir(&directory).with_context(|| format!("cannot make {name}"));
            made.map_err(full_disk::explain)?;
            fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
            if selinux::is_on(&self.machine) {
                selinux::restore_label(&directory)?;
            }
            // The root of a tree, and a directory that stays when we are gone.
            if parent != Path::new("/") {
                self.manifest.record(&name, PathState::Absent, Mark::Directory);
            }
        }
        Ok(())
    }

    fn note(&mut self, step: Step) -> Result<()> {
        self.unfinished.note(&self.machine, step).map_err(full_disk::explain)
    }

    fn tell(
        &mut self,
        what: String,
        step: &str,
        undo: Step,
        action: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        interrupt::check()?;
        self.changed.push(what);
        if self.dry_run {
            println!("would {step}");
            return Ok(());
        }
        // Also what failed half-way is undone.
        self.note(undo)?;
        action().map_err(full_disk::explain)
    }

    /// The owner that a new file gets; `None` where it can't be chosen, because
    /// we are not root or only look.
    fn owner(&self, group: Option<&str>) -> Result<Option<(u32, u32)>> {
        if !users::are_root() || self.dry_run && !users::group_exists(&self.machine, group) {
            return Ok(None);
        }
        let Some(group) = group else { return Ok(Some((0, 0))) };
        match users::group_id(&self.machine, group)? {
            Some(gid) => Ok(Some((0, gid))),
            None => Err(Failure::NotInstalled.because(format!(
                "there is no group {group} yet: the package scalr-agent makes it; install it first"
            ))),
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if self.dry_run || self.unfinished.is_empty() {
            return;
        }
        eprintln!("Undoing what was changed …");
        let unfinished = std::mem::take(&mut self.unfinished);
        if let Err(error) = interrupt::while_undoing(|| unfinished.undo(&self.machine)) {
            eprintln!("{error:#}");
        }
    }
}

/// Undoes what a transaction that was killed has left; returns whether there was
/// one.
///
/// # Errors
/// What it has left can't be read, or not all of it can be undone.
fn undo_interrupted(machine: &Machine, records: &Records) -> Result<bool> {
    let Some(unfinished) = Unfinished::read(machine, records.unfinished)? else {
        // It may have been killed while it wrote its first step down, and had done none.
        path_state::remove_temporary(&machine.entry(records.unfinished))?;
        return Ok(false);
    };
    eprintln!("An earlier scalr-agent-setup was interrupted; undoing what it had changed …");
    interrupt::while_undoing(|| unfinished.undo(machine))?;
    Ok(true)
}

/// Undoes what an interrupted transaction has left; returns whether there was one.
///
/// # Errors
/// As [`Changes::begin`].
pub fn recover(machine: &Machine, records: &Records) -> Result<bool> {
    let _lock = lock::take(machine, records.lock)?;
    interrupt::postpone()?;
    undo_interrupted(machine, records)
}

/// Forgets what an interrupted transaction has left; returns whether there was one.
///
/// # Errors
/// Another process changes this machine; the record can't be removed.
pub fn discard(machine: &Machine, records: &Records) -> Result<bool> {
    let _lock = lock::take(machine, records.lock)?;
    let is_there = machine.path(records.unfinished).exists();
    if is_there {
        Unfinished::at(records.unfinished).forget(machine)?;
    }
    Ok(is_there)
}

/// Whether an interrupted transaction is still to be undone.
pub fn is_interrupted(machine: &Machine, records: &Records) -> bool {
    machine.path(records.unfinished).exists() && !lock::is_taken(machine, records.lock)
}

/// The step that undoes something by a command, if one does.
fn undoing(what: &str, undo: Option<Command>) -> Step {
    match undo {
        Some(undo) => Step::Run { what: format!("undo: {what}"), command: (&undo).into() },
        None => Step::Nothing { what: what.to_owned() },
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

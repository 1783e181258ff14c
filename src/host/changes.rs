//! Changes of a machine as one transaction.
//!
//! What is the same already is not written. What was changed is undone, newest
//! first, unless [`Changes::commit`] is reached. What was committed is recorded
//! in [`MANIFEST`], together with what was there before, so that it can be
//! reversed for good later. A dry run prints what would change instead.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use similar::{ChangeTag, TextDiff};

use super::machine::Machine;
use super::{interrupt, selinux, users};
use crate::exit::Failure;

/// Where it is recorded what was changed.
pub const MANIFEST: &str = "/var/lib/scalr-agent/setup.json";

/// The manifest's version that we write and read.
const VERSION: u32 = 1;

/// A transaction; see the module.
pub struct Changes {
    machine: Machine,
    dry_run: bool,
    manifest: Manifest,
    recorded: Manifest,
    changed: Vec<String>,
    undo: Vec<Undo>,
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
    /// Begins a transaction on `machine`. A signal that asks us to end is from now
    /// on noticed at the next change, and everything is undone.
    ///
    /// # Errors
    /// The manifest can't be read, was written by a newer version, or is not
    /// root's own.
    pub fn begin(machine: &Machine, dry_run: bool) -> Result<Self> {
        let manifest = Manifest::read(machine)?;
        if !dry_run {
            interrupt::postpone()?;
        }
        Ok(Self {
            machine: machine.clone(),
            dry_run,
            recorded: manifest.clone(),
            manifest,
            changed: Vec::new(),
            undo: Vec::new(),
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

    /// What was changed so far (in a dry run: would be), oldest first.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// What earlier transactions and this one have changed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes the file at the machine's `path` hold `text`; tells whether it did
    /// not yet. Missing directories above it are made.
    ///
    /// # Errors
    /// It can't be written, the group does not exist, or something is there that
    /// is no text file.
    pub fn write(&mut self, path: &str, text: &str, attributes: Attributes) -> Result<bool> {
        let owner = self.owner(attributes.group)?;
        let before = Thing::at(&self.machine.path(path))?;
        let (uid, gid) = owner.unwrap_or_else(|| before.owner());
        let after = Thing::File { mode: attributes.mode, uid, gid, text: text.to_owned() };
        self.replace(path, before, after, attributes.secret)
    }

    /// Makes the machine's `path` a symbolic link to `target`; tells whether it
    /// was not yet.
    ///
    /// # Errors
    /// It can't be made, or a directory is there.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<bool> {
        let before = Thing::at(&self.machine.path(path))?;
        self.replace(path, before, Thing::Symlink { target: target.into() }, false)
    }

    /// Removes the file or symbolic link at the machine's `path`; tells whether
    /// there was one.
    ///
    /// # Errors
    /// It can't be removed, or is a directory.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let before = Thing::at(&self.machine.path(path))?;
        // What is not shown: we can't know whether somebody else's file is secret.
        let secret = matches!(before, Thing::File { mode, .. } if mode & 0o004 == 0);
        self.replace(path, before, Thing::Absent, secret)
    }

    /// Does something other than to a file; undone with the rest. A dry run only
    /// prints `what`.
    ///
    /// # Errors
    /// Whatever `action` says.
    pub fn act(
        &mut self,
        what: impl Into<String>,
        action: impl FnOnce() -> Result<()>,
        undo: impl FnOnce() -> Result<()> + 'static,
    ) -> Result<()> {
        interrupt::check()?;
        let what = what.into();
        self.changed.push(what.clone());
        if self.dry_run {
            println!("would {what}");
            return Ok(());
        }
        // Also what failed half-way is undone.
        self.on_undo(what, undo);
        action()
    }

    /// Registers something to be done if the transaction is undone, after what
    /// was registered later.
    pub fn on_undo(
        &mut self,
        what: impl Into<String>,
        undo: impl FnOnce() -> Result<()> + 'static,
    ) {
        self.undo.push(Undo { what: what.into(), action: Box::new(undo) });
    }

    /// Records that a unit was enabled, or is no more.
    pub fn record_enabled(&mut self, unit: &str, enabled: bool) {
        self.manifest.enabled.retain(|known| known != unit);
        if enabled {
            self.manifest.enabled.push(unit.to_owned());
        }
    }

    /// Records that a user was made a member of a group, or is no more.
    pub fn record_membership(&mut self, user: &str, group: &str, member: bool) {
        let membership = Membership { user: user.to_owned(), group: group.to_owned() };
        self.manifest.memberships.retain(|known| *known != membership);
        if member {
            self.manifest.memberships.push(membership);
        }
    }

    /// Whether the file or link at `path` is as an earlier call left it: ours,
    /// and nobody has changed it since.
    ///
    /// # Errors
    /// It can't be read.
    pub fn is_ours(&self, path: &str) -> Result<bool> {
        let Some(entry) = self.manifest.entry(path) else { return Ok(false) };
        Ok(Thing::at(&self.machine.path(path))?.mark() == entry.now)
    }

    /// Puts back what was there before the first recorded change, newest first,
    /// except for the paths in `keep`. Gives the paths that somebody else has
    /// changed since: they are left alone.
    ///
    /// # Errors
    /// Something can't be put back.
    pub fn reverse(&mut self, keep: &[&str]) -> Result<Vec<String>> {
        let mut left_alone = Vec::new();
        let entries: Vec<Entry> = self.manifest.files.iter().rev().cloned().collect();
        for entry in entries.into_iter().filter(|entry| !keep.contains(&entry.path.as_str())) {
            let file = self.machine.path(&entry.path);
            let found = Thing::at(&file)?;
            if entry.now == Mark::Directory {
                if !self.dry_run && fs::remove_dir(&file).is_ok() {
                    self.undo_directory(&entry.path, &found);
                }
                self.manifest.files.retain(|known| known.path != entry.path);
            } else if found == Thing::Absent || found.mark() == entry.now {
                let secret = matches!(found, Thing::File { mode, .. } if mode & 0o004 == 0);
                self.replace(&entry.path, found, entry.before, secret)?;
                self.manifest.files.retain(|known| known.path != entry.path);
            } else {
                left_alone.push(entry.path);
            }
        }
        Ok(left_alone)
    }

    /// Keeps the changes and records them.
    ///
    /// # Errors
    /// The manifest can't be written; then everything is undone.
    pub fn commit(mut self) -> Result<()> {
        if !self.dry_run && self.manifest != self.recorded {
            self.manifest.write(&self.machine)?;
        }
        self.undo.clear();
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

    fn replace(&mut self, path: &str, before: Thing, after: Thing, secret: bool) -> Result<bool> {
        if let Thing::Directory { .. } = before {
            bail!("{path} is a directory, not a file");
        }
        if before == after {
            return Ok(false);
        }
        self.changed.push(path.to_owned());
        if self.dry_run {
            show(path, &before, &after, secret);
            return Ok(true);
        }
        interrupt::check()?;
        let file = self.machine.path(path);
        if after != Thing::Absent {
            self.make_parents(path)?;
        }
        let (undo_file, undo_before) = (file.clone(), before.clone());
        self.on_undo(format!("put back {path}"), move || undo_before.put(&undo_file));
        after.put(&file).with_context(|| format!("cannot change {path}"))?;
        if after != Thing::Absent && selinux::is_on(&self.machine) {
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
            let made = directory.clone();
            fs::create_dir(&directory).with_context(|| format!("cannot make {name}"))?;
            self.on_undo(format!("remove {name}"), move || Ok(fs::remove_dir(made)?));
            fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
            if selinux::is_on(&self.machine) {
                selinux::restore_label(&directory)?;
            }
            // The root of a tree, and a directory that stays when we are gone.
            if parent != Path::new("/") {
                self.manifest.record(&name, Thing::Absent, Mark::Directory);
            }
        }
        Ok(())
    }

    fn undo_directory(&mut self, path: &str, found: &Thing) {
        let (directory, found) = (self.machine.path(path), found.clone());
        self.on_undo(format!("put back {path}"), move || {
            fs::create_dir(&directory)?;
            if let Thing::Directory { mode } = found {
                fs::set_permissions(&directory, Permissions::from_mode(mode))?;
            }
            Ok(())
        });
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
        if self.dry_run || self.changed.is_empty() || self.undo.is_empty() {
            return;
        }
        eprintln!("Undoing what was changed …");
        while let Some(Undo { what, action }) = self.undo.pop() {
            if let Err(error) = action() {
                eprintln!("could not undo: {what}: {error:#}");
            }
        }
    }
}

struct Undo {
    what: String,
    action: Box<dyn FnOnce() -> Result<()>>,
}

/// What was changed on a machine and what was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Oldest first.
    #[serde(default)]
    files: Vec<Entry>,
    /// Units that were enabled.
    #[serde(default)]
    pub enabled: Vec<String>,
    /// Groups that a user was put into.
    #[serde(default)]
    pub memberships: Vec<Membership>,
}

/// A user who was put into a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The user's name.
    pub user: String,
    /// The group's name.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    now: Mark,
    before: Thing,
}

/// What is recognised again: a file by its text, not by its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mark {
    Absent,
    Directory,
    Symlink { target: PathBuf },
    File { sha256: String },
}

impl Manifest {
    /// The paths that were changed, oldest first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|entry| entry.path.as_str())
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.enabled.is_empty() && self.memberships.is_empty()
    }

    fn read(machine: &Machine) -> Result<Self> {
        let file = machine.path(MANIFEST);
        let metadata = match fs::symlink_metadata(&file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty()),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {MANIFEST}")),
        };
        // The directory is the agent's: what it could have put there is not
        // followed.
        if !metadata.is_file() || users::are_root() && metadata.uid() != 0 {
            bail!("{MANIFEST} is not a file of root's own; look at it, then remove it");
        }
        let text = match fs::read_to_string(&file) {
            // Root's own secret; without it a dry run can still show most.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Self::empty());
            }
            result => result.with_context(|| format!("cannot read {MANIFEST}"))?,
        };
        let manifest: Self = serde_json::from_str(&text)
            .with_context(|| format!("{MANIFEST} is damaged; look at it, then remove it"))?;
        if manifest.version != VERSION {
            bail!("{MANIFEST} was written by another version of scalr-agent-setup; use that one");
        }
        Ok(manifest)
    }

    fn write(&self, machine: &Machine) -> Result<()> {
        let file = machine.path(MANIFEST);
        if self.is_empty() {
            return match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {MANIFEST}"))
                }
                _ => Ok(()),
            };
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let directory = file.parent().context("the manifest has a directory")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let (uid, gid) = Thing::Absent.owner();
        Thing::File { mode: 0o600, uid, gid, text }
            .put(&file)
            .with_context(|| format!("cannot write {MANIFEST}"))
    }

    fn empty() -> Self {
        Self { version: VERSION, files: Vec::new(), enabled: Vec::new(), memberships: Vec::new() }
    }

    fn entry(&self, path: &str) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }

    fn record(&mut self, path: &str, before: Thing, now: Mark) {
        if let Some(entry) = self.files.iter_mut().find(|entry| entry.path == path) {
            entry.now = now;
        } else {
            self.files.push(Entry { path: path.to_owned(), now, before });
        }
        // What is as it was before we came is no change of ours.
        self.files.retain(|entry| entry.path != path || entry.before.mark() != entry.now);
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Thing {
    Absent,
    Directory { mode: u32 },
    Symlink { target: PathBuf },
    File { mode: u32, uid: u32, gid: u32, text: String },
}

impl Thing {
    fn at(path: &Path) -> Result<Self> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        };
        let mode = metadata.mode() & 0o7777;
        let kind = metadata.file_type();
        Ok(if kind.is_symlink() {
            Self::Symlink { target: fs::read_link(path)? }
        } else if kind.is_dir() {
            Self::Directory { mode }
        } else if kind.is_file() {
            let text = fs::read_to_string(path).with_context(|| {
                format!("cannot read {}, so it is left as it is", path.display())
            })?;
            Self::File { mode, uid: metadata.uid(), gid: metadata.gid(), text }
        } else {
            bail!("{} is neither a file nor a link, so it is left as it is", path.display());
        })
    }

    /// Puts it at `path` in one step, whatever file or link is there.
    fn put(&self, path: &Path) -> Result<()> {
        let directory = path.parent().context("a file has a directory")?;
        match self {
            Self::Absent => match fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => result?,
            },
            Self::Directory { .. } => bail!("{} cannot become a directory", path.display()),
            Self::Symlink { target } => {
                temporary().make_in(directory, |link| symlink(target, link))?.persist(path)?;
            }
            Self::File { mode, uid, gid, text } => {
                // In the same directory: a rename from elsewhere keeps the wrong
                // SELinux label.
                let mut file = temporary().tempfile_in(directory)?;
                file.write_all(text.as_bytes())?;
                if users::are_root() {
                    chown(file.path(), Some(*uid), Some(*gid))?;
                }
                file.as_file().set_permissions(Permissions::from_mode(*mode))?;
                file.as_file().sync_all()?;
                file.persist(path)?;
            }
        }
        fs::File::open(directory)?.sync_all()?;
        Ok(())
    }

    fn mark(&self) -> Mark {
        match self {
            Self::Absent => Mark::Absent,
            Self::Directory { .. } => Mark::Directory,
            Self::Symlink { target } => Mark::Symlink { target: target.clone() },
            Self::File { text, .. } => Mark::File { sha256: hex::encode(Sha256::digest(text)) },
        }
    }

    /// Whose it is, or would be if we made it.
    fn owner(&self) -> (u32, u32) {
        match self {
            Self::File { uid, gid, .. } => (*uid, *gid),
            _ => users::our_ids(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Absent | Self::Directory { .. } => String::new(),
            Self::Symlink { target } => format!("-> {}\n", target.display()),
            Self::File { text, .. } => text.clone(),
        }
    }
}

/// A hidden name that no directory of drop-ins takes for one.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".scalr-agent-setup.").suffix(".tmp");
    builder
}

/// Prints a unified diff; of a secret only that it would change.
fn show(path: &str, before: &Thing, after: &Thing, secret: bool) {
    let name = |thing: &Thing| match thing {
        Thing::Absent => "/dev/null".to_owned(),
        Thing::File { mode, .. } => format!("{path}\tmode {mode:04o}"),
        _ => path.to_owned(),
    };
    println!("--- {}\n+++ {}", name(before), name(after));
    if secret {
        println!("(not shown: it holds a secret)");
        return;
    }
    let (old, new) = (before.text(), after.text());
    let diff = TextDiff::from_lines(&old, &new);
    for hunk in diff.unified_diff().iter_hunks() {
        println!("{}", hunk.header());
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', AnsiColor::Red.on_default()),
                ChangeTag::Insert => ('+', AnsiColor::Green.on_default()),
                ChangeTag::Equal => (' ', Style::new()),
            };
            println!("{style}{sign}{}{style:#}", change.value().trim_end_matches('\n'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/scalr-agent/some.conf";

    struct Tree {
        directory: tempfile::TempDir,
        machine: Machine,
    }

    impl Tree {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let machine = Machine::at(directory.path());
            Self { directory, machine }
        }

        fn changes(&self) -> Changes {
            Changes::begin(&self.machine, false).unwrap()
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.machine.path(path)).unwrap()
        }

        /// Every path below the root with its kind, mode and content.
        fn snapshot(&self) -> Vec<String> {
            let mut all = Vec::new();
            let mut open = vec![self.directory.path().to_owned()];
            while let Some(path) = open.pop() {
                let thing = Thing::at(&path).unwrap();
                if let Thing::Directory { .. } = thing {
                    open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
                all.push(format!("{} {thing:?}", path.display()));
            }
            all.sort();
            all
        }
    }

    #[test]
    fn the_same_again_is_no_change() {
        let tree = Tree::new();
        let mut changes = tree.changes();
        assert!(changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap());
        assert!(!changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap());
        changes.commit().unwrap();
        let mut again = tree.changes();
        assert!(!again.write(FILE, "one\n", Attributes::PUBLIC).unwrap());
        assert!(again.changed().is_empty());
        assert!(again.write(FILE, "one\n", Attributes::SECRET).unwrap(), "the mode differs");
    }

    #[test]
    fn what_is_not_committed_never_happened() {
        let tree = Tree::new();
        fs::create_dir_all(tree.machine.path("/etc")).unwrap();
        fs::write(tree.machine.path("/etc/old"), "old\n").unwrap();
        fs::set_permissions(tree.machine.path("/etc/old"), Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/old", tree.machine.path("/etc/link")).unwrap();
        let before = tree.snapshot();

        let mut changes = tree.changes();
        changes.write("/etc/old", "new\n", Attributes::PUBLIC).unwrap();
        changes.write(FILE, "one\n", Attributes::SECRET).unwrap();
        changes.symlink("/etc/link", "/etc/elsewhere").unwrap();
        changes.remove("/etc/old").unwrap();
        let error = changes.act("fail", || bail!("it broke"), || Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "it broke");
        drop(changes);

        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn a_step_that_fails_leaves_no_trace() {
        let tree = Tree::new();
        fs::create_dir_all(tree.machine.path("/etc/a-directory")).unwrap();
        let before = tree.snapshot();
        let mut changes = tree.changes();
        changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
        let error = changes.write("/etc/a-directory", "x", Attributes::PUBLIC).unwrap_err();
        assert_eq!(error.to_string(), "/etc/a-directory is a directory, not a file");
        drop(changes);
        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn undoing_goes_backwards() {
        let tree = Tree::new();
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let mut changes = tree.changes();
        for step in ["first", "second"] {
            let order = order.clone();
            changes
                .act(
                    step,
                    || Ok(()),
                    move || {
                        order.borrow_mut().push(step);
                        Ok(())
                    },
                )
                .unwrap();
        }
        drop(changes);
        assert_eq!(*order.borrow(), ["second", "first"]);
    }

    #[test]
    fn what_was_committed_can_be_reversed() {
        let tree = Tree::new();
        fs::create_dir_all(tree.machine.path("/etc")).unwrap();
        fs::create_dir_all(tree.machine.path("/var/lib/scalr-agent")).unwrap();
        fs::write(tree.machine.path("/etc/old"), "old\n").unwrap();
        let before = tree.snapshot();

        for text in ["one\n", "two\n"] {
            let mut changes = tree.changes();
            changes.write(FILE, text, Attributes::PUBLIC).unwrap();
            changes.write("/etc/old", text, Attributes::PUBLIC).unwrap();
            changes.symlink("/etc/systemd/x/proxy.conf", FILE).unwrap();
            changes.commit().unwrap();
        }
        assert_eq!(tree.read("/etc/old"), "two\n");
        assert!(tree.changes().is_ours(FILE).unwrap());

        let mut changes = tree.changes();
        assert!(changes.reverse(&[]).unwrap().is_empty());
        changes.commit().unwrap();
        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn somebody_elses_edit_is_left_alone() {
        let tree = Tree::new();
        let mut changes = tree.changes();
        changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
        changes.commit().unwrap();
        fs::write(tree.machine.path(FILE), "edited\n").unwrap();

        let mut changes = tree.changes();
        assert!(!changes.is_ours(FILE).unwrap());
        assert_eq!(changes.reverse(&[]).unwrap(), [FILE]);
        changes.commit().unwrap();
        assert_eq!(tree.read(FILE), "edited\n");
    }

    #[test]
    fn what_is_back_to_what_it_was_is_forgotten() {
        let tree = Tree::new();
        fs::create_dir_all(tree.machine.path("/etc/scalr-agent")).unwrap();
        for write in [true, false] {
            let mut changes = tree.changes();
            if write {
                changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
            } else {
                changes.remove(FILE).unwrap();
            }
            changes.commit().unwrap();
        }
        assert!(!tree.machine.path(MANIFEST).exists());
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let tree = Tree::new();
        let before = tree.snapshot();
        let mut changes = Changes::begin(&tree.machine, true).unwrap();
        assert!(changes.write(FILE, "one\n", Attributes::SECRET).unwrap());
        changes.act("start it", || bail!("was done"), || Ok(())).unwrap();
        assert_eq!(changes.changed(), [FILE, "start it"]);
        changes.commit().unwrap();
        assert_eq!(tree.snapshot(), before);
    }

    #[test]
    fn a_secret_is_roots_alone_and_so_is_the_manifest() {
        let tree = Tree::new();
        let mut changes = tree.changes();
        changes.write(FILE, "password\n", Attributes::SECRET).unwrap();
        changes.commit().unwrap();
        for path in [FILE, MANIFEST] {
            let mode = fs::metadata(tree.machine.path(path)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{path}");
        }
    }
}

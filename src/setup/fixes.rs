//! What the commands of `check --fix` have changed: recorded while they run, listed by `status`
//! and `uninstall`, and undone on request.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::context::RECORDS;
use cli::untrusted_file;
use cli::whole_file::WholeFile;
use cli::{eprintln, println};
use config::layout::{ENGINE_PROXY_DROP_IN, SETUP_FIXES};
use host::changes::{Changes, FileChange, Snapshot};
use host::command::CommandExt as _;
use host::machine::Machine;
use host::os::Os;
use host::packages::{self, Packages};

/// Where the commands change files.
const PLACES: [&str; 6] =
    ["/etc/apt", "/etc/dnf", "/etc/yum", "/etc/yum.conf", "/etc/yum.repos.d", ENGINE_PROXY_DROP_IN];

/// All fixes that were made and not undone, oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Fixes {
    made: Vec<Fix>,
}

/// A command that was run, and its effect.
#[derive(Debug, Serialize, Deserialize)]
struct Fix {
    check: String,
    command: String,
    failed: bool,
    files: Vec<FileChange>,
    packages: Vec<String>,
    /// A command that undoes it, where its effect is in no file of [`PLACES`].
    undo: Option<String>,
    /// While it runs, and for good if it was killed.
    before: Option<State>,
}

/// What a command may change.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    files: Snapshot,
    /// `None` where the package manager cannot be asked.
    packages: Option<Packages>,
}

/// A fix for people and for `status --format json`.
#[derive(Debug, Serialize)]
pub(crate) struct ListedFix {
    check: String,
    command: String,
    failed: bool,
    files: Vec<String>,
    packages: Vec<String>,
    undo: Option<String>,
}

impl Fixes {
    /// Those of a machine.
    ///
    /// # Errors
    /// The record can't be read.
    pub(crate) fn on(machine: &Machine) -> Result<Self> {
        let text = match untrusted_file::read_text(machine.entry(SETUP_FIXES)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            result => result.with_context(|| format!("cannot read {SETUP_FIXES}"))?,
        };
        let mut fixes: Self = serde_json::from_str(&text)
            .with_context(|| format!("{SETUP_FIXES} is damaged; look at it, then remove it"))?;
        for fix in &mut fixes.made {
            fix.settle(machine);
        }
        Ok(fixes)
    }

    /// Runs `command`, which fixes a problem of `check`, and records what it changes: before
    /// it runs, so that one that is killed is recorded, too.
    ///
    /// # Errors
    /// The command fails, or nothing can be recorded, so that it is not run.
    pub(crate) fn run(machine: &Machine, check: &str, command: &str) -> Result<()> {
        let mut fixes = Self::on(machine)?;
        fixes.made.push(Fix {
            check: check.to_owned(),
            command: command.to_owned(),
            failed: true,
            files: Vec::new(),
            packages: Vec::new(),
            undo: undo_of(command),
            before: Some(State::of(machine)),
        });
        fixes.save(machine)?;
        let result = shell(command).run();
        if let Some(fix) = fixes.made.last_mut() {
            fix.failed = result.is_err();
            fix.settle(machine);
        }
        fixes.made.retain(Fix::has_effect);
        fixes.save(machine)?;
        Ok(result?)
    }

    /// Undoes them, the newest first, where `consent` to the question agrees. One that can't
    /// be undone stays recorded.
    ///
    /// # Errors
    /// One can't be undone, or an answer can't be read.
    pub(crate) fn undo(
        machine: &Machine,
        dry_run: bool,
        mut consent: impl FnMut(&str) -> Result<bool>,
    ) -> Result<Vec<String>> {
        let mut fixes = Self::on(machine)?;
        let (mut undone, mut is_left) = (Vec::new(), false);
        for newest in (0..fixes.made.len()).rev() {
            let fix = &fixes.made[newest];
            if !consent(&format!("Undo the fix of {} by `{}`?", fix.check, fix.command))? {
                continue;
            }
            match fix.undo(machine, dry_run) {
                Ok(()) => undone.push(format!("undo the fix `{}`", fix.command)),
                Err(error) => {
                    eprintln!("cannot undo `{}`: {error:#}", fix.command);
                    is_left = true;
                    continue;
                }
            }
            if !dry_run {
                fixes.made.remove(newest);
                fixes.save(machine)?;
            }
        }
        if is_left {
            bail!(
                "not all fixes are undone; fix the cause above, then run `scalr-agent-setup check \
                 --undo-fixes`"
            );
        }
        Ok(undone)
    }

    /// Forgets them: what they changed stays.
    ///
    /// # Errors
    /// The record can't be removed.
    pub(crate) fn forget(machine: &Machine) -> Result<()> {
        Self::default().save(machine)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    pub(crate) fn listed(self) -> Vec<ListedFix> {
        let listed = |fix: Fix| ListedFix {
            check: fix.check,
            command: fix.command,
            failed: fix.failed,
            files: fix.files.iter().map(|change| change.path().to_owned()).collect(),
            packages: fix.packages,
            undo: fix.undo,
        };
        self.made.into_iter().map(listed).collect()
    }

    fn save(&self, machine: &Machine) -> Result<()> {
        let file = machine.entry(SETUP_FIXES);
        let cannot = || format!("cannot write {SETUP_FIXES}");
        if self.made.is_empty() {
            return match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {SETUP_FIXES}"))
                }
                _ => Ok(()),
            };
        }
        // Definitions of repositories may hold passwords: for root alone.
        WholeFile::at(&file).write(serde_json::to_string(self)?).with_context(cannot)
    }
}

impl Fix {
    /// Turns what was there before into what has changed.
    fn settle(&mut self, machine: &Machine) {
        let Some(before) = self.before.take() else { return };
        let now = State::of(machine);
        if self.undo.is_none() {
            self.files = before.files.changes_until(&now.files);
        }
        if let (Some(before), Some(now)) = (&before.packages, &now.packages) {
            self.packages = now.added_since(before).map(str::to_owned).collect();
        }
    }

    fn has_effect(&self) -> bool {
        !self.files.is_empty() || !self.packages.is_empty() || self.undo.is_some()
    }

    fn undo(&self, machine: &Machine, dry_run: bool) -> Result<()> {
        let mut changes = Changes::begin(machine, &RECORDS, dry_run)?;
        for change in self.files.iter().rev() {
            if !changes.put_back(change)? {
                println!("{} was edited since the fix, so it stays as it is", change.path());
            }
        }
        if let Some(undo) = &self.undo {
            changes.run(format!("undo the fix `{}`", self.command), shell(undo), None)?;
        }
        changes.finish()?;
        if self.packages.is_empty() {
            return Ok(());
        }
        let remove = packages::removal_of_unneeded(Os::of(machine)?.family, &self.packages);
        let names = self.packages.join(", ");
        if dry_run {
            println!("would remove {names}: {}", remove.line());
        } else {
            let mut remove = remove;
            match remove.run() {
                Ok(()) => println!("Removed {names}"),
                // Another package may need them by now.
                Err(error) => println!("{names} stay installed: {error}"),
            }
        }
        Ok(())
    }
}

impl State {
    fn of(machine: &Machine) -> Self {
        let installed = || Packages::installed(Os::of(machine)?.family);
        let packages = machine.is_this_one().then(installed).and_then(Result::ok);
        Self { files: Snapshot::of(machine, &PLACES), packages }
    }
}

impl ListedFix {
    /// What it changed, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let failed = if self.failed { " (it failed)" } else { "" };
        let mut lines = vec![format!("{}: `{}`{failed}", self.check, self.command)];
        lines.extend(self.files.iter().map(|path| format!("  changed {path}")));
        if !self.packages.is_empty() {
            lines.push(format!("  installed {}", self.packages.join(", ")));
        }
        lines.extend(self.undo.iter().map(|undo| format!("  `{undo}` undoes it")));
        lines
    }
}

/// What undoes a command whose effect is in no file: a subscription's choice of repositories
/// is kept by its server, the option of a mount by the kernel.
fn undo_of(command: &str) -> Option<String> {
    let replaced = [
        ("subscription-manager repos --enable=", "subscription-manager repos --disable="),
        ("mount -o remount,exec ", "mount -o remount,noexec "),
    ];
    replaced.iter().find_map(|(done, undo)| Some(format!("{undo}{}", command.strip_prefix(done)?)))
}

fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: &str = "/etc/yum.repos.d/CentOS-Base.repo";

    struct Tree {
        _folder: tempfile::TempDir,
        machine: Machine,
    }

    impl Tree {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let machine = Machine::at(folder.path());
            for directory in ["/etc/yum.repos.d", "/var/lib"] {
                fs::create_dir_all(machine.path(directory)).unwrap();
            }
            fs::write(machine.path(REPOSITORY), "enabled=0\n").unwrap();
            Self { _folder: folder, machine }
        }

        fn run(&self, command: &str) -> Result<()> {
            Fixes::run(&self.machine, "container-selinux", command)
        }

        fn shown(&self, path: &str) -> String {
            self.machine.path(path).display().to_string()
        }

        fn listed(&self) -> Vec<ListedFix> {
            Fixes::on(&self.machine).unwrap().listed()
        }

        fn text(&self) -> String {
            fs::read_to_string(self.machine.path(REPOSITORY)).unwrap()
        }

        fn undo(&self) -> Result<Vec<String>> {
            Fixes::undo(&self.machine, false, |_| Ok(true))
        }
    }

    #[test]
    fn a_changed_repository_is_listed_and_put_back_with_the_copy_that_was_made() {
        let tree = Tree::new();
        let file = tree.shown(REPOSITORY);
        let line = format!("cp -p {file} {file}.kept && sed -i s/0/1/ {file}");
        tree.run(&line).unwrap();
        assert_eq!(tree.text(), "enabled=1\n");
        let listed = tree.listed();
        assert_eq!(listed[0].files, [REPOSITORY, &format!("{REPOSITORY}.kept")]);
        assert!(!listed[0].failed && listed[0].command == line);
        assert_eq!(tree.undo().unwrap().len(), 1);
        assert_eq!(tree.text(), "enabled=0\n");
        assert!(!tree.machine.path(format!("{REPOSITORY}.kept")).exists());
        assert!(tree.listed().is_empty() && !tree.machine.path(SETUP_FIXES).exists());
        assert!(!tree.machine.path(config::layout::SETUP_MANIFEST).exists());
    }

    #[test]
    fn a_fix_that_fails_half_way_is_recorded() {
        let tree = Tree::new();
        tree.run(&format!("sed -i s/0/1/ {}; exit 3", tree.shown(REPOSITORY))).unwrap_err();
        let listed = tree.listed();
        assert!(listed[0].failed && listed[0].files == [REPOSITORY], "{listed:?}");
        assert!(listed[0].lines()[0].ends_with("(it failed)"));
        tree.undo().unwrap();
        assert_eq!(tree.text(), "enabled=0\n");
    }

    #[test]
    fn a_fix_that_is_killed_is_recorded() {
        let tree = Tree::new();
        // As it is while the command runs.
        let record = tree.shown(SETUP_FIXES);
        let file = tree.shown(REPOSITORY);
        tree.run(&format!("sed -i s/0/1/ {file}; cp {record} {record}.killed")).unwrap();
        fs::rename(format!("{record}.killed"), &record).unwrap();
        let listed = tree.listed();
        assert!(listed[0].failed && listed[0].files == [REPOSITORY], "{listed:?}");
    }

    #[test]
    fn a_file_that_was_edited_since_stays_and_later_fixes_are_undone_first() {
        let tree = Tree::new();
        let file = tree.shown(REPOSITORY);
        tree.run(&format!("echo one >>{file}")).unwrap();
        tree.run(&format!("echo two >>{file}")).unwrap();
        tree.undo().unwrap();
        assert_eq!(tree.text(), "enabled=0\n");
        tree.run(&format!("echo one >>{file}")).unwrap();
        fs::write(&file, "mine\n").unwrap();
        tree.undo().unwrap();
        assert_eq!(tree.text(), "mine\n");
        assert!(tree.listed().is_empty());
    }

    #[test]
    fn a_command_without_a_lasting_effect_is_not_recorded() {
        let tree = Tree::new();
        tree.run("true").unwrap();
        tree.run("false").unwrap_err();
        assert!(!tree.machine.path(SETUP_FIXES).exists());
    }

    #[test]
    fn a_refused_or_tried_undo_changes_nothing() {
        let tree = Tree::new();
        tree.run(&format!("sed -i s/0/1/ {}", tree.shown(REPOSITORY))).unwrap();
        assert!(Fixes::undo(&tree.machine, false, |_| Ok(false)).unwrap().is_empty());
        assert_eq!(Fixes::undo(&tree.machine, true, |_| Ok(true)).unwrap().len(), 1);
        assert!(tree.text() == "enabled=1\n" && tree.listed().len() == 1);
    }

    #[test]
    fn an_effect_outside_of_files_is_undone_by_a_command() {
        assert_eq!(
            undo_of("subscription-manager repos --enable=rhel-7-server-extras-rpms").unwrap(),
            "subscription-manager repos --disable=rhel-7-server-extras-rpms"
        );
        assert_eq!(undo_of("mount -o remount,exec /tmp").unwrap(), "mount -o remount,noexec /tmp");
        assert_eq!(undo_of("yum-config-manager --enable extras"), None);
    }
}

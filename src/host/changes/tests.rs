use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::{Duration, Instant};

use super::*;
use crate::os::Family;

static RECORDS: Records = Records {
    manifest: "/var/lib/scalr-agent/setup.json",
    unfinished: "/var/lib/scalr-agent-setup.unfinished",
    lock: "/run/scalr-agent-setup.lock",
};

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
        self.once_free(|| Changes::begin(&self.machine, &RECORDS, false))
    }

    fn recover(&self) -> bool {
        self.once_free(|| recover(&self.machine, &RECORDS))
    }

    /// Waits for the lock: a command that another test starts has it too, from its fork
    /// to its exec.
    fn once_free<T>(&self, mut act: impl FnMut() -> Result<T>) -> T {
        let since = Instant::now();
        loop {
            match act() {
                Err(error) if since.elapsed() < Duration::from_secs(30) => {
                    assert!(error.to_string().contains("another scalr-agent-setup"), "{error:#}");
                    std::thread::yield_now();
                }
                result => return result.unwrap(),
            }
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.machine.path(path)).unwrap()
    }

    /// Every path below the root with its kind, mode and content.
    fn snapshot(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![self.directory.path().to_owned()];
        while let Some(path) = open.pop() {
            let state = PathState::at(&path).unwrap();
            if let PathState::Directory { .. } = state {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            all.push(format!("{} {state:?}", path.display()));
        }
        all.sort();
        all
    }
}

#[test]
fn a_folder_that_was_made_goes_again_and_one_that_could_not_be_made_keeps_nothing() {
    let tree = Tree::new();
    for (path, is_made) in [("/made", true), ("/missing/folder", false)] {
        let mut changes = tree.changes();
        assert_eq!(changes.make_directory(Path::new(path)).is_ok(), is_made);
        assert_eq!(tree.machine.path(path).is_dir(), is_made);
        drop(changes);
        assert!(!tree.machine.path(path).exists());
        assert!(!tree.machine.path(RECORDS.unfinished).exists(), "all was undone");
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
    let error = changes.act("fail", || bail!("it broke"), None).unwrap_err();
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
    let said = "/etc/a-directory is a directory, not a file\nRemove it, and run this again.";
    assert_eq!(error.to_string(), said);
    drop(changes);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn undoing_goes_backwards() {
    let tree = Tree::new();
    fs::create_dir_all(tree.machine.path("/var/lib")).unwrap();
    let log = tree.directory.path().join("log");
    let say = |text: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("echo {text} $WHO >>{}", log.display())).env("WHO", "we");
        command
    };
    let mut changes = tree.changes();
    for step in ["first", "second"] {
        changes.run(step, say(step), Some(say(&format!("not-{step}")))).unwrap();
    }
    drop(changes);
    let said = fs::read_to_string(log).unwrap();
    assert_eq!(said, "first we\nsecond we\nnot-second we\nnot-first we\n");
}

#[test]
fn what_was_killed_half_way_is_undone_by_the_next() {
    let tree = Tree::new();
    for directory in ["/etc", "/run", "/var/lib"] {
        fs::create_dir_all(tree.machine.path(directory)).unwrap();
    }
    fs::write(tree.machine.path("/etc/old"), "old\n").unwrap();
    drop(tree.changes());
    let before = tree.snapshot();

    let mut killed = tree.changes();
    killed.write("/etc/old", "new\n", Attributes::PUBLIC).unwrap();
    killed.write(FILE, "one\n", Attributes::SECRET).unwrap();
    assert!(!is_interrupted(&tree.machine, &RECORDS), "it is still at work");
    assert!(Changes::begin(&tree.machine, &RECORDS, false).is_err(), "so another one can't begin");
    // As SIGKILL would: nothing is undone, only the lock is free.
    killed.unfinished = Unfinished::default();
    drop(killed);
    assert_ne!(tree.snapshot(), before);
    tree.once_free(|| match is_interrupted(&tree.machine, &RECORDS) {
        true => Ok(()),
        false => bail!("another scalr-agent-setup may have the lock, or nothing is unfinished"),
    });
    let unfinished = fs::metadata(tree.machine.path(RECORDS.unfinished)).unwrap();
    assert_eq!(unfinished.permissions().mode() & 0o777, 0o600);

    // Somebody has edited one of the files since.
    fs::write(tree.machine.path("/etc/old"), "edited\n").unwrap();
    assert!(tree.recover());
    assert!(!tree.recover());
    assert_eq!(tree.read("/etc/old"), "edited\n");
    fs::write(tree.machine.path("/etc/old"), "old\n").unwrap();
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_cannot_be_undone_is_kept_for_another_try() {
    let tree = Tree::new();
    for directory in ["/etc", "/run", "/var/lib"] {
        fs::create_dir_all(tree.machine.path(directory)).unwrap();
    }
    drop(tree.changes());
    let before = tree.snapshot();
    let blocked = tree.machine.path("/etc/blocked");
    let undo = || {
        let mut command = Command::new("test");
        command.args(["!", "-e"]).arg(&blocked);
        command
    };
    let mut changes = tree.changes();
    changes.run("block", Command::new("true"), Some(undo())).unwrap();
    changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
    fs::write(&blocked, "").unwrap();
    drop(changes);

    assert!(!tree.machine.path(FILE).exists(), "what can be undone is");
    tree.once_free(|| match Changes::begin(&tree.machine, &RECORDS, false) {
        Err(error) if error.to_string().contains("scalr-agent-setup recover") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => panic!("nothing new is begun before the rest is undone"),
    });
    fs::remove_file(&blocked).unwrap();
    assert!(tree.recover());
    assert_eq!(tree.snapshot(), before);
    assert!(!tree.recover());
}

#[test]
fn what_cannot_be_undone_can_be_forgotten() {
    let tree = Tree::new();
    let mut changes = tree.changes();
    changes.run("one", Command::new("true"), Some(Command::new("false"))).unwrap();
    changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
    drop(changes);
    assert!(tree.machine.path(RECORDS.unfinished).exists());
    assert!(tree.once_free(|| discard(&tree.machine, &RECORDS)));
    assert!(!tree.machine.path(RECORDS.unfinished).exists());
    drop(tree.changes());
}

#[test]
fn the_newest_step_may_never_have_been_done() {
    let tree = Tree::new();
    let mut changes = tree.changes();
    changes.run("one", Command::new("false"), Some(Command::new("false"))).unwrap_err();
    drop(changes);
    assert!(!tree.machine.path(RECORDS.unfinished).exists());
}

#[test]
fn what_was_killed_while_it_wrote_leaves_no_temporary_file() {
    let tree = Tree::new();
    fs::create_dir_all(tree.machine.path("/etc")).unwrap();
    fs::create_dir_all(tree.machine.path("/var/lib")).unwrap();
    let before = tree.snapshot();

    let mut killed = tree.changes();
    killed.write(FILE, "one\n", Attributes::SECRET).unwrap();
    // As SIGKILL would between the temporary file and the step that makes it ours.
    let file = tree.machine.path(FILE);
    let name = path_state::temporary_name(&file);
    fs::rename(&file, file.with_file_name(&name)).unwrap();
    killed.unfinished = Unfinished::default();
    drop(killed);
    // The same while it noted the first step of all.
    let unfinished = tree.machine.path(RECORDS.unfinished);
    let noted = unfinished.with_file_name(path_state::temporary_name(&unfinished));
    fs::write(noted, "half").unwrap();

    assert!(tree.recover());
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_file_that_is_as_it_was_is_no_change() {
    let tree = Tree::new();
    let mut changes = tree.changes();
    changes.write(FILE, "one\n", Attributes::PUBLIC).unwrap();
    changes.write(FILE, "two\n", Attributes::PUBLIC).unwrap();
    assert_eq!(changes.changed(), [FILE]);
    assert!(changes.remove(FILE).unwrap());
    assert!(changes.changed().is_empty(), "{:?}", changes.changed());
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
    assert!(!tree.machine.path(RECORDS.manifest).exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let mut changes = Changes::begin(&tree.machine, &RECORDS, true).unwrap();
    assert!(changes.write(FILE, "one\n", Attributes::SECRET).unwrap());
    changes.act("start it", || bail!("was done"), None).unwrap();
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
    for path in [FILE, RECORDS.manifest] {
        let mode = fs::metadata(tree.machine.path(path)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

#[test]
fn a_package_that_is_not_there_afterwards_was_not_installed() {
    let tree = Tree::new();
    let mut changes = tree.changes();
    let before = Packages::installed(Family::Debian).unwrap();
    let nothing = Command::new("true");
    let installation = Installation::new("no-such-package", &[], &nothing, &nothing);
    let error = changes.install(&before, "install it", installation, || Ok(())).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot install the package no-such-package: "), "{text}");
    assert!(changes.changed().is_empty());
}

#[test]
fn an_error_names_the_file_that_was_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("etc"), "a file").unwrap();
    let path = folder.path().join("etc/some.conf");
    for state in [
        PathState::Symlink { target: "/elsewhere".into() },
        PathState::File { mode: 0o600, uid: 0, gid: 0, text: String::new() },
    ] {
        let error = state.put(&path).unwrap_err();
        let named = format!("cannot write {}", path.display());
        assert!(error.to_string().starts_with(&named), "{error:#}");
    }
}

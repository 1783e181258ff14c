//! A tree whose symbolic links lead out of it: each leads where it would in a chroot of it.

use std::fs;
use std::path::Path;

use crate::tree::{Said, Tree};

const SETTINGS: &str = "/etc/scalr-agent/agent.toml";

/// A folder of the real machine, with a file.
struct Outside {
    folder: tempfile::TempDir,
}

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agent.toml"), "concurrency = 7\n").unwrap();
        Self { folder }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Nothing was added, changed or removed.
    fn assert_untouched(&self) {
        let names: Vec<_> = self
            .folder
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["agent.toml"]);
        let text = fs::read_to_string(self.folder.path().join("agent.toml")).unwrap();
        assert_eq!(text, "concurrency = 7\n");
    }
}

fn install(tree: &Tree) -> Said {
    let token = [("SCALR_AGENT_TOKEN", "the-token")];
    tree.setup_with(&["install", "--url", "https://pools.example.com"], &token, "")
}

/// Installs in a tree that links `link` to `target`, and that has a folder of the same
/// name as the one outside.
fn installed(outside: &Outside, link: &str, target: &str) -> Tree {
    let tree = Tree::new();
    fs::create_dir_all(tree.path(outside.path())).unwrap();
    tree.link(link, target);
    let said = install(&tree);
    assert_eq!(said.code, 0, "{link} -> {target}: {}", said.all());
    outside.assert_untouched();
    let status = tree.setup(&["status", "--format", "json"]);
    assert!(status.stdout.contains("https://pools.example.com"), "{}", status.all());
    tree
}

#[test]
fn a_folder_that_leads_out_of_the_tree_is_made_inside_of_it() {
    let outside = Outside::new();
    let up = format!("../../../../../../../../..{}", outside.path());
    for target in [outside.path(), up.as_str()] {
        let tree = installed(&outside, "/etc/scalr-agent", target);
        assert!(tree.path(outside.path()).join("agent.toml").is_file(), "in the tree: {target}");
        let said = tree.setup(&["uninstall", "--purge"]);
        assert_eq!(said.code, 0, "{}", said.all());
        outside.assert_untouched();
        assert!(!tree.path(outside.path()).join("agent.toml").exists());
    }
}

#[test]
fn a_folder_above_that_leads_out_of_the_tree_is_not_followed() {
    let outside = Outside::new();
    let tree = installed(&outside, "/etc/systemd", outside.path());
    let inside = tree.path(outside.path()).join("system/scalr-agent.service.d/hardening.conf");
    assert!(inside.is_file(), "{}", inside.display());
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    outside.assert_untouched();
}

#[test]
fn a_file_that_leads_out_of_the_tree_is_replaced_and_not_read() {
    let outside = Outside::new();
    let target = format!("{}/agent.toml", outside.path());
    let tree = installed(&outside, SETTINGS, &target);
    assert!(tree.path(SETTINGS).symlink_metadata().unwrap().is_file());
    assert!(!tree.read(SETTINGS).contains("concurrency"), "{}", tree.read(SETTINGS));
}

#[test]
fn the_release_behind_an_absolute_link_is_the_trees_own() {
    let tree = Tree::new();
    fs::rename(tree.path("/etc/os-release"), tree.path("/usr/lib/os-release")).unwrap();
    tree.link("/etc/os-release", "/usr/lib/os-release");
    let said = tree.setup(&["check", "--format", "json", "--only", "os"]);
    assert!(said.stdout.contains("CentOS Linux 8"), "{}", said.all());
}

#[test]
fn data_that_lead_out_of_the_tree_are_not_purged_there() {
    let outside = Outside::new();
    let theirs = outside.folder.path().join("scalr-agent/tasks");
    fs::create_dir_all(&theirs).unwrap();
    let tree = Tree::new();
    fs::remove_dir_all(tree.path("/var/lib")).unwrap();
    tree.link("/var/lib", outside.path());
    let inside = tree.path(outside.path()).join("scalr-agent/tasks");
    fs::create_dir_all(&inside).unwrap();
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    assert!(theirs.is_dir() && !inside.exists());
}

#[test]
fn a_folder_that_leads_nowhere_is_named_and_nothing_is_changed() {
    let outside = Outside::new();
    let tree = Tree::new();
    tree.link("/etc/scalr-agent", outside.path());
    let before = tree.snapshot();
    let said = install(&tree);
    assert_eq!(said.code, 1, "{}", said.all());
    let named = format!("/etc/scalr-agent is a symbolic link to {}, which is", outside.path());
    assert!(said.stderr.contains(&named), "{}", said.all());
    assert!(!said.stderr.contains("cannot undo"), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
    outside.assert_untouched();
}

#[test]
fn links_in_a_circle_are_named_and_nothing_is_changed() {
    let tree = Tree::new();
    tree.link("/etc/scalr-agent", "/etc/other");
    tree.link("/etc/other", "/etc/scalr-agent");
    let before = tree.snapshot();
    let said = install(&tree);
    assert_ne!(said.code, 0, "{}", said.all());
    assert!(said.stderr.contains(SETTINGS), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
    assert!(!Path::new("/etc/other").exists());
}

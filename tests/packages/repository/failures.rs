//! Publications that come to no end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{tree, verify, workshop};
use tests::workshop::text;

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn one_that_fails_midway_is_taken_back() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.packages("1.0.0");
    workshop.setup_program("x86_64");
    workshop.publish(&root, &["--key", &key]);
    let before = tree(&root);
    workshop.clear();
    workshop.packages("1.1.0");
    // What something is mounted on can't be exchanged; and yum-el7 comes last.
    let script = "mount --bind \"$1/yum-el7\" \"$1/yum-el7\" && shift && exec \"$@\"";
    let failed = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&root)
        .arg(workshop.setup().get_program())
        .args(["repository", "--key", &key, "--packages"])
        .arg(workshop.path("packages"))
        .arg("--output")
        .arg(&root)
        .env("GNUPGHOME", workshop.path("gnupg"))
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    assert!(text(&failed).contains("cannot replace"), "{}", text(&failed));
    assert_eq!(tree(&root), before);
    workshop.publish(&root, &["--key", &key]);
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn one_that_is_killed_leaves_what_was_there() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.packages("1.0.0");
    workshop.publish(&root, &["--key", &key]);
    let before = tree(&root);
    workshop.clear();
    workshop.packages("1.1.0");
    let mut command = workshop.setup();
    command.args(["repository", "--key", &key, "--packages"]).arg(workshop.path("packages"));
    command.arg("--output").arg(&root).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while !is_begun(&root) {
        assert!(child.try_wait().unwrap().is_none(), "it was too fast");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_begun(&root), "it left something");
    let mut left = tree(&root);
    left.retain(|path, _| !path.starts_with(".new-"));
    assert_eq!(left, before);
    assert_eq!(verify(&workshop, &root).0, Some(0));
    workshop.publish(&root, &["--key", &key]);
    assert!(!is_begun(&root));
}

fn is_begun(root: &Path) -> bool {
    fs::read_dir(root)
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(".new-"))
}

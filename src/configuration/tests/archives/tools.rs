//! Archives that tools write by default: recorded ones, and those of the tools here.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::builder::{gzip, listed};

/// What [`make_configuration`] makes, but for what not every tool keeps.
fn expected() -> Vec<String> {
    let long = "d".repeat(90);
    [
        "main.tf: main",
        "modules/net/main.tf: net",
        "modules/link -> ../main.tf",
        &format!("{long}/{long}/{long}.tf: long"),
        "scripts/größe.sh: utf-8",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A configuration with what archive formats differ in.
fn make_configuration(folder: &Path) {
    let long = "d".repeat(90);
    let deep = folder.join(&long).join(&long);
    for directory in [&folder.join("modules/net"), &folder.join("scripts"), &deep] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(folder.join("main.tf"), "main").unwrap();
    fs::write(folder.join("modules/net/main.tf"), "net").unwrap();
    fs::write(deep.join(format!("{long}.tf")), "long").unwrap();
    fs::write(folder.join("scripts/größe.sh"), "utf-8").unwrap();
    fs::set_permissions(folder.join("scripts/größe.sh"), fs::Permissions::from_mode(0o4755))
        .unwrap();
    symlink("../main.tf", folder.join("modules/link")).unwrap();
}

/// Adds what only tar's own formats keep: a file with two names, and one with a hole.
fn add_links_and_holes(folder: &Path) {
    fs::hard_link(folder.join("main.tf"), folder.join("again.tf")).unwrap();
    let sparse = fs::File::create(folder.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 1 << 20).unwrap();
    for number in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"part", (2 + number) << 20).unwrap();
    }
}

fn assert_has_everything(what: &str, archive: &[u8]) {
    let listed = listed(archive).unwrap_or_else(|error| panic!("{what}: {error}"));
    for line in expected() {
        assert!(listed.contains(&line), "{what} has no {line}: {listed:#?}");
    }
    for (at, line) in listed.iter().enumerate() {
        let path = line.split([':', ' ']).next().unwrap().trim_end_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = format!("{parent}/");
            assert!(listed[..at].contains(&parent), "{what}: {path} comes before its parent");
        }
    }
}

/// What a shell prints.
fn output(folder: &Path, script: &str) -> Vec<u8> {
    let script = format!("set -e; {script}");
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const PYTHON: &str = r#"python3 -c '
import sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|gz") as archive:
    archive.add(".")
'"#;

#[test]
fn archives_of_the_tools_here_are_taken() {
    let git = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.com \
               commit -qm a && git archive";
    for script in [
        "tar -cz .",
        "tar -cz *",
        "find . -type f -o -type l | tar -cz -T -",
        "tar -cz --format=posix --xattrs .",
        "tar -cz --format=oldgnu .",
        "tar -czS .",
        "tar -cz . main.tf modules/net/main.tf modules",
        "bsdtar -cz .",
        "bsdtar -cz --format=gnutar .",
        "bsdtar -cz --format=pax .",
        PYTHON,
        &format!("{git} --format=tar.gz HEAD"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        make_configuration(folder.path());
        assert_has_everything(script, &output(folder.path(), script));
    }
}

#[test]
fn links_and_holes_of_the_tools_here_are_taken() {
    for script in [
        "tar -czS .",
        "tar -czS --format=posix --sparse-version=0.0 .",
        "tar -czS --format=posix --sparse-version=0.1 .",
        "tar -czS --format=posix --sparse-version=1.0 .",
        "bsdtar -cz .",
        "bsdtar -cz --read-sparse .",
        PYTHON,
    ] {
        let folder = tempfile::tempdir().unwrap();
        make_configuration(folder.path());
        add_links_and_holes(folder.path());
        let archive = output(folder.path(), script);
        let listed = listed(&archive).unwrap_or_else(|error| panic!("{script}: {error}"));
        let is_linked = |one: &str, other: &str| {
            listed.contains(&format!("{one}: main")) && listed.contains(&format!("{other} = {one}"))
        };
        assert!(is_linked("main.tf", "again.tf") || is_linked("again.tf", "main.tf"), "{script}");
        let sparse = listed.iter().find(|line| line.starts_with("sparse: ")).unwrap();
        assert!(sparse.starts_with("sparse: 1048576 zeros, then end\0"), "{script}");
        assert_eq!(sparse.matches("part").count(), 40, "{script}");
    }
}

#[test]
fn the_oldest_format_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    make_configuration(folder.path());
    let script = "tar -cz --format=v7 modules main.tf";
    let archive = output(folder.path(), script);
    let expected = [
        "main.tf: main",
        "modules/",
        "modules/link -> ../main.tf",
        "modules/net/",
        "modules/net/main.tf: net",
    ];
    let mut listed = listed(&archive).unwrap();
    listed.sort();
    assert_eq!(listed, expected);
}

#[test]
fn a_name_that_is_no_utf_8_is_kept() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.tf");
    for script in ["tar -cz .", "bsdtar -cz .", PYTHON] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "x").unwrap();
        let archive = output(folder.path(), script);
        let mut reader = configuration::Reader::new(archive.as_slice(), None).unwrap();
        let mut found = false;
        while let Some(entry) = reader.next().unwrap() {
            found |= entry.path.as_os_str() == name;
        }
        assert!(found, "{script}");
    }
}

/// Each was made of [`make_configuration`] by the tool and version that its name has.
#[test]
fn recorded_archives_are_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut count = 0;
    for file in fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let content = fs::read(&path).unwrap();
        let archive = if path.extension().unwrap() == "tar" { gzip(&content) } else { content };
        assert_has_everything(&path.display().to_string(), &archive);
        count += 1;
    }
    assert!(count >= 6, "only {count} archives");
}

//! `check`: its exit codes, its JSON, `--fix`, and that docs/check.md has it all.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tree::{Said, Tree};

#[test]
fn the_document_has_every_check() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.md");
    let document = fs::read_to_string(document).unwrap();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let table = document.split("\n## ").find(|part| part.starts_with("The checks\n")).unwrap();
    let documented: Vec<Vec<String>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| cells(line)[1..5].to_vec())
        .collect();

    let report = report(&Tree::new(), &[]);
    let text = |check: &serde_json::Value, name: &str| check[name].as_str().unwrap().to_owned();
    let known: Vec<Vec<String>> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            let name = format!("`{}`", text(check, "name"));
            vec![name, text(check, "area"), text(check, "severity"), text(check, "about")]
        })
        .collect();
    assert_eq!(documented, known, "the table of docs/check.md is not that of the checks");

    let version = format!("Version {} of the schema", report["schema"]);
    assert!(document.contains(&version), "docs/check.md does not say `{version}`");
    let check = report["checks"][0].as_object().unwrap();
    for field in report.as_object().unwrap().keys().chain(check.keys()) {
        assert!(document.contains(&format!("`{field}`")), "docs/check.md lacks the field {field}");
    }
}

#[test]
fn an_address_that_no_agent_would_take_is_refused_without_its_password() {
    let tree = Tree::new();
    for (url, why) in [
        ("pools.example.com", "should look like https://pools.example.com:8443"),
        ("pools.example.com:8443", "should look like https://pools.example.com:8443"),
        ("http://pools.example.com", "has to be https://"),
        ("https://me:hunter2@pools.example.com", "should have no user and password in it"),
        ("https://pools.example.com/api", "nothing after the host"),
    ] {
        for command in [&["check", "--url", url][..], &["install", "--url", url]] {
            let said = tree.setup_with(command, &[("SCALR_AGENT_TOKEN", "t")], "");
            assert_eq!(said.code, 2, "{command:?}: {}", said.all());
            assert!(said.stderr.contains(why), "{command:?}: {}", said.all());
            assert!(!said.all().contains("hunter2"), "{}", said.all());
        }
    }
}

#[test]
fn a_tree_is_checked_for_what_a_tree_has() {
    let tree = Tree::new();
    tree.put(
        "/etc/yum.repos.d/CentOS-AppStream.repo",
        "[appstream]\nmirrorlist=http://mirrorlist.centos.org/?release=$releasever\n",
    );
    let report = report(&tree, &[]);
    let result = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["name"] == name).unwrap();
        (found["result"].as_str().unwrap(), found["fix"].as_array().unwrap().len())
    };
    assert_eq!(result("os"), ("warning", 0));
    assert_eq!(result("systemd"), ("passed", 0));
    assert_eq!(result("kernel"), ("skipped", 0));
    assert_eq!(result("mirror-lists"), ("failed", 1));
    assert_eq!(result("vendor-agent"), ("passed", 0));

    assert_eq!(tree.setup(&["check", "--only", "mirror-lists"]).code, 3);
    let ignored = tree.setup(&["check", "--only", "mirror-lists", "--ignore", "packages"]);
    assert_eq!(ignored.code, 4, "{}", ignored.all());
    assert_eq!(tree.setup(&["check", "--only", "systemd"]).code, 0);
}

#[test]
fn without_a_terminal_fix_wants_yes() {
    // On this machine: it is refused before anything is looked at.
    let output = Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup"))
        .args(["check", "--only", "architecture", "--fix"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = Said::from(output);
    // Who is not root gets that error first.
    assert!([2, 7].contains(&said.code) && said.stdout.is_empty(), "{}", said.all());
    assert!(said.code == 7 || said.stderr.contains("add --yes"), "{}", said.all());
    assert_eq!(Tree::new().setup(&["check", "--yes"]).code, 2);
}

#[test]
fn a_tree_is_not_fixed_with_commands_for_this_machine() {
    let tree = Tree::new();
    let said = tree.setup(&["check", "--fix", "--yes"]);
    assert!(said.code == 2 && said.stderr.contains("--root"), "{}", said.all());
}

fn report(tree: &Tree, more: &[&str]) -> serde_json::Value {
    let said = tree.setup(&[&["check", "--format", "json"], more].concat());
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.all()))
}

/// yum and dnf, among others, take LANGUAGE before LC_ALL.
#[test]
fn no_program_gets_the_language_of_whoever_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    // By another process: a program that this one has open for writing can't be started.
    let made = Command::new("sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\nenv >%s\\nexit 6\\n' \"$1\" >curl && chmod +x curl",
            "sh",
        ])
        .arg(&seen)
        .current_dir(folder.path())
        .status();
    assert!(made.unwrap().success());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup"))
        .args(["check", "--only", "server", "--url", "https://pools.example.com"])
        .env("PATH", path)
        .env("LANGUAGE", "de:ja")
        .output()
        .unwrap();
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("LANGUAGE="), "{seen}");
}

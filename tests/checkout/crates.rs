//! The crates' dependencies go one way: programs, then what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate and those of ours that it may depend on, also for its tests.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("cli", &[]),
    ("protocol", &[]),
    ("config", &["cli", "protocol"]),
    ("configuration", &[]),
    ("host", &["cli"]),
    ("agent", &["cli", "config", "configuration", "host", "protocol"]),
    ("server", &["cli", "config", "configuration", "host", "protocol"]),
    ("setup", &["cli", "config", "host", "protocol"]),
    ("load", &["protocol"]),
    (
        "tests",
        &["agent", "cli", "config", "configuration", "host", "load", "protocol", "server", "setup"],
    ),
];

#[test]
fn no_crate_depends_on_one_that_the_design_forbids() {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let allowed = BTreeMap::from(MAY_DEPEND_ON);
    let names: BTreeSet<&str> = packages.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, allowed.keys().copied().collect());
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            assert!(
                !names.contains(dependency) || allowed[name].contains(&dependency),
                "{name} depends on {dependency}"
            );
        }
    }
}

/// People download the setup program before they have anything else.
#[test]
fn the_setup_program_has_no_async_runtime_no_tls_and_no_database() {
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package",
        "setup",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains("clap"), "{tree}");
    for heavy in ["tokio", "hyper", "rustls", "ring", "sqlx-core", "reqwest", "bollard"] {
        assert!(!linked.contains(heavy), "setup depends on {heavy}");
    }
}

fn cargo(words: &[&str]) -> String {
    let output =
        Command::new("cargo").args(words).current_dir(tests::checkout(".")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

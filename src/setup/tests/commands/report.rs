//! `report`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::tree::Tree;

/// The secrets of the tree, in every form that could turn up.
const SECRETS: [&str; 7] = [
    "the-secret-token",
    "hunter2",
    "hunter%2Ftwo",
    "hunter/two",
    "dGhlLXNlY3JldC10b2tlb",
    "the-other-token",
    "older-token",
];

fn with_secrets() -> Tree {
    let tree = Tree::new();
    // Its record has what was there before.
    tree.put("/etc/scalr-agent/agent.toml", "token = \"older-token\"\n");
    let proxy = "http://me:hunter%2Ftwo@proxy:3128\n";
    let arguments = ["install", "--url", "https://pools.example.com", "--http-proxy", "-"];
    let token = [("SCALR_AGENT_TOKEN", "the-secret-token")];
    let said = tree.setup_with(&arguments, &token, proxy);
    assert_eq!(said.code, 0, "{}", said.all());
    tree.put(
        "/etc/systemd/system/scalr-agent.service.d/by-hand.conf",
        "[Service]\nEnvironment=HTTPS_PROXY=http://hunter2@elsewhere:1\n\
         Environment=SCALR_TOKEN=the-other-token\n",
    );
    // Whoever writes it there: a copy of a secret, in a form of its own.
    tree.put(
        "/etc/os-release",
        "ID=centos\nVERSION_ID=8\nPRETTY_NAME=\"the-secret-token dGhlLXNlY3JldC10b2tlbg==\"\n\
         BUG_REPORT_URL=\"https://me:hunter2@example.com/?p=hunter%2Ftwo\"\n",
    );
    tree
}

/// The archive's files by name, without the directory that all are in.
fn contents(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive).unwrap()));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path.split_once('/').unwrap().1.to_owned(), text)
    });
    entries.collect()
}

#[test]
fn no_secret_is_in_any_file_of_it() {
    let tree = with_secrets();
    let output = tempfile::tempdir().unwrap();
    let archive = output.path().join("report.tar.gz");
    let said = tree.setup(&["report", "--output", archive.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let contents = contents(&archive);
    for (name, text) in contents.iter().chain([(&"what it prints".to_owned(), &said.all())]) {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {name}:\n{text}");
        }
    }
    // It has what it is for, and it says what it has.
    for name in contents.keys() {
        assert!(said.stdout.contains(name), "{name}: {}", said.stdout);
    }
    assert!(contents["agent.toml"].contains("token = \"***\""));
    assert!(contents["os-release"].contains("PRETTY_NAME=\"*** ***"), "{}", contents["os-release"]);
    assert!(contents["setup.json"].contains("/etc/scalr-agent/agent.toml"));
    for name in ["status.json", "check.json"] {
        let json: serde_json::Value = serde_json::from_str(&contents[name]).unwrap();
        assert_eq!(json["schema"], 1, "{name}");
    }
    assert!(contents["journal/scalr-agent.txt"].contains("unavailable"));
}

#[test]
fn a_file_that_is_there_stays() {
    let tree = Tree::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let said = tree.setup(&["report", "--output", path]);
    assert_eq!(said.code, 2, "{}", said.all());
    assert_eq!(file.path().metadata().unwrap().len(), 0);
    let said = tree.setup(&["report", "--output", "/no/such/directory/report.tar.gz"]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.stderr.contains("/no/such/directory"), "{}", said.stderr);
}

#[test]
fn the_report_names_what_is_broken() {
    let tree = with_secrets();
    tree.put("/etc/scalr-agent/agent.toml", "token = \"the-secret-token\nurl\n");
    let output = tempfile::tempdir().unwrap();
    let archive = output.path().join("report.tar.gz");
    let said = tree.setup(&["report", "--format", "json", "--output", archive.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.all());
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let settings = report["contents"].as_array().unwrap();
    let settings = settings.iter().find(|file| file["name"] == "agent.toml").unwrap();
    assert!(settings["problem"].as_str().unwrap().contains("agent.toml line "), "{settings}");
    let contents = contents(&archive);
    for (name, text) in &contents {
        assert!(!text.contains("the-secret-token"), "{name}: {text}");
    }
}

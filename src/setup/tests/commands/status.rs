//! `status`.

use std::fs::File;
use std::io::pipe;
use std::process::Stdio;

use serde_json::json;

use crate::tree::Tree;

const SETTINGS: &str = "/etc/scalr-agent/agent.toml";
const DROP_IN: &str = "/etc/systemd/system/scalr-agent.service.d/by-hand.conf";

/// A tree with settings in a file and in a unit's drop-in, and a proxy with a
/// password.
fn configured() -> Tree {
    let tree = Tree::new();
    tree.put(
        SETTINGS,
        "url = \"https://pools.example.com\"\ntoken = \"the-token\"\nmemory = 1024\n",
    );
    tree.put(
        DROP_IN,
        "[Service]\nEnvironment=SCALR_AGENT_CONCURRENCY=3\n\
         Environment=HTTPS_PROXY=http://me:hunter2@proxy:3128\n",
    );
    tree
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_that_is_gone_is_none() {
    let tree = configured();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (arguments, code) in
        [(&["status"][..], 1), (&["proxy", "show"], 1), (&["check", "--only", "data-folder"], 1)]
    {
        let output = tree.command(arguments).stdout(full()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let why = "error: cannot write to standard output: No space left on device";
        assert!(stderr.starts_with(why), "{arguments:?}: {stderr}");

        let mut command = tree.command(arguments);
        let output = command.stdout(Stdio::from(pipe().unwrap().1)).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn each_setting_has_its_source() {
    let tree = configured();
    let said = tree.setup(&["status", "--format", "json"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(
        !said.stdout.contains("the-token") && !said.stdout.contains("hunter2"),
        "{}",
        said.stdout
    );
    let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(status["schema"], 1);
    let setting = |name: &str| {
        let values = status["settings"]["values"].as_array().unwrap();
        values.iter().find(|setting| setting["name"] == name).unwrap().clone()
    };
    assert_eq!(
        setting("memory"),
        json!({"name": "memory", "value": 1024, "source": "file", "variable": null, "file": SETTINGS})
    );
    assert_eq!(
        setting("concurrency"),
        json!({"name": "concurrency", "value": 3, "source": "environment",
            "variable": "SCALR_AGENT_CONCURRENCY", "file": DROP_IN})
    );
    assert_eq!(setting("cpu")["source"], "default");
    assert_eq!(setting("token")["value"], "***");
    assert_eq!(status["proxy"]["variables"], json!({"HTTPS_PROXY": "http://me:***@proxy:3128"}));
    assert_eq!(status["proxy"]["files"], json!([DROP_IN]));
    assert_eq!(status["server"]["url"], "https://pools.example.com/");
    // What a tree cannot show is reported as unavailable.
    for part in ["engine", "server", "tasks", "warnings"] {
        assert!(status[part]["problem"].is_string(), "{part}: {status}");
    }
}

#[test]
fn the_authorities_that_the_settings_name_are_the_trees_own() {
    let tree = Tree::new();
    let host = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&host, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let problem = |file: &str| {
        let url = "url = \"https://pools.example.com\"\ntoken = \"the-token\"";
        tree.put(SETTINGS, &format!("{url}\nca_cert = \"{file}\"\n"));
        let said = tree.setup(&["status", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        status["settings"]["problem"].clone()
    };
    tree.put("/srv/only-in-the-tree.pem", "-----BEGIN CERTIFICATE-----\n");
    assert_eq!(problem("/srv/only-in-the-tree.pem"), serde_json::Value::Null);
    let of_host = problem(host.path().to_str().unwrap());
    assert!(of_host.as_str().is_some_and(|text| text.starts_with("`ca_cert`: ")), "{of_host}");
}

#[test]
fn it_fits_one_screen() {
    let said = configured().setup(&["status"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.lines().count() <= 26, "{}", said.stdout);
    assert!(!said.stdout.contains('\x1b'), "colours are for terminals: {}", said.stdout);
    assert!(!said.stdout.contains("hunter2"), "{}", said.stdout);
    for line in ["concurrency", "(SCALR_AGENT_CONCURRENCY in ", "HTTPS_PROXY=http://me:***@proxy"] {
        assert!(said.stdout.contains(line), "{}", said.stdout);
    }
}

#[test]
fn status_reports_unusable_settings() {
    let tree = configured();
    tree.put(SETTINGS, "token = \"the-token\"\nconcurency = 3\n");
    let said = tree.setup(&["status"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.contains("did you mean `concurrency`?"), "{}", said.stdout);
    assert!(!said.all().contains("the-token"), "{}", said.all());
}

//! `--format json`: one document on standard output, also of what fails.

use crate::tree::Tree;
#[test]
fn every_command_prints_one_document_as_json_alone() {
    let tree = Tree::new();
    let missing = tree.path("/missing").display().to_string();
    for (arguments, fails) in [
        (&["check", "--only", "disk"][..], false),
        (&["check", "--only", "no-such-check"], true),
        (&["check", "--ignore", "no-such-check"], true),
        (&["check", "--yes"], true),
        (&["check", "--undo-fixes"], true),
        (&["install", "--no-such-option"], true),
        (&["install", "--ignore", "no-such-check"], true),
        (&["no-such-command"], true),
        (&["status"], false),
        (&["report", "--output", "/proc/missing/report.tar.gz"], true),
        (&["proxy", "show"], false),
        (&["proxy", "--http", "ftp://proxy.example.com"], true),
        (&["proxy", "remove"], false),
        (&["units"], false),
        (&["units", "--systemd-version", "239", "--output", "/proc/missing"], true),
        (&["uninstall"], false),
        (&["recover"], false),
        (&["recover", "--discard"], false),
        (&["repository", "verify", &missing], true),
        (&["repository", "--packages", &missing, "--key", "nobody"], true),
        (&["bundle", "--repository", &missing], true),
        (&["package", "--agent", &missing], true),
    ] {
        let said = tree.setup(&[&["--format", "json"], arguments].concat());
        let all = format!("{arguments:?}: {}", said.all());
        let document: serde_json::Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {all}"));
        assert_eq!(said.code != 0, fails, "{all}");
        if fails {
            assert_eq!(document["error"]["exit_code"], said.code, "{all}");
            assert!(!document["error"]["message"].as_str().unwrap().is_empty(), "{all}");
        }
    }
}

#[test]
fn a_name_of_no_check_is_wrong_usage_and_names_the_nearest() {
    let tree = Tree::new();
    for option in ["--only", "--ignore"] {
        let said = tree.setup(&["check", option, "os,memroy", "--format", "json"]);
        assert_eq!(said.code, 2, "{}", said.all());
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(document["command"], "check");
        assert_eq!(document["outcome"], "failed");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains("no check `memroy`; did you mean `memory`?"), "{message}");
    }
}

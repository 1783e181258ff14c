//! `recover`.

use std::fs::File;
use std::io::pipe;
use std::process::Stdio;

use crate::tree::Tree;

const UNFINISHED: &str = "/var/lib/scalr-agent-setup.unfinished";

/// A tree where a killed command has made a folder.
fn interrupted() -> Tree {
    let tree = Tree::new();
    tree.put(UNFINISHED, r#"{"steps":[{"remove-directory":{"path":"/etc/made"}}]}"#);
    std::fs::create_dir_all(tree.path("/etc/made")).unwrap();
    tree
}

#[test]
fn a_terminal_or_a_reader_that_is_gone_does_not_keep_changes_from_being_undone() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let ended = || Stdio::from(pipe().unwrap().1);
    for (name, output) in [("an error", &full as &dyn Fn() -> Stdio), ("a pipe", &ended)] {
        let tree = interrupted();
        let status = tree.command(&["recover"]).stdout(output()).stderr(output()).status();
        assert_eq!(status.unwrap().code(), Some(0), "{name}");
        assert!(!tree.path("/etc/made").exists() && !tree.path(UNFINISHED).exists(), "{name}");
    }
}

#[test]
fn no_signal_of_the_terminal_ends_it() {
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let tree = Tree::new();
        let kill = format!(
            r#"{{"steps":[{{"run":{{"what":"undo","command":{{"program":"sh",
                "arguments":["-c","kill -{signal} $PPID"],"environment":{{}}}}}}}}]}}"#
        );
        tree.put(UNFINISHED, &kill);
        let said = tree.setup(&["recover"]);
        assert_eq!(said.code, 0, "{signal}: {}", said.all());
        assert!(!tree.path(UNFINISHED).exists(), "{signal}");
    }
}

#[test]
fn it_runs_twice_and_the_second_time_changes_nothing() {
    let tree = interrupted();
    assert!(tree.setup(&["recover"]).stdout.contains("as it was before"));
    let before = tree.snapshot();
    let said = tree.setup(&["recover"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.contains("nothing to undo"), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_record_whose_first_writing_was_interrupted_is_removed() {
    for arguments in [&["recover"][..], &["units"], &["proxy", "remove"]] {
        let tree = Tree::new();
        let temporary = "/var/lib/.scalr-agent-setup.unfinished.scalr-agent-setup.tmp";
        tree.put(temporary, "{\"steps\":[{\"wri");
        let said = tree.setup(arguments);
        assert_eq!(said.code, 0, "{}", said.all());
        assert!(!tree.path(temporary).exists(), "{arguments:?}");
    }
}

#[test]
fn a_record_that_cannot_be_read_stops_each_command_and_can_be_discarded() {
    for record in ["", "{\"steps\":[{\"remo", "{\"steps\":[{\"step-of-a-later-version\":{}}]}"] {
        let tree = Tree::new();
        tree.put(UNFINISHED, record);
        let before = tree.snapshot();
        for arguments in [&["recover"][..], &["uninstall"], &["units"]] {
            let said = tree.setup(arguments);
            assert_eq!(said.code, 1, "{record:?}: {arguments:?}: {}", said.all());
            let advice = "scalr-agent-setup recover --discard";
            assert!(said.stderr.contains(UNFINISHED), "{}", said.all());
            assert!(said.stderr.contains(advice), "{}", said.all());
            assert_eq!(tree.snapshot(), before, "{record:?}: {arguments:?}");
        }
        let said = tree.setup(&["recover", "--discard"]);
        assert_eq!(said.code, 0, "{record:?}: {}", said.all());
        assert_eq!(tree.setup(&["uninstall"]).code, 0, "{record:?}");
    }
}

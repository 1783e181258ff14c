//! The web page in a real browser, with an agent that is installed by what the page shows.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde::Deserialize;

use crate::fleet::{DOCKER, Fleet, IMAGE, URL, kit};

/// The machines have none, since everything in them runs as root.
const SUDO: &str = "#!/bin/sh\nexec \"$@\"\n";

/// How long the script may take, in seconds.
const PATIENCE: &str = "240";

/// What the script asks for: a command on the machine, or `image`.
#[derive(Deserialize)]
struct Asked {
    command: String,
    input: String,
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_team_gets_from_the_first_link_to_an_applied_run_by_what_the_page_shows() {
    assert!(
        std::env::var_os("SCALR_TEST_BROWSER").is_some(),
        "SCALR_TEST_BROWSER is not set: scripts/test installs the browser's tools, and sets it to \
         their folder, ~/.cache/scalr-agent/browser"
    );
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    fleet.distrust_server();
    fleet.put("/usr/local/bin/sudo", "0755", SUDO.as_bytes());
    let log = fleet.server_log();
    let link = log.split_whitespace().find(|word| word.contains("/sign-in/code-"));
    let script = tests::checkout("tests/browser/installed_agent.mjs");
    let mut node = fleet
        .world
        .command(
            "server",
            &["timeout".as_ref(), PATIENCE.as_ref(), "node".as_ref(), script.as_os_str()],
        )
        .envs([("SERVER", URL), ("IMAGE", IMAGE)])
        .env("TOKEN", fleet.admin_token())
        .env("LINK", link.expect("the first start prints a link"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/machine starts");
    let mut answers = node.stdin.take().expect("it is piped");
    for line in BufReader::new(node.stdout.take().expect("it is piped")).lines() {
        let line = line.expect("the script writes text");
        if line == "image" {
            let image = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
            fleet.world.feed(&fleet.machine, &format!("{DOCKER} import - {IMAGE}"), &image);
        } else {
            let asked: Asked = serde_json::from_str(&line).expect("the script asks for a command");
            fleet.world.feed(&fleet.machine, &asked.command, asked.input.as_bytes());
        }
        answers.write_all(b"done\n").expect("the script reads");
    }
    assert!(node.wait().expect("it ends").success(), "the script failed; see above");
}

//! `scalr-server trial` with a real agent and a real engine.

use std::time::Duration;

use crate::fleet::{DOCKER, Fleet, IMAGE, kit};
use crate::machine::wait_for;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_trial_runs_its_configuration_on_the_machine_and_leaves_nothing_behind() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let _pool = fleet.pool();
    // For the agent's program, the engine and the image; the trial has an agent of its own.
    fleet.install("");
    fleet.shell("systemctl stop scalr-agent");
    fleet.copy(&kit().join("bin/scalr-server"), "/usr/local/bin/scalr-server", "0755");

    fleet.shell(&format!(
        "scalr-server trial --image {IMAGE} >/root/trial.log 2>&1 & echo $! >/root/trial.pid"
    ));
    let said = wait_for("the trial to be up", Duration::from_secs(60), || {
        let said = fleet.shell("cat /root/trial.log");
        said.contains("Press Ctrl-C").then_some(said)
    });
    assert!(said.contains("http://127.0.0.1:8480/sign-in/code-"), "{said}");
    assert!(
        said.contains("Agent: /usr/bin/scalr-agent with /run/scalr-docker/docker.sock"),
        "{said}"
    );
    let applied = fleet.shell(
        "scalr-server run start --data $(echo /tmp/scalr-trial-*/server) --workspace hello --apply",
    );
    assert!(applied.contains("greeting = \"Hello, world!\""), "{applied}");

    fleet.shell("kill -INT $(cat /root/trial.pid)");
    wait_for("the trial to end", Duration::from_secs(60), || {
        let said = fleet.shell("cat /root/trial.log");
        said.contains("Removed the trial.").then_some(())
    });
    assert_eq!(fleet.shell("ls -d /tmp/scalr-trial-* 2>/dev/null || true").trim(), "");
    assert_eq!(fleet.shell(&format!("{DOCKER} ps --all --quiet")).trim(), "");
    assert_eq!(
        fleet.shell("pgrep --full '[s]calr-(agent run|server (trial|serve))' || true").trim(),
        ""
    );
}

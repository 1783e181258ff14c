//! The units are restarted while a run goes on: by an administrator, or by needrestart
//! after the upgrade of a library.

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, URL, kit, refusal};
use crate::lifecycle::feed;
use crate::pool::{Pool, Run};
use crate::stop::applying;

/// How many seconds an apply takes: longer than a busy machine restarts three units.
const STEPS: u32 = 40;

/// The units' main processes, a line each.
const PROCESSES: &str =
    "systemctl show --property=MainPID scalr-agent scalr-docker scalr-containerd | grep .";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_restart_of_all_units_does_not_interrupt_an_apply() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let run = applying(&fleet, &pool, STEPS);
    let (container, before) = (fleet.running_container(), fleet.shell(PROCESSES));
    fleet.shell("systemctl restart scalr-agent scalr-docker scalr-containerd");
    assert_eq!(pool.status(&run), "applying", "the units restarted in the middle");
    let after = fleet.shell(PROCESSES);
    assert!(before.lines().zip(after.lines()).all(|(old, new)| old != new), "{before}; {after}");
    assert_eq!(fleet.running_container()["Id"], container["Id"]);
    is_applied_once(&fleet, &pool, &run);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_restart_with_settings_that_no_agent_can_use_ends_the_apply_with_its_state() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let run = applying(&fleet, &pool, 1000);
    fleet.shell("echo 'concurrency = \"many\"' >>/etc/scalr-agent/agent.toml");
    refusal(&fleet.world.try_shell(&fleet.machine, "systemctl restart scalr-agent"));
    assert_eq!(pool.status(&run), "errored");
    let log = pool.log(&run, "apply");
    assert!(log.contains("the agent was stopped"), "{log}");
    assert_eq!(fleet.shell(&format!("{DOCKER} ps --all --quiet")), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_interrupted_upgrade_touches_neither_settings_nor_engine_nor_apply() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let run = applying(&fleet, &pool, STEPS);
    let package = feed(&fleet, "next", "deb");
    let files = "sha256sum /etc/scalr-agent/* /etc/systemd/system/scalr-agent.service.d/*";
    let engine = "systemctl show --property=MainPID scalr-docker scalr-containerd";
    let (files_before, engine_before) = (fleet.shell(files), fleet.shell(engine));
    // In a group of its own, which `set -m` makes; dash has it on terminals only.
    let said = fleet.shell(&format!(
        "timeout 180 bash -c 'set -m; scalr-agent-setup install --url {URL} --concurrency 3 \
             --token-file /root/pool.token --upgrade --package {package} </dev/null 2>&1 & \
         until grep -q \"concurrency = 3\" /etc/scalr-agent/agent.toml; do sleep 0.01; done; \
         kill -s INT -- -$!; wait'"
    ));
    assert!(said.contains("Undoing") && !said.contains("cannot"), "{said}");
    fleet.shell("! [ -e /var/lib/scalr-agent-setup.unfinished ] && [ -z \"$(dpkg --audit)\" ]");
    assert_eq!(fleet.shell(files), files_before, "{said}");
    assert_eq!(fleet.shell(engine), engine_before, "{said}");
    is_applied_once(&fleet, &pool, &run);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn needrestart_restarts_other_services_and_none_of_ours() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let needrestart = std::fs::read(kit().join("needrestart.tar")).expect("the kit has it");
    fleet.world.feed(&fleet.machine, "tar --extract --directory=/", &needrestart);
    fleet.shell(
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/etc/systemd/system/other.service && \
         systemctl daemon-reload && systemctl start other",
    );
    let run = applying(&fleet, &pool, STEPS);
    let before = fleet.shell(PROCESSES);
    let other = "systemctl show --property=MainPID other";
    let other_before = fleet.shell(other);

    // As an upgrade of libc does: the file that processes map is replaced.
    fleet.shell("cd /lib/x86_64-linux-gnu && cp -a libc.so.6 new && mv new libc.so.6");
    let said = fleet.shell("NEEDRESTART_MODE=a needrestart -l 2>&1");
    assert_ne!(fleet.shell(other), other_before, "{said}");
    assert_eq!(fleet.shell(PROCESSES), before, "{said}");
    for unit in ["scalr-agent", "scalr-docker", "scalr-containerd"] {
        assert!(said.contains(&format!("{unit}.service")), "it is due for a restart: {said}");
    }
    is_applied_once(&fleet, &pool, &run);
}

/// Waits for the apply's end: each of its steps is in the log once, and nothing is left.
fn is_applied_once(fleet: &Fleet, pool: &Pool<'_>, run: &Run) {
    pool.wait_for_status(run, "applied");
    let log = pool.log(run, "apply");
    for step in 1..=STEPS {
        assert_eq!(log.matches(&format!("step {step} of")).count(), 1, "step {step}: {log}");
    }
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
    assert_eq!(fleet.containers(), "");
    fleet.wait_for_agent(pool, "idle");
}

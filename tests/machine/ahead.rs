//! Containers that are started ahead of their run: a run in one is as in any other, each has one
//! run, and no fault leaves one behind or loses its run.

use std::time::Duration;

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, IMAGE, configuration, kit};
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// Tells all that a run could find to be other than in a container of its own, and leaves marks.
const LOOK: &str = "\
find /scalr /tmp -path /scalr/work -prune -o -print | grep -v /scalr/run/begun | sort
env | cut -d= -f1 | sort
pwd
umask
cat /proc/self/limits
grep -E '^(Cap|NoNewPrivs|Seccomp|Sig...:|Groups|Threads)' /proc/self/status
readlink /proc/self/fd/0 /proc/1/fd/0
id
echo mark >/tmp/mark && echo mark >/scalr/home/mark && echo mark >/scalr/run/mark
echo looked once
";

/// Holds the verification of the firewall's rules up, and with it a run whose container is ready.
const HOLDING: &str =
    "#!/bin/sh\nwhile [ -e /run/hold ]; do sleep 0.1; done\nexec /usr/sbin/iptables \"$@\"\n";

/// The agent's process.
const AGENT: &str = "$(systemctl show --property=MainPID scalr-agent | cut -d= -f2)";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn two_runs_in_a_row_see_nothing_of_each_other() {
    let fleet = Fleet::boot_with_package();
    let pool = prepared(&fleet);
    pool.hooks(json!({"pre-plan": LOOK}));
    let first = plan(&pool);
    let waiting = waiting(&fleet);
    let second = plan(&pool);
    assert!(!second.contains("mark\n"), "what the first one left: {second}");
    assert_eq!(second, first, "a container that waited is like any other");
    assert!(is_gone(&fleet, &waiting), "it has one run");

    // Another image by the same name.
    let before = self::waiting(&fleet);
    let image = std::fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    fleet.world.feed(&fleet.machine, &format!("{DOCKER} import - {IMAGE}"), &image);
    let id = fleet.shell(&format!("{DOCKER} inspect --format '{{{{.Id}}}}' {IMAGE}"));
    pool.hooks(json!({"pre-plan": "until [ -e /tmp/go ]; do sleep 0.1; done"}));
    let run = pool.start_run_with(&configuration(), json!({"is-dry": true}));
    let container = fleet.running_container();
    assert_eq!(container["Image"], id.as_str());
    assert_ne!(container["Id"], before.as_str());
    wait_until_gone(&fleet, &before);
    let go = format!("{DOCKER} exec {} touch /tmp/go", container["Id"].as_str().expect("an id"));
    fleet.shell(&go);
    pool.wait_for_status(&run, "planned_and_finished");

    // Canceled as soon as the agent has noted that it begins.
    for _ in 0..3 {
        self::waiting(&fleet);
        let run = pool.start_run_with(&configuration(), json!({"is-dry": true}));
        fleet.shell(&format!("timeout 60 sh -c '{}'", until_noted()));
        pool.cancel(&run);
        // Sooner than the grace ends, after which a run hears of it anyway.
        wait_for("the canceled run's end", Duration::from_secs(30), || {
            (pool.status(&run) == "canceled").then_some(())
        });
    }

    let switched_off =
        "scalr-agent configure --prepare-ahead=false && systemctl restart scalr-agent";
    self::waiting(&fleet);
    fleet.shell(switched_off);
    fleet.wait_for_agent(&pool, "idle");
    wait_for("what waits to be removed", Duration::from_secs(30), || {
        fleet.shell(&format!("{DOCKER} ps --all --quiet")).is_empty().then_some(())
    });
    pool.hooks(json!({"pre-plan": LOOK}));
    assert_eq!(plan(&pool), first);
    fleet.shell("scalr-agent configure --prepare-ahead=true && systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    plan(&pool);
    self::waiting(&fleet);
    fleet.shell("scalr-agent-setup uninstall --purge");
    let left = "ps -eo args | grep -v grep | grep -E 'scalr|containerd' || ls -d /var/lib/scalr-* 2>/dev/null || :";
    assert_eq!(fleet.shell(left), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn no_fault_leaves_a_container_waiting_or_loses_its_run() {
    let fleet = Fleet::boot_with_package();
    let pool = prepared(&fleet);
    pool.hooks(json!({"pre-plan": "echo looked once"}));
    fleet.put("/usr/local/sbin/iptables", "0755", HOLDING.as_bytes());

    // While it waits.
    for fault in [
        format!("kill -KILL {AGENT}"),
        "systemctl restart scalr-agent".to_owned(),
        "pkill -KILL -x dockerd".to_owned(),
        "systemctl restart scalr-docker".to_owned(),
        "systemctl restart scalr-agent scalr-docker scalr-containerd".to_owned(),
    ] {
        eprintln!("--- {fault}");
        plan(&pool);
        let waiting = waiting(&fleet);
        fleet.shell(&fault);
        wait_until_gone(&fleet, &waiting);
        fleet.wait_for_agent(&pool, "idle");
        plan(&pool);
    }

    // While it has the name and files of a task that has not begun.
    let dies = format!("kill -KILL {AGENT}");
    let before_it_is_noted = dies.clone() + " && rm /run/hold";
    let engine_stops = "pkill -STOP -x dockerd && rm /run/hold && ";
    let noted = until_noted();
    // The line that lets it begin is lost with the engine.
    let before_it_begins = format!("{engine_stops}{noted}; {dies} && pkill -KILL -x dockerd");
    // The engine passes it on.
    let when_it_begins = format!("{engine_stops}{noted}; {dies} && pkill -CONT -x dockerd");
    let engine_alone = format!("{engine_stops}{noted}; pkill -KILL -x dockerd");
    for fault in [before_it_is_noted, before_it_begins, when_it_begins, engine_alone] {
        eprintln!("--- {fault}");
        plan(&pool);
        let waiting = waiting(&fleet);
        fleet.shell("touch /run/hold");
        let run = pool.start_run_with(&configuration(), json!({"is-dry": true}));
        wait_for("the run's files in the container", Duration::from_secs(60), || {
            let has = format!("{DOCKER} exec {waiting} test -e /scalr/run/command 2>&1");
            fleet.world.try_shell(&fleet.machine, &has).status.success().then_some(())
        });
        fleet.shell(&format!("{DOCKER} inspect {waiting} >/dev/null"));
        fleet.shell(&fault);
        looks_once(&pool, &run);
        wait_until_gone(&fleet, &waiting);
    }
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell("systemctl stop scalr-agent");
    assert_eq!(fleet.shell(&format!("{DOCKER} ps --all --quiet")), "");
}

/// A pool whose agent is on the machine.
fn prepared(fleet: &Fleet) -> Pool<'_> {
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    pool
}

/// Plans, and gives the log.
fn plan(pool: &Pool<'_>) -> String {
    let run = pool.start_run_with(&configuration(), json!({"is-dry": true}));
    looks_once(pool, &run)
}

fn looks_once(pool: &Pool<'_>, run: &Run) -> String {
    pool.wait_for_status(run, "planned_and_finished");
    let log = pool.log(run, "plan");
    assert_eq!(log.matches("looked once").count(), 1, "{log}");
    log
}

/// The id of the container that waits for a run.
pub(crate) fn waiting(fleet: &Fleet) -> String {
    let list = format!("{DOCKER} ps --quiet --no-trunc --filter name=^scalr-ahead-");
    wait_for("a container that waits", Duration::from_secs(60), || {
        Some(fleet.shell(&list)).filter(|id| !id.is_empty())
    })
}

/// Waits until the journal says that a run begins in a container that waited.
fn until_noted() -> String {
    "until grep -q is_ahead.:true /var/lib/scalr-agent/tasks/*/journal 2>/dev/null; do sleep 0.01; done"
        .to_owned()
}

fn is_gone(fleet: &Fleet, container: &str) -> bool {
    let list = format!("{DOCKER} ps --all --quiet --no-trunc --filter id={container}");
    fleet.shell(&list).is_empty()
}

fn wait_until_gone(fleet: &Fleet, container: &str) {
    wait_for("the container to be removed", Duration::from_secs(90), || {
        let list = format!("{DOCKER} ps --all --quiet --no-trunc --filter id={container}");
        let listed = fleet.world.try_shell(&fleet.machine, &list);
        // The engine may be restarting.
        (listed.status.success() && listed.stdout.is_empty()).then_some(())
    });
}

//! `systemctl stop` while a run goes on.

use std::time::Duration;

use serde_json::json;

use crate::fleet::{Fleet, configuration};
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// An apply of some seconds that has begun.
pub(crate) fn applying(fleet: &Fleet, pool: &Pool<'_>, steps: u32) -> Run {
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, &steps.to_string());
    fleet.install("");
    fleet.wait_for_agent(pool, "idle");
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    wait_for("the apply's first step", Duration::from_secs(60), || {
        pool.log(&run, "apply").contains("step 1 of").then_some(())
    });
    run
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_drain_lets_the_run_end_whatever_time_the_unit_gives() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.shell(
        "mkdir -p /etc/systemd/system/scalr-agent.service.d && \
         printf '[Service]\\nTimeoutStopSec=3\\n' >/etc/systemd/system/scalr-agent.service.d/z.conf && \
         mkdir -p /etc/scalr-agent && echo 'on_stop = \"drain\"' >/etc/scalr-agent/agent.toml",
    );
    let run = applying(&fleet, &pool, 10);
    fleet.shell("systemctl stop scalr-agent");
    assert_eq!(pool.status(&run), "applied");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
    assert_eq!(fleet.shell("systemctl show --property=Result scalr-agent"), "Result=success");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_interrupted_apply_ends_at_once_with_its_state() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let run = applying(&fleet, &pool, 1000);
    fleet.shell("systemctl stop scalr-agent");
    assert_eq!(pool.status(&run), "errored");
    let log = pool.log(&run, "apply");
    assert!(log.contains("the agent was stopped"), "{log}");
    assert_eq!(fleet.shell(&format!("{} ps --all --quiet", crate::fleet::DOCKER)), "");
}

//! What a crash of the agent leaves, and how it goes on.

use crate::fleet::{Fleet, configuration};

/// So many resources that the plan takes several seconds.
const COPIES: usize = 6000;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_plan_outlives_the_killing_of_its_agent_and_its_log_is_whole() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("copies", "terraform", false, &COPIES.to_string());
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let agent = "systemctl show --property=MainPID scalr-agent | cut -d= -f2";
    let first = fleet.shell(agent);

    let run = pool.start_run(&configuration());
    let container = fleet.running_container();
    fleet.shell(&format!("kill -KILL {first}"));
    assert_eq!(pool.status(&run), "planning", "it was killed in the middle of the plan");

    pool.wait_for_status(&run, "planned");
    assert_ne!(fleet.shell(agent), first, "systemd restarted it");
    let log = pool.log(&run, "plan");
    for number in 0..COPIES {
        let line = format!("\"copy number {number}.\"");
        assert_eq!(log.matches(&line).count(), 1, "{line} in a log of {} bytes", log.len());
    }
    let container = container["Id"].as_str().unwrap_or_default();
    let left = fleet.shell(&format!("{} ps --all --quiet --no-trunc", crate::fleet::DOCKER));
    assert!(!left.contains(container), "its container is still there");
}

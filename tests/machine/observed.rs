//! What an agent tells of itself while it carries out a run.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::fleet::{Fleet, configuration};
use crate::machine::wait_for;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_agent_tells_what_it_does_and_a_dead_collector_is_in_nobodys_way() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    fleet.install("--concurrency 2");
    // Nobody listens there.
    fleet.shell("scalr-agent configure --log-format=json --telemetry-url=http://192.0.2.1:4318");
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    let idle = fleet.shell("scalr-agent status");
    assert!(idle.contains("0 of 2 slots busy\n  slot 0  free\n  slot 1  free"), "{idle}");

    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    let seen = wait_for("the status to tell of the apply", Duration::from_secs(60), || {
        let status = fleet.shell("scalr-agent status --format=json");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let task = status["tasks"]["running"].get(0)?.clone();
        let grew = task["log_bytes_acknowledged"].as_u64() > Some(100);
        (task["phase"] == "running" && grew && task["memory_bytes"].is_u64()).then_some(task)
    });
    assert_eq!((&seen["kind"], &seen["slot"]), (&"apply".into(), &0.into()));
    assert!(seen["log_bytes"].as_u64() >= seen["log_bytes_acknowledged"].as_u64(), "{seen}");
    let status = fleet.shell("scalr-agent status");
    assert!(
        status.contains("\n          running for ") && status.contains("slot 1  free"),
        "{status}"
    );
    pool.wait_for_status(&run, "applied");
    fleet.wait_for_agent(&pool, "idle");

    fleet.shell("systemctl stop scalr-agent");
    let log = fleet.shell("journalctl --no-pager --output=cat --unit=scalr-agent");
    let lines: Vec<Map<String, Value>> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_tasks: Vec<_> = lines.iter().filter(|line| line.contains_key("task")).collect();
    for line in &of_tasks {
        assert!(line["attempt"].is_u64(), "{line:?}");
        assert!(line.contains_key("run") || line["message"] == "task offered", "{line:?}");
    }
    let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!((count("task begins"), count("task ended")), (2, 2), "{log}");
    assert!(of_tasks.len() >= 6, "{log}");
    let warnings = lines.iter().filter(|line| {
        line["message"]
            .as_str()
            .is_some_and(|said| said.contains("the telemetry collector does not"))
    });
    assert_eq!(warnings.count(), 1, "{log}");
}

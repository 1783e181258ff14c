//! Plan and apply in containers of the machine.

use serde_json::json;

use crate::fleet::{Fleet, configuration, creating};
use crate::pool::lines_with_end;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_is_planned_and_applied_within_its_limits() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");

    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    assert!(pool.log(&run, "plan").contains("2 to add"), "{}", pool.log(&run, "plan"));

    pool.apply(&run);
    let container = fleet.running_container();
    let uid = fleet.shell("id -u scalr-run");
    assert_ne!(uid, fleet.shell("id -u scalr-agent"));
    assert_eq!(fleet.shell("id -Gn scalr-run"), "scalr-run", "and not the engine's group");
    let limits = &container["HostConfig"];
    assert_eq!(limits["Memory"], json!(536_870_912));
    assert_eq!(limits["NanoCpus"], json!(1_000_000_000));
    assert_eq!(limits["CapDrop"], json!(["ALL"]));
    assert!(limits["SecurityOpt"].to_string().contains("no-new-privileges"), "{limits}");
    assert!(limits["PidsLimit"].as_i64().is_some_and(|limit| limit > 0), "{limits}");
    let user = container["Config"]["User"].as_str().unwrap_or_default();
    assert_eq!(user.split(':').next(), Some(uid.as_str()), "the account of runs");

    pool.wait_for_status(&run, "applied");
    let log = pool.log(&run, "apply");
    assert!(log.contains(&format!("uid={uid}")), "{log}");
    assert!(log.contains("the secret word is") && !log.contains("open sesame"), "{log}");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
    assert_eq!(fleet.containers(), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn user_root_makes_local_exec_root() {
    let fleet = Fleet::boot("centos-8", &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    fleet.install("");
    fleet.shell("scalr-agent configure --user=root");
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");

    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    pool.wait_for_status(&run, "applied");
    let log = pool.log(&run, "apply");
    assert!(log.lines().any(|line| line.trim_end().ends_with("uid=0")), "{log}");

    let script = "touch /etc/by-root && echo the image was changed || echo the image stays";
    let read_only = "scalr-agent configure --writable-root=false && systemctl restart scalr-agent";
    for (configure, end) in [("", "the image was changed"), (read_only, "the image stays")] {
        fleet.shell(configure);
        let name = end.replace(' ', "-");
        let pool = pool.with_workspace(&name, json!({"auto-apply": true}));
        let run = pool.start_run(creating("work", script).path());
        pool.wait_for_ended(&run, "applied");
        let log = pool.log(&run, "apply");
        assert_eq!(lines_with_end(&log, end), 1, "{log}");
    }
}

//! What a run cannot do to its agent: block it by what it leaves in place of its files, or
//! fill its disk.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, configuration};
use crate::machine::wait_for;
use crate::pool::Pool;

/// A sparse file: no byte of it is on the disk.
const SPARSE: &str = "rm -rf \"$file\" && truncate -s 10995116277760 \"$file\"";

/// What a run can leave, and how the agent calls it.
const LEFT: [(&str, &str); 4] = [
    (SPARSE, "has 10995116277760 bytes; the limit is"),
    ("rm -f \"$file\" && mkfifo \"$file\"", "is a FIFO, not a regular file"),
    ("rm -f \"$file\" && ln -s /dev/zero \"$file\"", "is a symbolic link, not a regular file"),
    ("rm -f \"$file\" && mkdir \"$file\"", "is a directory, not a regular file"),
];

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_cannot_block_its_agent() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    fleet.shell("scalr-agent configure --disk=128 && systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    is_interrupted_for_what_it_writes(&pool);
    ends_whatever_its_plan_is(&pool);
    keeps_the_container_of_an_apply_whose_state_cannot_be_taken(&fleet, &pool);
    is_canceled_in_time(&fleet, &pool);
    // It is free for the next run, and no more is left.
    let pool = workspace(&pool, "next");
    pool.wait_for_ended(&pool.start_run(&configuration()), "applied");
    assert_eq!(fleet.containers(), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_that_uses_nearly_all_inodes_of_the_disk_is_interrupted() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let disk = "/var/lib/scalr-docker";
    fleet.shell(&format!(
        "mkdir -p {disk} && mount -t tmpfs -o size=4g,nr_inodes=110000 tmpfs {disk}"
    ));
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let pool = workspace(&pool, "inodes");
    let fill = "mkdir /tmp/many && cd /tmp/many && while [ $(stat -f -c %d /tmp) -gt 5000 ]; do \
                n=$((n + 1)); mkdir $n; (cd $n && seq 1 1000 | xargs mkdir); done";
    pool.hooks(json!({"pre-plan": format!("{fill}\nsleep 3000")}));
    let run = pool.start_run(&configuration());
    pool.wait_for_ended(&run, "errored");
    let message = pool.newest_run()["error-message"].to_string();
    assert!(message.contains("interrupted because of the engine's disk"), "{message}");
    let log = pool.log(&run, "plan");
    assert!(log.contains("Warning: the engine's disk is nearly full"), "{log}");
    pool.hooks(json!({}));
    pool.wait_for_ended(&pool.start_run(&configuration()), "applied");
}

/// A workspace whose plans are applied at once.
fn workspace<'a>(pool: &Pool<'a>, name: &str) -> Pool<'a> {
    let pool = pool.with_workspace(name, json!({"auto-apply": true}));
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    pool
}

fn ends_whatever_its_plan_is(pool: &Pool<'_>) {
    let pool = workspace(pool, "plan");
    for (leave, what) in LEFT {
        pool.hooks(json!({"post-plan": format!("file=/scalr/run/plan\n{leave}")}));
        let run = pool.start_run(&configuration());
        pool.wait_for_ended(&run, "errored");
        let log = pool.log(&run, "plan");
        let expected =
            format!("Error: cannot save the plan: /scalr/run/plan in the run's container {what}");
        assert!(log.contains(&expected), "{log}");
    }
}

fn keeps_the_container_of_an_apply_whose_state_cannot_be_taken(fleet: &Fleet, pool: &Pool<'_>) {
    for (number, (leave, what)) in LEFT.into_iter().enumerate() {
        let pool = workspace(pool, &format!("state-{number}"));
        let hook = format!("file=/scalr/run/terraform.tfstate\n{leave}");
        pool.hooks(json!({"post-apply": hook}));
        let run = pool.start_run(&configuration());
        pool.wait_for_ended(&run, "errored");
        let log = pool.log(&run, "apply");
        assert!(log.contains("Error: cannot save the state: /scalr/run/"), "{log}");
        assert!(log.contains(what), "{log}");
        assert!(pool.is_locked());
        remove_the_kept(fleet);
    }
}

/// The one container that is kept, stopped, for people to look at.
fn remove_the_kept(fleet: &Fleet) {
    let kept = fleet.shell(&format!("{DOCKER} ps --all --filter status=exited --quiet"));
    assert_eq!(kept.lines().count(), 1, "{kept}");
    fleet.shell(&format!("{DOCKER} rm -v {kept}"));
}

fn is_interrupted_for_what_it_writes(pool: &Pool<'_>) {
    let pool = workspace(pool, "disk");
    for fill in [
        "dd if=/dev/zero of=/tmp/fill bs=1M count=300",
        "dd if=/dev/zero of=/scalr/home/fill bs=1M count=300",
        "yes 'a line of the log' | head -n 4000000",
    ] {
        pool.hooks(json!({"pre-plan": format!("{fill}\nsleep 3000")}));
        let run = pool.start_run(&configuration());
        pool.wait_for_ended(&run, "errored");
        let log = pool.log(&run, "plan");
        assert!(log.contains("MB on the engine's disk, more than its 128 MB"), "{fill}: {log}");
        assert!(log.contains("scalr-agent configure --disk MB"), "{fill}: {log}");
    }
}

/// A hook that never ends, over a file that cannot be taken.
fn is_canceled_in_time(fleet: &Fleet, pool: &Pool<'_>) {
    for (kind, file) in [("plan", "/scalr/run/plan"), ("apply", "/scalr/run/terraform.tfstate")] {
        let pool = workspace(pool, &format!("canceled-{kind}"));
        let hook = format!("file={file}\n{SPARSE}\necho holding\nsleep 3000");
        pool.hooks(json!({format!("post-{kind}"): hook}));
        let run = pool.start_run(&configuration());
        wait_for("the run to hold", Duration::from_secs(90), || {
            pool.log(&run, kind).contains("holding\n").then_some(())
        });
        let canceled = Instant::now();
        pool.cancel(&run);
        pool.wait_for_ended(&run, "canceled");
        // The grace, and what docs/runs.md says on top of it.
        assert!(canceled.elapsed() < Duration::from_secs(60 + 60), "{:?}", canceled.elapsed());
        if kind == "apply" {
            assert!(pool.log(&run, kind).contains("has 10995116277760 bytes"));
            assert!(pool.is_locked());
            remove_the_kept(fleet);
        }
    }
}

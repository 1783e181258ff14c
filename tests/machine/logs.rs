//! The log of a run that writes much, and of one that needs too much memory.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::fleet::{DOCKER, Fleet, configuration, kit};
use crate::machine::wait_for;

/// What the agent may have needed at most, in kB, since it was started.
const MOST_MEMORY: u64 = 40 * 1024;

/// How far the long log counts: 106 MB.
const LAST: u32 = 13_000_000;

/// Loads the runs' image with a script as its `terraform`, and makes it the
/// agent's.
fn load_image_with(fleet: &Fleet, terraform: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (tree, archive) = (folder.path().join("bin"), folder.path().join("image.tar"));
    std::fs::create_dir(&tree).expect("a folder");
    std::fs::write(tree.join("terraform"), terraform).expect("a file");
    std::fs::copy(kit().join("run-image.tar"), &archive).expect("the kit has an image");
    // The engine refuses an archive that has a path twice.
    for change in [&["--delete"][..], &["--append", "--mode=0755"]] {
        let changed = std::process::Command::new("tar")
            .args(change)
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(folder.path())
            .arg("./bin/terraform")
            .status()
            .expect("tar starts");
        assert!(changed.success());
    }
    let image = std::fs::read(&archive).expect("it was just written");
    fleet.world.feed(&fleet.machine, &format!("{DOCKER} import - script:test"), &image);
    fleet.shell("scalr-agent configure --image=script:test && systemctl restart scalr-agent");
}

/// The agent's peak memory, in kB.
fn peak(fleet: &Fleet) -> u64 {
    let line = "awk '/VmHWM/ { print $2 }' /proc/$(systemctl show -p MainPID scalr-agent | cut -d= -f2)/status";
    fleet.shell(line).parse().expect("a number of kB")
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_burst_of_100_mb_arrives_whole_through_an_agent_that_stays_small() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    let terraform = format!(
        "#!/bin/sh\ncase $1 in\nversion) echo Terraform v1.11.4 ;;\n\
         plan) seq 1 {LAST}; echo plan >/scalr/run/plan ;;\nesac\n"
    );
    load_image_with(&fleet, &terraform);
    fleet.wait_for_agent(&pool, "idle");

    let run = pool.start_run(&configuration());
    pool.wait_for_ended(&run, "planned_and_finished");
    let mut written = String::new();
    for number in 1..=LAST {
        writeln!(written, "{number}").expect("a text grows");
    }
    let log = pool.log(&run, "plan");
    assert_eq!(log.len(), written.len());
    assert_eq!(Sha256::digest(&log), Sha256::digest(&written));
    let peak = peak(&fleet);
    println!("the agent's peak memory: {peak} kB, for a log of {} bytes", log.len());
    assert!(peak < MOST_MEMORY, "{peak} kB");
}

/// A folder with the kit's configuration, and `provisioner` as what it applies
/// after a resource that is done.
fn eater(command: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let has_data = configuration().join("terraform_data.tf").is_file();
    let kind = if has_data { "terraform_data" } else { "null_resource" };
    let text = format!(
        "resource \"{kind}\" \"before\" {{}}\n\
         resource \"{kind}\" \"eater\" {{\n  depends_on = [{kind}.before]\n  \
         provisioner \"local-exec\" {{\n    command = <<-EOT\n{command}\n    EOT\n  }}\n}}\n\
         output \"before\" {{\n  value = {kind}.before.id\n}}\n"
    );
    std::fs::write(folder.path().join("main.tf"), text).expect("a file");
    folder
}

/// The log of an apply that has to fail; `meanwhile` is done once it provisions.
fn applied(fleet: &Fleet, configuration: &Path, meanwhile: impl FnOnce()) -> String {
    let pool = fleet.pool();
    fleet.install("--memory 256");
    fleet.wait_for_agent(&pool, "idle");
    let run = pool.start_run(configuration);
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    wait_for("the provisioner to begin", Duration::from_secs(60), || {
        pool.log(&run, "apply").contains("local-exec").then_some(())
    });
    meanwhile();
    pool.wait_for_ended(&run, "errored");
    assert!(pool.output("before").is_string(), "the state was saved");
    pool.log(&run, "apply")
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_that_nears_its_memory_is_interrupted_and_its_state_is_written() {
    // Half of it soon, the rest so slowly that even a busy machine has looked
    // several times between 80 % and the end: 1 MB more, five times a second.
    let eat = r#"awk 'BEGIN { while (1) { s[n] = sprintf(n < 25 ? "%4000000s" : "%1000000s", ""); n++; system("sleep 0.2") } }'"#;
    let fleet = Fleet::boot_with_package();
    let log = applied(&fleet, eater(eat).path(), || ());
    let warned = log.find("more than 80 % of its 256 MB").unwrap_or_else(|| panic!("{log}"));
    let interrupted = log.find("Interrupt received").unwrap_or_else(|| panic!("{log}"));
    assert!(warned < interrupted, "{log}");
    assert!(log.contains("configure --memory MB"), "{log}");
    assert!(!log.contains("the kernel killed"), "{log}");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_kernels_kill_for_memory_is_reported_as_such() {
    let eat = r#"until [ -e /tmp/go ]; do sleep 0.1; done
        awk 'BEGIN { s = sprintf("%900000000s", ""); print length(s) }'"#;
    let fleet = Fleet::boot_with_package();
    let log = applied(&fleet, eater(eat).path(), || {
        let running = || fleet.running_containers();
        let tell_agent = |signal: &str| {
            let agent = "$(systemctl show -p MainPID scalr-agent | cut -d= -f2)";
            fleet.shell(&format!("kill -{signal} {agent}"));
        };
        // However slowly it eats, the agent does not look in between.
        tell_agent("STOP");
        fleet.shell(&format!("{DOCKER} exec {} touch /tmp/go", running()));
        let ended = || running().is_empty().then_some(());
        wait_for("the container to end", Duration::from_secs(60), ended);
        tell_agent("CONT");
    });
    assert!(log.contains("the kernel killed a process of the run"), "{log}");
    assert!(log.contains("256 MB") && log.contains("configure --memory MB"), "{log}");
}

//! What a run can reach and change: its own folder, and nothing of the host or of
//! another slot.

use serde_json::{Value, json};

use crate::environment::{container, hold, let_on};
use crate::fleet::{DOCKER, Fleet, kit};

/// Looks about from inside, and waits to be let on.
const HOOK: &str = "\
grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status
awk '$2 == \"/\" { print \"root is\", substr($4, 1, 2) }' /proc/mounts
for place in /tmp . \"$HOME\" /scalr/run; do
    echo >\"$place/mine\" && rm \"$place/mine\" || echo \"cannot write to $place\"
done
for place in /run/scalr-docker /var/run/docker.sock /run/docker.sock /etc/scalr-agent \\
    /var/lib/scalr-agent /var/lib/scalr-docker /run/systemd; do
    [ ! -e $place ] || echo \"sees $place\"
done
echo holding
until [ -e /tmp/go ]; do sleep 0.2; done
";

/// The address of a cloud's metadata service.
const METADATA: &str = "169.254.169.254";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_changes_its_own_folder_and_reaches_no_other_slot() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let other = pool.with_workspace("beside", json!({"auto-apply": false}));
    fleet.install("--concurrency 2");
    import_without_tmp(&fleet);
    fleet.wait_for_agent(&pool, "idle");
    for pool in [&pool, &other] {
        pool.variable("greeting", "terraform", false, "hello");
        pool.variable("steps", "terraform", false, "1");
        pool.hooks(json!({"pre-plan": HOOK}));
    }
    other.patch_workspace(json!({"image": "without-tmp:1"}));
    let (run, other_run) = (hold(&pool), hold(&other));

    let inside = container(&fleet, &run);
    let inspected = inspect(&fleet, &inside);
    assert_eq!(inspected["HostConfig"]["ReadonlyRootfs"], true);
    // The engine's own profile of system calls, which it would name if it were not.
    assert_eq!(inspected["HostConfig"]["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(inspected["HostConfig"]["Binds"], Value::Null);
    let log = pool.log(&run, "plan");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "root is ro"] {
        assert!(log.lines().any(|found| found == line), "{line:?} not in {log}");
    }
    assert!(!log.contains("cannot write") && !log.contains("sees /"), "{log}");
    let as_root = format!("{DOCKER} exec --user 0 {inside} touch /bin/new 2>&1 || :");
    assert!(fleet.shell(&as_root).contains("Read-only file system"));

    // An image without /tmp keeps a root that it can be made in.
    let outside = container(&fleet, &other_run);
    assert_eq!(inspect(&fleet, &outside)["HostConfig"]["ReadonlyRootfs"], false);
    let log = other.log(&other_run, "plan");
    assert!(log.contains("root is rw") && !log.contains("cannot write"), "{log}");

    // From slot to slot, and to the metadata service.
    let address = address(&inspected);
    fleet.shell(&format!("{DOCKER} exec --detach {inside} nc -ll -p 9999 -e echo hello"));
    let from_host = format!("timeout 5 bash -c 'head -n 1 </dev/tcp/{address}/9999'");
    assert_eq!(fleet.shell(&from_host), "hello", "there is something to be reached");
    let from = |container: &str, address: &str, port: u16| {
        let connect = format!("nc -w 3 {address} {port} </dev/null 2>&1; :");
        fleet.shell(&format!("{DOCKER} exec {container} sh -c '{connect}'"))
    };
    assert_eq!(from(&inside, "127.0.0.1", 9999), "hello");
    assert!(from(&outside, &address, 9999).contains("timed out"), "the other slot");
    let metadata = ["ip", "address", "add", METADATA, "dev", "lo"];
    assert!(fleet.world.command("server", &metadata).status().expect("it starts").success());
    let from_host = format!("timeout 5 bash -c '</dev/tcp/{METADATA}/80' 2>&1 || :");
    assert!(fleet.shell(&from_host).contains("refused"), "the host reaches it");
    assert!(from(&inside, "192.0.2.1", 80).contains("refused"), "what lies beside it");
    assert!(from(&inside, METADATA, 80).contains("timed out"), "the metadata service");

    // All that the agent takes out of a container comes out of this one.
    let_on(&fleet, &run);
    let_on(&fleet, &other_run);
    pool.wait_for_status(&run, "planned");
    other.wait_for_status(&other_run, "planned");
    pool.apply(&run);
    pool.wait_for_status(&run, "applied");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
    // Volumes without a name go with their containers, and what waits for a run with the agent.
    fleet.shell("systemctl stop scalr-agent");
    let left = format!("{{ {DOCKER} ps --all --quiet; {DOCKER} volume ls --quiet; }}");
    assert_eq!(fleet.shell(&format!("{left} | grep -E '^[0-9a-f]+$' || :")), "");
}

/// The runs' image, without its folder /tmp.
fn import_without_tmp(fleet: &Fleet) {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("image.tar");
    std::fs::copy(kit().join("run-image.tar"), &archive).expect("the kit has an image");
    let mut tar = std::process::Command::new("tar");
    let changed = tar.args(["--delete", "--file"]).arg(&archive).arg("./tmp").status();
    assert!(changed.expect("tar starts").success());
    let image = std::fs::read(&archive).expect("it was just written");
    fleet.world.feed(&fleet.machine, &format!("{DOCKER} import - without-tmp:1"), &image);
}

fn inspect(fleet: &Fleet, container: &str) -> Value {
    let text = fleet.shell(&format!("{DOCKER} inspect {container}"));
    serde_json::from_str::<Value>(&text).expect("JSON")[0].take()
}

/// A container's address in its slot's network.
fn address(inspected: &Value) -> String {
    let networks = inspected["NetworkSettings"]["Networks"].as_object().expect("networks");
    let addresses: Vec<_> = networks.values().filter_map(|one| one["IPAddress"].as_str()).collect();
    assert_eq!(addresses.len(), 1, "the slot's network alone: {inspected}");
    addresses[0].to_owned()
}

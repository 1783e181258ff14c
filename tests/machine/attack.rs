//! A run that tries every address, file, device and token that is not its own, on
//! each engine: it gets none of them. What it tries is there, as the host shows.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::environment::hold;
use crate::fleet::{DOCKER, Fleet, URL, configuration, kit};
use crate::host_docker::{self, Compose};
use crate::lifecycle::package;
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// Where clouds answer with the host's credentials. The first one is also the host's
/// resolver, as on Google's.
const METADATA: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"];

/// The same by IPv6, as on Amazon's.
const METADATA_V6: &str = "fd00:ec2::254";

/// The host's address in that network.
const OWN_V6: &str = "fd00:ec2::1";

/// Answers whatever comes by UDP on port 69 of the addresses in its arguments: the end of
/// a file, as the run's TFTP client understands it.
const ANSWER_UDP: &str = "\
import socket, sys, threading
def serve(address):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((address, 69))
        while True:
            port.sendto(b'\\0\\3\\0\\1hello', port.recvfrom(2048)[1])
for address in sys.argv[1:]:
    threading.Thread(target=serve, args=(address,)).start()
";

/// Whether an address answers by UDP.
const ASK_UDP: &str = "\
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
port = socket.socket(family, socket.SOCK_DGRAM)
port.settimeout(3)
port.sendto(b'any', (sys.argv[1], 69))
port.recvfrom(2048)
";

/// Services of the host, as they listen on all its addresses.
const HOST_PORTS: [u16; 2] = [22, 2375];

/// What a web service in a container of the host's own Docker publishes.
const PUBLISHED: u16 = 8080;

/// Leaves the rules of the host's Docker, which it does not put up again by itself.
const REMOVE_OURS: &str = "iptables -F SCALR-AGENT; iptables -D INPUT -j SCALR-AGENT-INPUT; :";

/// Waits with something that others could connect to.
const VICTIM: &str = "\
nc -ll -p 9999 -e echo hello &
echo holding
until [ -e /tmp/go ]; do sleep 0.2; done
kill $!
";

/// Takes what it can; `TARGETS` are addresses with ports.
const ATTACK: &str = r#"
set -- $(awk '$2 == "00000000" { print $3 }' /proc/net/route | sed 's/../0x& /g')
gateway=$(printf '%d.%d.%d.%d' $4 $3 $2 $1)
for target in 192.0.2.1:80 TARGETS $gateway:22 $gateway:2375 $gateway:8080; do
    { nc -w 3 ${target%:*} ${target##*:} </dev/null >/dev/null 2>&1 && echo "GOT $target"; } &
done
for address in 192.0.2.1 UDP_ADDRESSES $gateway; do
    { timeout 5 tftp -g -r file -l /tmp/udp.$address $address 2>/dev/null
      grep -q hello /tmp/udp.$address 2>/dev/null && echo "GOT UDP $address"; } &
done
wait
! grep -v ' lo$' /proc/net/if_inet6 2>/dev/null || echo "GOT an IPv6 address"
! ip -6 address add fd00:ec2::9/64 dev eth0 2>/dev/null || echo "GOT a chosen IPv6 address"
nslookup pools.test | grep -q 192.0.2.1 && echo "GOT names"

for file in /run/scalr-docker /run/docker.sock /var/run/docker.sock /run/containerd \
    /run/scalr-agent-network.sock /run/systemd /run/log /var/log/journal /etc/scalr-agent \
    /etc/docker /var/lib/scalr-agent /var/lib/scalr-docker /var/lib/docker /root/pool.token \
    /proc/1/root/etc/scalr-agent; do
    [ ! -e $file ] || echo "GOT $file"
done
for file in /dev/mem /dev/kmsg /dev/sda /dev/vda /dev/fuse /proc/kcore /proc/kmsg /proc/keys \
    /proc/timer_list /proc/scsi/scsi /sys/firmware/dmi/tables/DMI; do
    [ -z "$(head -c 1 $file 2>/dev/null | tr '\0' x)" ] || echo "GOT $file"
done
for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper \
    /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    [ ! -w $file ] || echo "GOT write access to $file"
done
# None to send raw packets with, for example, and no system calls for keyrings.
for line in 'CapEff:	0000000000000000' 'CapBnd:	0000000000000000' 'NoNewPrivs:	1' 'Seccomp:	2'; do
    grep -q "^$line\$" /proc/self/status || echo "GOT other than $line"
done
! mknod /tmp/device b 8 0 2>/dev/null || echo "GOT a device"
! mount -t tmpfs none /tmp 2>/dev/null || echo "GOT a mount"
! unshare -r true 2>/dev/null || echo "GOT a user namespace"
! chroot / true 2>/dev/null || echo "GOT chroot"
ps | grep -E 'scalr-agent|dockerd|containerd|systemd' | grep -v grep | sed 's/^/GOT process /'
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo >/tmp/loot 2>/dev/null
echo holding
until [ -e /tmp/go ]; do sleep 0.2; done
"#;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_on_the_private_engine_reaches_nothing_but_its_own() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    serve(&fleet);
    fleet.install("--concurrency 2");
    fleet.wait_for_agent(&pool, "idle");
    let listening = fleet.shell("ss -Hlntup | grep -e scalr-agent -e dockerd -e containerd || :");
    assert_eq!(listening, "", "neither the agent nor its engine listens on a port");
    // As `nft flush ruleset` or a restart of another firewall does.
    fleet.shell(
        "iptables -F && iptables -X && iptables -t nat -F && iptables -t nat -X && ip6tables -F",
    );
    attack(&fleet, &pool, DOCKER, None);
    assert_repair_is_logged(&fleet.shell("journalctl --no-pager -u scalr-agent"));
    no_task_is_taken_while_iptables_is_broken(&fleet, &pool);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_on_the_hosts_docker_reaches_nothing_but_its_own() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    serve(&fleet);
    host_docker::start(&fleet);
    let published = publish(&fleet);
    fleet.copy(&package("small", "deb"), "/root/agent.deb", "0644");
    fleet.copy(&kit().join("bin/scalr-agent-setup"), "/root/setup", "0755");
    fleet.shell(&format!(
        "chmod 0755 /root/setup && /root/setup install --url {URL} --token-file /root/pool.token \
         --package /root/agent.deb --image scalr-run:test --engine system --concurrency 2"
    ));
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell(REMOVE_OURS);
    attack(&fleet, &pool, host_docker::DOCKER, Some(&published));
    assert_repair_is_logged(&fleet.shell("journalctl --no-pager -u scalr-agent"));
    no_task_is_taken_while_iptables_is_broken(&fleet, &pool);
}

#[test]
#[ignore = "needs root, a kit and docker-compose: run scripts/test"]
fn a_run_of_an_agent_in_a_container_reaches_nothing_but_its_own() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    serve(&fleet);
    host_docker::start(&fleet);
    let published = publish(&fleet);
    host_docker::build_image(&fleet);
    host_docker::give_settings(&fleet, &pool, "concurrency = 2\n");
    let compose = Compose::new(&fleet);
    compose.run(&["up", "--detach"]);
    fleet.wait_for_agent(&pool, "idle");
    let agent = pool.agent();
    assert_eq!(agent["runtime"], "docker", "{agent}");
    let memory = ["host", "run"].map(|of| agent[format!("{of}-memory-megabytes")].as_u64());
    assert!(memory[0] > memory[1] && memory[1] == Some(512), "{agent}");
    fleet.shell(REMOVE_OURS);
    attack(&fleet, &pool, host_docker::DOCKER, Some(&published));
    let docker = host_docker::DOCKER;
    let service = "label=com.docker.compose.service=agent";
    let log = format!("{docker} logs $({docker} ps --quiet --filter {service}) 2>&1");
    assert_repair_is_logged(&fleet.shell(&log));
    // The agent may be verifying the rules just now.
    wait_for(
        "the container that verifies the rules to be removed",
        Duration::from_secs(60),
        || {
            let left = format!("{docker} ps --all --quiet --filter name=agent-network");
            fleet.shell(&left).is_empty().then_some(())
        },
    );
    compose.run(&["down"]);
}

/// Answers on the metadata addresses, names on the first of them, and beside them; and
/// on ports of the host.
fn serve(fleet: &Fleet) {
    for address in METADATA {
        let add = ["ip", "address", "add", address, "dev", "lo"];
        assert!(fleet.world.command("server", &add).status().expect("it starts").success());
    }
    let web = ["python3", "-m", "http.server", "--bind", "0.0.0.0", "80"].map(OsStr::new);
    drop(fleet.world.start("server", &web, Path::new("/dev/null")));
    fleet.serve_names_at(METADATA[0]);
    let network = format!("{METADATA_V6}/64");
    let add = ["ip", "address", "add", &network, "dev", "lan", "nodad"];
    assert!(fleet.world.command("server", &add).status().expect("it starts").success());
    let web = ["python3", "-m", "http.server", "--bind", METADATA_V6, "80"].map(OsStr::new);
    drop(fleet.world.start("server", &web, Path::new("/dev/null")));
    fleet.shell(&format!("ip address add {OWN_V6}/64 dev eth0 nodad"));
    let udp = [&["python3", "-c", ANSWER_UDP, "192.0.2.1", METADATA_V6], &METADATA[..]].concat();
    let udp: Vec<&OsStr> = udp.into_iter().map(OsStr::new).collect();
    drop(fleet.world.start("server", &udp, Path::new("/dev/null")));
    fleet.put("/root/answer_udp.py", "0644", ANSWER_UDP.as_bytes());
    fleet.put("/root/ask_udp.py", "0644", ASK_UDP.as_bytes());
    // By name as well, so that answers come from the address that was asked.
    let own = own_address(fleet);
    fleet.shell(&format!("systemd-run --quiet python3 /root/answer_udp.py 0.0.0.0 {own} {OWN_V6}"));
    for port in HOST_PORTS {
        fleet.shell(&format!("systemd-run --quiet python3 -m http.server {port}"));
    }
}

/// The address of the machine in the network that the server is in.
fn own_address(fleet: &Fleet) -> String {
    fleet.shell("ip -4 -o address show dev eth0 | awk '{ print $4 }' | cut -d/ -f1")
}

/// A service in a container of the host's own Docker; gives its address there.
fn publish(fleet: &Fleet) -> String {
    let docker = host_docker::DOCKER;
    fleet.shell(&format!(
        "{docker} run --detach --name web --publish {PUBLISHED}:80 scalr-run:test httpd -f -p 80"
    ));
    fleet.shell(&format!("{docker} inspect --format '{{{{.NetworkSettings.IPAddress}}}}' web"))
}

/// Two runs at once: one waits, and the other attacks it and everything else.
fn attack(fleet: &Fleet, pool: &Pool<'_>, docker: &str, published: Option<&str>) {
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    let other = pool.with_workspace("beside", json!({"auto-apply": false}));
    other.variable("greeting", "terraform", true, "mum's the word");
    other.variable("steps", "terraform", false, "1");
    other.hooks(json!({"pre-plan": VICTIM}));
    let victim = hold(&other);
    let victim_id = container(fleet, docker, &victim);
    let victim_address = fleet.shell(&format!(
        "{docker} inspect --format '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}\
         {{{{end}}}}' {victim_id}"
    ));
    let own = own_address(fleet);

    let mut targets: Vec<String> = METADATA.iter().map(|address| format!("{address}:80")).collect();
    targets.push(format!("{METADATA_V6}:80"));
    targets.push(format!("{victim_address}:9999"));
    targets.extend(HOST_PORTS.map(|port| format!("{own}:{port}")));
    if let Some(address) = published {
        targets.push(format!("{own}:{PUBLISHED}"));
        targets.push(format!("{address}:80"));
    }
    for target in &targets {
        let (address, port) = target.rsplit_once(':').expect("a port");
        let line = format!("timeout 5 bash -c '</dev/tcp/{address}/{port}'");
        wait_for(&format!("the host to reach {target}"), Duration::from_secs(20), || {
            fleet.world.try_shell(&fleet.machine, &line).status.success().then_some(())
        });
    }

    let udp = [&METADATA[..], &[METADATA_V6, OWN_V6, own.as_str()]].concat();
    for address in udp.iter().chain(&["192.0.2.1"]) {
        let line = format!("python3 /root/ask_udp.py {address}");
        wait_for(&format!("{address} to answer the host"), Duration::from_secs(20), || {
            fleet.world.try_shell(&fleet.machine, &line).status.success().then_some(())
        });
    }

    let script = ATTACK.replace("UDP_ADDRESSES", &udp.join(" "));
    pool.hooks(json!({"pre-plan": script.replace("TARGETS", &targets.join(" "))}));
    let run = hold(pool);
    let log = pool.log(&run, "plan");
    let mut got: Vec<&str> = log.lines().filter(|line| line.contains("GOT ")).collect();
    got.sort_unstable();
    assert_eq!(
        got,
        ["GOT 192.0.2.1:80", "GOT UDP 192.0.2.1", "GOT names"],
        "beside what it may reach: {log}"
    );

    let id = container(fleet, docker, &run);
    let loot = fleet.shell(&format!("{docker} exec {id} cat /tmp/loot | tr '\\0' '\\n'"));
    assert!(loot.contains("open sesame"), "this finds what there is: its own variable");
    for secret in [pool.token.as_str(), "mum's the word", "sess-", "scalr-agent/tasks"] {
        assert!(!loot.contains(secret), "{secret} in {loot}");
    }
    for (pool, run, id) in [(pool, &run, &id), (&other, &victim, &victim_id)] {
        fleet.shell(&format!("{docker} exec {id} touch /tmp/go"));
        pool.wait_for_status(run, "planned");
    }
    pool.hooks(json!({}));
}

fn container(fleet: &Fleet, docker: &str, run: &Run) -> String {
    fleet.container_of(docker, run)
}

fn assert_repair_is_logged(log: &str) {
    assert!(log.contains("firewall rules of runs were missing or out of date: put up"), "{log}");
}

/// The run waits, its pool knows why, and it goes on when iptables works again.
fn no_task_is_taken_while_iptables_is_broken(fleet: &Fleet, pool: &Pool<'_>) {
    fleet.wait_for_agent(pool, "idle");
    fleet.shell(
        "printf '#!/bin/sh\\necho iptables is broken >&2; exit 3\\n' >/usr/local/sbin/iptables && \
         chmod 0755 /usr/local/sbin/iptables",
    );
    let other = pool.with_workspace("waits", json!({"auto-apply": false}));
    other.variable("greeting", "terraform", false, "hello");
    other.variable("steps", "terraform", false, "1");
    let run = other.start_run(&configuration());
    fleet.wait_for_agent(pool, "errored");
    let message = pool.agent_message();
    assert!(message.contains("iptables is broken"), "{message}");
    assert_ne!(other.status(&run), "planning");
    assert_eq!(other.log(&run, "plan"), "");
    let check = fleet.shell("scalr-agent-setup check --only firewall-rules 2>&1 || :");
    assert!(check.contains("FAILED   firewall-rules"), "{check}");
    fleet.shell("rm /usr/local/sbin/iptables");
    other.wait_for_status(&run, "planned");
}

//! A Docker of the host's own: ours neither sees nor disturbs it, or is left out
//! in favour of it.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::fleet::{Fleet, URL, configuration, kit, refusal};
use crate::lifecycle::package;
use crate::machine::{text, wait_for};
use crate::pool::Pool;

/// The host's docker.
pub(crate) const DOCKER: &str = "/opt/docker/bin/docker";

/// As a distribution starts them: their own default sockets, folders and rules.
const UNITS: &str = r"
cat >/etc/systemd/system/containerd.service <<'UNIT'
[Service]
Type=notify
Environment=PATH=/opt/docker/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/docker/bin/containerd
Delegate=yes
KillMode=process
UNIT
cat >/etc/systemd/system/docker.service <<'UNIT'
[Unit]
Requires=containerd.service
After=containerd.service
[Service]
Type=notify
Environment=PATH=/opt/docker/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/docker/bin/dockerd --containerd=/run/containerd/containerd.sock --group docker
Delegate=yes
KillMode=process
UNIT
getent group docker >/dev/null || groupadd --system docker
systemctl daemon-reload && systemctl start docker
";

/// Everything that is the host's Docker's, its containerd's and its firewall's.
/// What it leaves of ours: a chain, and the bridges of slots.
const STATE: &str = "
docker=/opt/docker/bin/docker; ctr=/opt/docker/bin/ctr
$docker ps --all --no-trunc --format '{{.ID}} {{.Image}} {{.Names}}'
$docker inspect --format '{{.State.Pid}} {{.State.StartedAt}}' $($docker ps --quiet)
$docker images --all --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}'; $docker network ls --no-trunc; $docker volume ls
$ctr --namespace others containers ls; $ctr --namespace others images ls
systemctl show --property=MainPID,ActiveState docker containerd
iptables-save | grep -v -e '^#' -e SCALR-AGENT | sed 's/ \\[.*//'
ip -o link | grep -v ' scalr-' | cut -d: -f2- | sort
ls -A /run/containerd /run/docker /var/lib/containerd /var/lib/docker /etc/docker 2>&1";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_docker_and_a_containerd_of_the_host_are_neither_seen_nor_disturbed() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    start(&fleet);
    fleet.shell(&format!(
        "{DOCKER} network create theirs && \
         {DOCKER} run --detach --name web --network theirs --publish 8080:80 scalr-run:test \
             sleep 100000 && \
         {DOCKER} run --detach --name stays --restart always scalr-run:test sleep 100000"
    ));
    // Somebody else's containers, which Docker knows nothing of.
    fleet.shell(
        "/opt/docker/bin/docker save scalr-run:test >/root/other.tar && \
         /opt/docker/bin/ctr --namespace others images import /root/other.tar",
    );
    let before = fleet.shell(STATE);

    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell(STATE), before, "after the installation");
    run_to_the_end(&pool);
    assert_eq!(fleet.shell(STATE), before, "after a run");
    assert_eq!(fleet.containers(), "");
    fleet.shell("systemctl restart scalr-containerd scalr-docker");
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell(STATE), before, "after a restart of the private engine");
    fleet.shell("scalr-agent-setup uninstall --purge");
    assert_eq!(fleet.shell(STATE), before, "after the removal");
    assert_eq!(fleet.shell("iptables-save | grep -c SCALR-AGENT || :"), "0");

    // The other way round: theirs comes and goes, and ours stays.
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let ours = "systemctl show --property=MainPID scalr-agent scalr-docker scalr-containerd; \
        iptables --list-rules SCALR-AGENT";
    let before = fleet.shell(ours);
    fleet.shell("systemctl restart docker containerd");
    assert_eq!(fleet.shell(ours), before);
    // It has nothing to change any more.
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned_and_finished");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_package_without_an_engine_uses_the_hosts_docker() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    start(&fleet);
    fleet.copy(&package("small", "deb"), "/root/agent.deb", "0644");
    fleet.copy(&kit().join("bin/scalr-agent-setup"), "/root/scalr-agent-setup", "0755");
    let install = format!(
        "chmod 0755 /root/scalr-agent-setup && /root/scalr-agent-setup install --url {URL} \
         --token-file /root/pool.token --package /root/agent.deb --image scalr-run:test"
    );
    let said = refusal(&fleet.world.try_shell(&fleet.machine, &install));
    assert!(said.contains("add --engine system"), "{said}");
    assert_eq!(fleet.shell("ls -d /usr/bin/scalr-agent /etc/scalr-agent 2>/dev/null || :"), "");

    // No group docker; and first one that the agent must not be in.
    fleet.shell("groupmod --new-name builders docker && chgrp root /run/docker.sock");
    let said = fleet.world.try_shell(&fleet.machine, &format!("{install} --engine system"));
    assert!(text(&said).contains("its group is root"), "{}", text(&said));
    assert_eq!(fleet.shell("ls -d /usr/bin/scalr-agent /etc/scalr-agent 2>/dev/null || :"), "");
    fleet.shell("chgrp builders /run/docker.sock");

    fleet.shell(&format!("{install} --engine system"));
    fleet.wait_for_agent(&pool, "idle");
    let checked = fleet.shell("scalr-agent-setup check --only engine -v");
    assert!(checked.contains("the group builders may use it"), "{checked}");
    assert_eq!(fleet.shell("systemctl is-active scalr-docker || :"), "inactive");
    run_to_the_end(&pool);

    let theirs = fleet.shell(&format!("{DOCKER} run --detach scalr-run:test sleep 100000"));
    fleet.shell("scalr-agent-setup uninstall --purge");
    assert_eq!(fleet.shell("getent group builders | cut -d: -f4"), "");
    assert_eq!(fleet.shell(&format!("{DOCKER} ps --all --quiet --no-trunc")), theirs);
    assert_eq!(
        fleet.shell(&format!("{DOCKER} network ls --format '{{{{.Name}}}}' | grep scalr || :")),
        ""
    );
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn podman_and_a_rootless_docker_are_refused_by_name_before_anything_is_changed() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let _pool = fleet.pool();
    for (recorded, name) in [
        ("podman-4.3.1", "it is Podman 4.3.1"),
        ("docker-20.10.24-rootless", "it is a rootless Docker"),
    ] {
        answer_as(recorded, &fleet);
        for line in [
            Fleet::install_line("--engine system"),
            Fleet::install_line("--engine system --dry-run"),
        ] {
            let said = refusal(&fleet.world.try_shell(&fleet.machine, &format!("{line} 2>&1")));
            assert!(said.contains(name), "{said}");
            assert!(said.contains("--engine bundled"), "{said}");
        }
        let ours = fleet.shell("find /etc /usr /var /tmp -name '*scalr*'");
        assert_eq!(ours, "", "after {recorded}");
    }
}

/// Has a recorded engine answer on the socket of the machine's Docker, until the next one.
fn answer_as(recorded: &'static str, fleet: &Fleet) {
    let socket = fleet.world.root(&fleet.machine).join("run/docker.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("the machine takes a socket");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("the socket is ours");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).unwrap_or_default();
            let asked = String::from_utf8_lossy(&asked[..length]);
            let question = if asked.contains("/info") { "info" } else { "version" };
            let file = source(&format!("src/host/recorded/engines/{recorded}-{question}.json"));
            let answer = fs::read(file).expect("it was recorded");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            // One that asks no more is no fault.
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
        }
    });
}

#[test]
#[ignore = "needs root, a kit and docker-compose: run scripts/test"]
fn the_agent_runs_as_a_container_of_the_hosts_docker() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    start(&fleet);
    build_image(&fleet);

    give_settings(&fleet, &pool, "");
    let compose = Compose::new(&fleet);
    compose.run(&["up", "--detach"]);
    fleet.wait_for_agent(&pool, "idle");
    let agent = format!("{DOCKER} ps --quiet --filter label=com.docker.compose.service=agent");
    let ids =
        fleet.shell(&format!("{DOCKER} exec $({agent}) id -u; {DOCKER} exec $({agent}) id -G"));
    let group = fleet.shell("stat --format=%g /var/run/docker.sock");
    assert_eq!(ids, format!("65532\n65532 {group}"));

    // Killed in the middle, it goes on where it was.
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    let name = "name=^task-";
    wait_for("the apply's container", Duration::from_secs(60), || {
        let found = fleet.shell(&format!("{DOCKER} ps --quiet --filter {name}"));
        (!found.is_empty()).then_some(())
    });
    let user = format!(
        "{DOCKER} inspect --format '{{{{.Config.User}}}}' $({DOCKER} ps --quiet --filter {name})"
    );
    assert_eq!(fleet.shell(&user), "65533:65533", "not the agent's, which may use the socket");
    compose.run(&["kill", "--signal", "KILL"]);
    compose.run(&["up", "--detach"]);
    pool.wait_for_status(&run, "applied");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));

    compose.run(&["down"]);
    fleet.wait_for_agent(&pool, "offline");
}

/// The settings of an agent in a container, and `more` of them.
pub(crate) fn give_settings(fleet: &Fleet, pool: &Pool<'_>, more: &str) {
    let settings =
        format!("url = \"{URL}\"\ntoken = \"{}\"\nimage = \"scalr-run:test\"\n{more}", pool.token);
    fleet.world.feed(
        &fleet.machine,
        "mkdir /root/compose && cat >/root/compose/agent.toml && \
         chown 65532 /root/compose/agent.toml && chmod 0400 /root/compose/agent.toml",
        settings.as_bytes(),
    );
}

/// docker-compose on this host, with the machine's Docker.
pub(crate) struct Compose<'a> {
    fleet: &'a Fleet,
    work: TempDir,
}

impl<'a> Compose<'a> {
    pub(crate) fn new(fleet: &'a Fleet) -> Self {
        let work = tempfile::tempdir().expect("a work folder");
        // What a DNS and a company's base image would bring.
        let address = fleet.shell("getent hosts pools.test | cut -d' ' -f1");
        let more = format!(
            "version: \"3.7\"\nservices:\n  agent:\n    extra_hosts: [\"pools.test:{address}\"]\n    \
             environment: {{SCALR_AGENT_CA_CERT: /etc/pools.crt}}\n    volumes:\n      \
             - /usr/local/share/ca-certificates/pools.crt:/etc/pools.crt:ro\n"
        );
        fs::write(work.path().join("more.yaml"), more).expect("the work folder takes files");
        Self { fleet, work }
    }

    pub(crate) fn run(&self, words: &[&str]) {
        let pid = self.fleet.world.pid(&self.fleet.machine);
        let group = self.fleet.shell("stat --format=%g /var/run/docker.sock");
        let output = Command::new("docker-compose")
            .env("DOCKER_HOST", format!("unix:///proc/{pid}/root/run/docker.sock"))
            .env("DOCKER_GROUP", group)
            .args(["--project-directory", "/root/compose", "--file"])
            .arg(source("pkg/docker/compose.yaml"))
            .arg("--file")
            .arg(self.work.path().join("more.yaml"))
            .args(words)
            .output()
            .expect("docker-compose starts");
        assert!(output.status.success(), "{words:?}: {}", text(&output));
    }
}

/// Builds the agent's image there, upon parts of the machine itself: no registry can
/// be reached.
pub(crate) fn build_image(fleet: &Fleet) {
    fleet.copy(&source("pkg/docker/Dockerfile"), "/root/context/Dockerfile", "0644");
    for program in ["scalr-agent", "scalr-agent-setup"] {
        let path = format!("/root/context/usr/bin/{program}");
        fleet.copy(&kit().join("bin").join(program), &path, "0755");
    }
    fleet.shell(&format!(
        "tar --create --directory / bin sbin lib lib64 usr/bin usr/sbin usr/lib/x86_64-linux-gnu \
             usr/lib64 etc/alternatives etc/ssl etc/passwd etc/group usr/share/ca-certificates | \
             {DOCKER} import - base:test && \
         {DOCKER} build --build-arg BASE=base:test --tag scalr-agent /root/context"
    ));
}

fn source(path: &str) -> PathBuf {
    tests::checkout(path)
}

/// Starts the host's Docker, with the runs' image in it.
pub(crate) fn start(fleet: &Fleet) {
    fleet.copy(&package("packages", "deb"), "/root/a.deb", "0644");
    fleet.shell(
        "dpkg-deb --extract /root/a.deb /root/a && mkdir -p /opt/docker && \
         mv /root/a/usr/lib/scalr-agent/engine /opt/docker/bin && rm -r /root/a /root/a.deb && \
         ln -s /opt/docker/bin/docker /usr/bin/docker",
    );
    fleet.shell(UNITS);
    let image = fs::read(kit().join("run-image.tar")).expect("the kit has an image");
    fleet.world.feed(&fleet.machine, &format!("{DOCKER} import - scalr-run:test"), &image);
}

fn run_to_the_end(pool: &Pool<'_>) {
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    pool.wait_for_status(&run, "applied");
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
}

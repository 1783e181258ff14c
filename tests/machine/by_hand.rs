//! The way by hand: the package tool's own installation, `configure`, and systemd.

use crate::fleet::{Fleet, URL, configuration};
use crate::pool::Pool;

/// Puts the repository up, for the package tool.
const ADD: &str = "curl -fsSL https://pools.test:8443/install.sh | sh -s -- --repository-only";

/// What stays of an agent: accounts, folders, units, drop-ins. The lock in /run is not removed:
/// another process may just have opened it.
const LEFT: &str = "getent passwd scalr-agent scalr-run; \
    getent group scalr-agent scalr-run scalr-docker; \
    find /etc/scalr-agent /var/lib/scalr* /run/scalr* /srv /etc/systemd/system/*scalr* \
        /usr/bin/scalr* ! -path '/srv/repositories*' ! -name scalr-agent-setup.lock 2>/dev/null; \
    true";

/// Configures the agent, starts it, and plans with it.
fn work(fleet: &Fleet, pool: &Pool<'_>, options: &str) {
    fleet.shell(&format!(
        "scalr-agent configure --url {URL} --token-file /root/pool.token {options}"
    ));
    fleet.shell("systemctl enable --now scalr-docker scalr-agent");
    fleet.load_image();
    fleet.wait_for_agent(pool, "idle");
    pool.variable("greeting", "terraform", false, "hello");
    pool.wait_for_status(&pool.start_run(&configuration()), "planned");
    let drop_ins = fleet.shell("systemctl show scalr-agent --property=DropInPaths");
    assert!(drop_ins.contains("hardening.conf"), "{drop_ins}");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn accounts_and_a_linked_folder_from_before_survive_the_purge_of_a_deb() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    fleet.shell(
        "groupadd --system scalr-agent && useradd --system --gid scalr-agent scalr-agent && \
         install -d /srv/disk/agent && echo mine >/srv/disk/agent/keep && \
         ln -s /srv/disk/agent /var/lib/scalr-agent",
    );
    let before = fleet.shell(LEFT);
    fleet.shell(ADD);
    fleet.shell("DEBIAN_FRONTEND=noninteractive apt-get -y install scalr-agent");
    work(&fleet, &pool, "");
    assert_ne!(fleet.shell("ls /srv/disk/agent"), "keep", "the agent's data is there");
    fleet.shell("apt-get -y purge scalr-agent");
    assert_eq!(fleet.shell("cat /srv/disk/agent/keep"), "mine");
    assert_eq!(fleet.shell(LEFT), before.replace("/var/lib/scalr-agent\n", ""));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_rpm_works_with_a_folder_of_its_own_and_its_drop_ins_follow_the_settings() {
    let fleet = Fleet::boot("centos-7", &[]);
    let pool = fleet.pool();
    let before = fleet.shell(LEFT);
    fleet.shell(ADD);
    fleet.shell("yum-config-manager --enable extras && yum -y install scalr-agent");
    work(&fleet, &pool, "--data-dir /srv/agent");
    assert!(fleet.shell("ls /srv/agent").contains("tasks"));
    fleet.shell("scalr-agent-setup check --only service");

    // An edit by hand shows, and has its command.
    fleet.shell("sed -i 's|/srv/agent|/srv/other|' /etc/scalr-agent/agent.toml");
    let check =
        fleet.world.try_shell(&fleet.machine, "scalr-agent-setup check --only service 2>&1");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.status.success() && said.contains("scalr-agent-setup units"), "{said}");
    fleet.shell("scalr-agent-setup units && systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell("scalr-agent-setup check --only service");
    assert!(fleet.shell("ls /srv/other").contains("machine-id"));

    fleet.shell("scalr-agent-setup uninstall --purge");
    assert_eq!(fleet.shell(LEFT), before);
}

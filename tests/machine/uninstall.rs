//! What a host tells of itself, and what it is after the agent is removed.

use std::time::Duration;

use serde_json::Value;

use crate::fleet::{DOCKER, Fleet, configuration, refusal};
use crate::machine::wait_for;

/// What an installation could leave behind: links, rules, processes, accounts,
/// units and repositories.
const TRACES: &str = "ip -br link | cut -d' ' -f1; iptables -S; iptables -t nat -S; \
    ps -eo args | grep -v -e '^sh -c' -e '^grep' | grep -E 'scalr|containerd|dockerd|entrypoint'; \
    getent passwd scalr-agent scalr-run; getent group scalr-agent scalr-docker scalr-run; \
    ls -d /etc/scalr-agent /var/lib/scalr-* /run/scalr-docker /run/scalr-agent /etc/systemd/system/*scalr* \
        /etc/apt/sources.list.d/* /etc/yum.repos.d/* /usr/share/keyrings/scalr* \
        /usr/bin/scalr* 2>/dev/null; true";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_is_reported_and_not_removed_under_its_agent() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "600");
    // iptables makes its tables when it is first asked.
    fleet.shell(TRACES);
    let before = fleet.shell(TRACES);
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    let container = fleet.running_container();

    let status = wait_for("the status to be busy", Duration::from_secs(60), || {
        let status = fleet.shell("scalr-agent-setup status --format json");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        (status["server"]["state"] == "busy").then_some(status)
    });
    assert_eq!(status["tasks"]["running"][0]["kind"], "apply", "{status}");
    assert_eq!(status["tasks"]["running"][0]["container"], container["Id"], "{status}");
    for unit in status["units"].as_array().expect("a list of units") {
        assert_eq!(unit["state"], "active", "{status}");
    }
    assert_eq!(status["engine"]["problem"], Value::Null, "{status}");

    fleet.shell("scalr-agent-setup report --output /root/report.tar.gz");
    fleet.shell("mkdir /root/report && tar -xzf /root/report.tar.gz -C /root/report");
    let found = "grep -rF -e \"$(cat /root/pool.token)\" -e 'open sesame' /root/report || true";
    assert_eq!(fleet.shell(found), "", "a secret is in the report");
    let told = fleet.shell("grep -r '^unavailable: ' /root/report || true");
    assert_eq!(told, "", "root can tell all of it");

    let said = refusal(&fleet.world.try_shell(&fleet.machine, "scalr-agent-setup uninstall"));
    assert!(said.contains("apply in default/") && said.contains("--force"), "{said}");
    assert_eq!(pool.status(&run), "applying");
    fleet.running_container();

    // The hardest case: the engine is down, and its container runs on.
    fleet.shell("systemctl stop scalr-docker");
    fleet.shell("scalr-agent-setup uninstall --force --purge");
    assert_eq!(fleet.shell(TRACES), before);
    fleet.wait_for_agent(&pool, "offline");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn what_was_removed_comes_back_with_its_settings() {
    let fleet = Fleet::boot("centos-8", &[]);
    let pool = fleet.pool();
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell("scalr-agent-setup uninstall");
    fleet.wait_for_agent(&pool, "offline");
    let left = fleet.shell("systemctl list-unit-files | grep scalr; ls /usr/bin/scalr*; true");
    assert_eq!(left, "", "the package is gone");

    // Neither a token nor an image is given again.
    fleet.shell(&Fleet::install_line("").replace(" --token-file /root/pool.token", ""));
    fleet.wait_for_agent(&pool, "idle");
    let status = fleet.shell("scalr-agent-setup status");
    assert!(status.contains("scalr-run:test"), "{status}");
    assert!(fleet.shell(&format!("{DOCKER} images")).contains("scalr-run"), "the data stayed");
}

//! A server with an authority of its own, which the host itself does not trust.

use crate::fleet::{Fleet, URL, refusal};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_is_installed_with_an_authority_that_only_the_agent_and_apt_trust() {
    with_an_authority("ubuntu-18.04", "apt-get update");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_is_installed_with_an_authority_that_only_the_agent_and_yum_trust() {
    with_an_authority("centos-7", "yum --disablerepo='*' --enablerepo=scalr-agent makecache");
}

fn with_an_authority(flavour: &str, refresh: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    fleet.distrust_server();
    fleet.copy(&fleet.ca(), "/root/ca.pem", "0600");
    let install = |options: &str| {
        format!(
            "curl -fsSL --cacert /root/ca.pem {URL}/install.sh | sh -s -- \
             --token-file /root/pool.token --fix {options}"
        )
    };
    let said = refusal(&fleet.world.try_shell(&fleet.machine, &install("")));
    assert!(said.contains("give the file with --ca-cert ca.pem"), "{said}");
    // The whole of what curl said.
    assert!(said.contains("(60) SSL certificate problem: "), "{said}");

    fleet.shell(&install("--ca-cert /root/ca.pem"));
    fleet.shell("rm /root/ca.pem");
    fleet.load_image();
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell(refresh);
    let system = fleet.world.try_shell(&fleet.machine, &format!("curl -fsS {URL}/install.sh"));
    assert_eq!(system.status.code(), Some(60), "the host itself does not trust the server");

    fleet.shell("scalr-agent-setup uninstall --purge --force");
    assert_eq!(
        fleet.shell("ls -d /etc/scalr-agent /etc/apt/apt.conf.d/90scalr-agent 2>/dev/null; :"),
        ""
    );
}

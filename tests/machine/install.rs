//! The curl-piped installation, on each flavour.

use crate::fleet::{Fleet, URL, refusal};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_installs_and_runs() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let said = fleet.shell(&Fleet::install_line("--verbose 2>&1"));
    assert!(said.contains("Setting up scalr-agent"), "{said}");
    assert!(!said.contains("not yet configured"), "the package knows that it goes on: {said}");
    fleet.load_image();
    installed(&fleet);
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell("dpkg --verify scalr-agent"), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_8_installs_and_brings_container_selinux() {
    let fleet = Fleet::boot("centos-8", &[]);
    let pool = fleet.pool();
    fleet.install("");
    installed(&fleet);
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell("rpm --verify scalr-agent"), "");
    assert!(fleet.shell("rpm -q container-selinux").starts_with("container-selinux-2.167"));
    assert_eq!(fleet.shell("rpm -q scalr-agent"), "scalr-agent-0.1.0-1.x86_64");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_without_extras_stops_with_the_command_and_goes_on_with_fix() {
    let fleet = Fleet::boot("centos-7", &[]);
    let pool = fleet.pool();
    let before = fleet.shell("yum repolist all; rpm -qa | sort; ls /etc/yum.repos.d");

    let said = refusal(&fleet.world.try_shell(&fleet.machine, &Fleet::install_line("")));
    assert!(said.contains("yum-config-manager --enable extras"), "{said}");
    let after = fleet.shell("yum repolist all; rpm -qa | sort; ls /etc/yum.repos.d");
    assert_eq!(after, before, "a failed installation leaves the machine as it was");

    fleet.install("--fix");
    installed(&fleet);
    fleet.wait_for_agent(&pool, "idle");
    assert!(fleet.shell("rpm -q container-selinux").starts_with("container-selinux-2.119"));
    assert_eq!(fleet.shell("rpm -q scalr-agent"), "scalr-agent-0.1.0-1.el7.x86_64");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_second_installation_changes_nothing_and_restarts_nothing() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let look = "systemctl show --property=MainPID scalr-agent scalr-docker; \
        find /etc /usr/lib/systemd /usr/bin -newer /root/mark -type f -o -newer /root/mark -type l";
    fleet.shell("touch /root/mark");
    let before = fleet.shell(look);
    fleet.shell(&Fleet::install_line(""));
    assert_eq!(fleet.shell(look), before);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_dry_run_changes_nothing_and_an_uninstallation_leaves_nothing() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    // Docker's own is not taken back; apt's lock is its.
    let look = "find /etc /opt /root /srv /tmp /usr /var/lib /var/tmp -xdev -type f \
        ! -path /etc/docker/key.json ! -path /var/lib/apt/lists/lock | sort; \
        dpkg --list; cat /etc/passwd /etc/group";
    let before = fleet.shell(look);
    // As on a hardened host.
    fleet.shell("mount -t tmpfs -o noexec tmpfs /tmp");
    let said = fleet.shell(&Fleet::install_line("--dry-run"));
    assert!(said.contains("would install scalr-agent: apt-get --yes"), "{said}");
    assert_eq!(fleet.shell(look), before);

    fleet.shell(&Fleet::install_line(""));
    fleet.wait_for_agent(&pool, "idle");
    fleet.shell(&format!("curl -fsSL {URL}/install.sh | sh -s -- --uninstall --purge"));
    assert_eq!(fleet.shell(look), before);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn systemd_finds_nothing_wrong_with_the_units_and_little_open_in_the_agents() {
    let fleet = Fleet::boot("centos-8", &[]);
    let pool = fleet.pool();
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let verify = "systemd-analyze verify scalr-agent.service scalr-docker.service \
        scalr-containerd.service 2>&1 | grep scalr || :";
    assert_eq!(fleet.shell(verify), "");
    // From 0 (all forbidden) to 10.
    let exposure = fleet.shell(
        "systemd-analyze security --no-pager scalr-agent | sed -n 's/.*exposure level.*: \\([0-9.]*\\) .*/\\1/p'",
    );
    eprintln!("the agent's exposure, as systemd-analyze counts it: {exposure}");
    assert!(exposure.parse::<f64>().is_ok_and(|exposure| exposure < 3.0), "{exposure}");
}

/// What every installation has to come to.
fn installed(fleet: &Fleet) {
    assert_eq!(fleet.shell("systemctl is-active scalr-agent scalr-docker"), "active\nactive");
    assert_eq!(fleet.shell("systemctl is-enabled scalr-agent scalr-docker"), "enabled\nenabled");
    assert_eq!(
        fleet.shell("stat --format='%U:%G %a' /etc/scalr-agent/agent.toml"),
        "root:scalr-agent 640"
    );
    // No secret in what any local user can ask for.
    let token = fleet.shell("cat /root/pool.token");
    let shown = fleet.shell("systemctl show scalr-agent scalr-docker; journalctl --no-pager");
    assert!(!shown.contains(&token), "the token shows");
}

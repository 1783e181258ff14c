//! Packages that an administrator holds, excludes, locks or protects.

use crate::fleet::{Fleet, refusal};

/// What a refusal must leave as it is.
const STATE: &str = "find /etc /usr/share/keyrings /var/lib/scalr-agent -newer /root/before \
     ! -path '/etc/pki/*' 2>/dev/null; rpm -qa 2>/dev/null | sort; \
     dpkg-query --show --showformat '${db:Status-Abbrev} ${Package} ${Version}\\n' | grep scalr; \
     systemctl list-unit-files 'scalr*' --no-legend; systemctl is-active scalr-agent; true";

/// Runs a line that has to be refused with an exit code and change nothing, then the
/// command that it names for releasing the package. Gives what it says.
fn refused(fleet: &Fleet, line: &str, code: i32) -> String {
    fleet.shell("touch /root/before && sleep 0.1");
    let before = fleet.shell(STATE);
    let output = fleet.world.try_shell(&fleet.machine, &format!("{line} 2>&1"));
    let said = refusal(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(fleet.shell(STATE), before, "{said}");
    let (_, release) = said.split_once("Release it with `").expect(&said);
    fleet.shell(release.split_once('`').expect("a command ends").0);
    said
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn dnf_is_asked_for_nothing_that_a_filter_hides() {
    let fleet = Fleet::boot("centos-8", &[]);
    let _pool = fleet.pool();
    let install = Fleet::install_line("--no-start");
    fleet.shell("echo 'exclude=kernel, scalr-*' >>/etc/dnf/dnf.conf");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("/etc/dnf/dnf.conf:") && said.contains("`scalr-*`"), "{said}");
    assert!(fleet.shell("grep ^exclude /etc/dnf/dnf.conf").starts_with("exclude=kernel,"));
    fleet.shell(&install);

    let repository = "/etc/yum.repos.d/scalr-agent.repo";
    fleet.shell(&format!("echo excludepkgs=scalr-agent >>{repository}"));
    let said = refused(&fleet, &install, 6);
    assert!(said.contains(repository), "{said}");
    fleet.shell("yum versionlock add scalr-agent");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("/etc/dnf/plugins/versionlock.list:"), "{said}");
    fleet.shell(&install);

    let uninstall = "scalr-agent-setup uninstall";
    for (hold, file) in [
        ("echo excludepkgs=scalr-agent >>/etc/dnf/dnf.conf", "/etc/dnf/dnf.conf:"),
        ("yum versionlock exclude scalr-agent", "/etc/dnf/plugins/versionlock.list:"),
        ("echo 'scalr-*' >/etc/dnf/protected.d/ours.conf", "/etc/dnf/protected.d/ours.conf:1 "),
    ] {
        fleet.shell(hold);
        let said = refused(&fleet, uninstall, 1);
        assert!(said.contains("cannot remove") && said.contains(file), "{said}");
    }
    fleet.shell(uninstall);
    assert_eq!(fleet.shell("rpm -qa | grep scalr || true"), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_is_asked_for_nothing_that_is_held() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let _pool = fleet.pool();
    let install = Fleet::install_line("--no-start");
    fleet.shell(
        "printf 'Package: scalr-agent\\nPin: version *\\nPin-Priority: -1\\n' \
         >/etc/apt/preferences.d/agents",
    );
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("/etc/apt/preferences.d/agents:1 "), "{said}");
    fleet.shell(&install);

    for (line, code) in [(install.as_str(), 6), ("scalr-agent-setup uninstall", 1)] {
        fleet.shell("apt-mark hold scalr-agent");
        let said = refused(&fleet, line, code);
        assert!(said.contains("`apt-mark hold`"), "{said}");
    }
    fleet.shell("scalr-agent-setup uninstall");
    let left =
        "dpkg-query --show --showformat '${db:Status-Abbrev}' scalr-agent 2>&1 | grep ^ii; true";
    assert_eq!(fleet.shell(left), "");
}

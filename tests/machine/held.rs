//! Packages that an administrator holds, excludes, locks or protects.

use std::process::Command;

use crate::fleet::{Fleet, refusal};

/// What a refusal must leave as it is. Files of four folders come and go.
const STATE: &str = "find /etc /usr/share/keyrings /var/lib/scalr-agent -newer /root/before \
     ! -path '/etc/pki*' ! -path /etc/yum.repos.d ! -path /etc/apt/sources.list.d \
     ! -path /usr/share/keyrings 2>/dev/null; rpm -qa 2>/dev/null | sort; \
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
        ("echo 'scalr-*' >/etc/dnf/protected.d/ours.conf", "/etc/dnf/protected.d/ours.conf:1 "),
    ] {
        fleet.shell(hold);
        let said = refused(&fleet, uninstall, 1);
        assert!(said.contains("cannot remove") && said.contains(file), "{said}");
    }
    // A lock keeps nothing from being removed.
    fleet.shell("yum versionlock add scalr-agent");
    fleet.shell(uninstall);
    assert_eq!(fleet.shell("rpm -qa | grep scalr || true"), "");
    // One of a version that is not offered keeps it from being installed.
    let list = "/etc/dnf/plugins/versionlock.list";
    fleet.shell(&format!("echo 'scalr-agent-0:0.0.9*' >{list}"));
    let said = refused(&fleet, &install, 6);
    assert!(said.contains(&format!("{list}:1 refuses its version ")), "{said}");
    assert_eq!(fleet.shell(&format!("cat {list}")), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn dnf_takes_the_package_of_no_other_repository() {
    let fleet = Fleet::boot("centos-8", &[]);
    let _pool = fleet.pool();
    let install = Fleet::install_line("--no-start");
    fleet.world.feed(&fleet.machine, "tar -x -C /srv", &repository("scalr-agent", "0.40.0"));
    let define = |priority: &str| {
        fleet.shell(&format!(
            "printf '%s\n' '[vendor]' name=Vendor baseurl=file:///srv/repository gpgcheck=0 \
             {priority} >/etc/yum.repos.d/vendor.repo"
        ));
    };
    define("priority=10");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("/etc/yum.repos.d/vendor.repo:5 gives the repository vendor"), "{said}");
    // The newest is taken where none takes precedence.
    define("");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("the repository vendor has another package of that name"), "{said}");
    // Nor from a definition with the name of the server's.
    let other = "/etc/yum.repos.d/a.repo";
    fleet.shell(&format!("printf '[scalr-agent]\\nbaseurl=file:///srv/repository\\n' >{other}"));
    let said = refusal(&fleet.world.try_shell(&fleet.machine, &format!("{install} 2>&1")));
    assert!(said.contains(&format!("{other}:1 defines one of that name")), "{said}");
    fleet.shell(&format!("rm {other}"));
    fleet.shell(&install);
    assert!(!fleet.shell("rpm -q scalr-agent").contains("0.40"));
    define("priority=10");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("cannot upgrade") && said.contains("vendor.repo:5 "), "{said}");
    fleet.shell(&install);
}

/// A tar file of a yum repository with one empty package, below `repository`.
pub(crate) fn repository(name: &str, version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: empty\nLicense: Apache-2.0\n\
         BuildArch: noarch\n%description\nempty\n%files\n"
    );
    std::fs::write(folder.path().join("a.spec"), spec).expect("the folder takes files");
    let script = "rpmbuild --quiet -bb --define \"_topdir $PWD\" --define \"_rpmdir $PWD/repository\" \
                  --define '_binary_payload w6.gzdio' a.spec >&2 && \
                  createrepo_c --quiet repository >&2 && tar -c repository";
    let output = Command::new("sh").args(["-c", script]).current_dir(&folder).output();
    let output = output.expect("sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
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

/// What makes an apt source of one empty package, newer than ours, in a folder.
pub(crate) const RIVAL: &str = r#"mkdir -p /srv/rival/package/DEBIAN && cd /srv/rival
printf '%s\n' 'Package: scalr-agent' 'Version: 9.9' 'Architecture: amd64' \
    'Maintainer: somebody <x@example.com>' 'Description: empty' >package/DEBIAN/control
dpkg-deb --build package a.deb >/dev/null
{
    cat package/DEBIAN/control
    printf '%s\n' 'Filename: ./a.deb' "Size: $(stat --format=%s a.deb)" \
        "SHA256: $(sha256sum a.deb | cut -d' ' -f1)"
} >Packages
printf '%s\n' 'Origin: rival' "Date: $(date --rfc-email --utc)" 'SHA256:' \
    " $(sha256sum Packages | cut -d' ' -f1) $(stat --format=%s Packages) Packages" >Release
echo 'deb [trusted=yes] file:/srv/rival ./' >/etc/apt/sources.list.d/rival.list
printf '%s\n' 'Package: *' 'Pin: release o=rival' 'Pin-Priority: 1001' \
    >/etc/apt/preferences.d/rival
printf '%s\n' 'Package: scalr-*' 'Pin: origin "pools.test"' 'Pin-Priority: 100' \
    >/etc/apt/preferences
apt-get update >/dev/null"#;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_takes_the_package_of_no_other_source() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let _pool = fleet.pool();
    let install = Fleet::install_line("--no-start");
    fleet.shell(RIVAL);
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("apt prefers scalr-agent 9.9 of file:/srv/rival"), "{said}");
    assert!(said.contains("/etc/apt/preferences:1 sets the priority 100"), "{said}");
    let said = refused(&fleet, &install, 6);
    assert!(said.contains("'Pin-Priority: 1002'"), "{said}");
    fleet.shell(&install);
    let version = "dpkg-query --show --showformat '${Version}' scalr-agent";
    assert!(fleet.shell(version).starts_with("0.1.0"), "the server's");
}

//! What `check` finds on a booted machine, and how `--fix` fixes it.

use serde_json::Value;

use crate::fleet::kit;
use crate::machine::{World, text};

/// A machine without the package, and the setup program on it.
struct Host {
    world: World,
    machine: &'static str,
}

impl Host {
    fn boot(flavour: &'static str) -> Self {
        let world = World::new();
        world.boot(flavour, &[]);
        let program = std::fs::read(kit().join("bin/scalr-agent-setup")).unwrap();
        world.put(flavour, "/root/setup", "0755", &program);
        Self { world, machine: flavour }
    }

    fn shell(&self, line: &str) -> String {
        self.world.shell(self.machine, line)
    }

    /// The result, and the commands that fix it, of one check.
    fn check(&self, name: &str, options: &str) -> (String, Vec<String>) {
        let line = format!("/root/setup --format json check --only {name} {options} </dev/null");
        let output = self.world.try_shell(self.machine, &line);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        let found = &report["checks"][0];
        let fix = found["fix"].as_array().unwrap().iter();
        let fix = fix.map(|line| line.as_str().unwrap().to_owned()).collect();
        (found["result"].as_str().unwrap().to_owned(), fix)
    }

    fn passes(&self, name: &str) -> bool {
        self.check(name, "") == ("passed".to_owned(), Vec::new())
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_with_extras_off_on_and_absent() {
    let host = Host::boot("centos-7");
    let off = host.check("container-selinux", "");
    let enable = "yum-config-manager --enable extras";
    assert_eq!(off, ("failed".to_owned(), vec![enable.to_owned()]));
    let fixed = host.check("container-selinux", "--fix --yes");
    assert_eq!(fixed, ("passed".to_owned(), Vec::new()));
    assert!(host.shell("yum repolist --enabled").contains("extras"));

    host.shell("sed -i '/^\\[extras\\]/,$d' /etc/yum.repos.d/CentOS-Base.repo");
    let (result, fix) = host.check("container-selinux", "");
    assert_eq!((result.as_str(), fix.len()), ("failed", 1));
    assert!(
        fix[0].starts_with("printf '[extras]\\n") && fix[0].ends_with("CentOS-Extras-Vault.repo")
    );

    host.shell(
        "printf '[updates]\\nname=old\\nmirrorlist=http://mirrorlist.centos.org/?release=7\\n\
         #baseurl=http://mirror.centos.org/centos/7/updates/\\n' >/etc/yum.repos.d/CentOS-Old.repo",
    );
    let (result, fix) = host.check("mirror-lists", "");
    assert!(result == "failed" && fix[0].contains("vault.centos.org/7.9.2009"), "{fix:?}");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_8_with_appstream_on_off_and_absent() {
    let host = Host::boot("centos-8");
    assert!(host.passes("container-selinux"));
    host.shell("yum-config-manager --disable appstream");
    let enable = "dnf config-manager --set-enabled appstream";
    let off = host.check("container-selinux", "");
    assert_eq!(off, ("failed".to_owned(), vec![enable.to_owned()]));
    let fixed = host.check("container-selinux", "--fix --yes");
    assert_eq!(fixed, ("passed".to_owned(), Vec::new()));

    let status = host.shell("/root/setup --format json status || :");
    let status: Value = serde_json::from_str(&status).unwrap();
    let made = &status["fixes"]["made"][0];
    assert!(made["command"] == enable && made["failed"] == false, "{made}");
    assert!(made["files"][0].as_str().unwrap().starts_with("/etc/yum.repos.d/"), "{made}");
    host.shell("/root/setup check --undo-fixes --yes");
    assert_eq!(host.check("container-selinux", ""), off);
    assert!(host.shell("/root/setup check --undo-fixes --yes").contains("nothing to undo"));
    assert_eq!(host.check("container-selinux", "--fix --yes"), fixed);
    let file = "$(grep -l appstream /etc/yum.repos.d/*)";
    host.shell(&format!("echo 'excludepkgs=kernel container-*' >>{file}"));
    let (result, fix) = host.check("container-selinux", "");
    assert!(result == "failed" && fix[0].starts_with("sed -E -i "), "{fix:?}");
    assert_eq!(host.check("container-selinux", "--fix --yes"), fixed);
    host.shell("echo proxy=http://127.0.0.1:9 >>/etc/dnf/dnf.conf && dnf clean all");
    host.shell(&format!("sed -i 's,^baseurl=.*,baseurl=http://pools.test/x,' {file}"));
    host.shell(&format!("echo skip_if_unavailable=0 >>{file}"));
    let found = host.world.try_shell(host.machine, "/root/setup check --only container-selinux");
    let found = text(&found);
    assert!(found.contains("http://127.0.0.1:9, which /etc/dnf/dnf.conf:"), "{found}");
    host.shell("grep -l '^\\[appstream\\]' /etc/yum.repos.d/* | xargs rm");
    let (result, fix) = host.check("container-selinux", "");
    assert!(result == "failed" && fix[0].contains("8.5.2111/AppStream"), "{fix:?}");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn no_tool_is_asked_twice_for_the_same() {
    for flavour in ["centos-7", "ubuntu-18.04"] {
        let host = Host::boot(flavour);
        let asked = "/root/setup -v check --url https://127.0.0.1:9 2>&1 >/dev/null | grep '^+ '";
        let asked = host.shell(asked);
        assert!(asked.contains("+ curl ") && asked.contains("+ systemctl show"), "{asked}");
        let mut lines: Vec<&str> = asked.lines().collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "{asked}");
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn nothing_is_fixed_unasked_or_without_a_terminal() {
    let host = Host::boot("centos-7");
    let only = "/root/setup check --only container-selinux --fix";
    let output = host.world.try_shell(host.machine, &format!("{only} </dev/null"));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("add --yes"), "{}", text(&output));
    let output =
        host.world.try_shell(host.machine, &format!("echo n | script -qec '{only}' /dev/null"));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(host.check("container-selinux", "").0, "failed");
    let output =
        host.world.try_shell(host.machine, &format!("echo y | script -qec '{only}' /dev/null"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_with_a_lock_and_a_package_left_unfinished() {
    let host = Host::boot("ubuntu-18.04");
    assert!(host.passes("package-lock") && host.passes("half-configured"));

    // A package whose script waits for its exit code: dpkg holds its locks as long.
    host.shell(
        "mkdir -p /root/slow/DEBIAN && cd /root/slow/DEBIAN && mkfifo /root/code /root/ended &&
         printf '%s\n' 'Package: slow' 'Version: 1' 'Architecture: all' \
             'Maintainer: Agent pools <pools@example.com>' 'Description: waits' >control &&
         printf '%s\n' '#!/bin/sh' 'read code </root/code' 'exit $code' >postinst &&
         chmod 0755 postinst && dpkg-deb --build /root/slow /root/slow.deb",
    );
    let dpkg = "dpkg --install /root/slow.deb; echo ended >/root/ended";
    host.shell(&format!("setsid sh -c '{dpkg}' >/dev/null 2>&1 </dev/null &"));
    // The pipe can be opened once the script reads it.
    let found = host.shell(
        "exec 3>/root/code; /root/setup check --only package-lock || true; echo 1 >&3; exec 3>&-
         cat /root/ended",
    );
    assert!(
        found.contains("dpkg (process ") && found.contains("holds /var/lib/dpkg/lock"),
        "{found}"
    );
    assert!(host.passes("package-lock"));

    let (result, fix) = host.check("half-configured", "");
    assert_eq!((result.as_str(), fix), ("failed", vec!["dpkg --configure -a".to_owned()]));
    let other = "install -m 0755 /root/setup /tmp/setup && \
                 setpriv --reuid 65534 --regid 65534 --clear-groups /tmp/setup check --only half-configured";
    let said = text(&host.world.try_shell(host.machine, other));
    assert!(said.contains("unknown "), "{said}");
    host.shell(
        "echo 0 >/root/code & /root/setup check --only half-configured --fix --yes </dev/null",
    );
    assert!(host.passes("half-configured"));

    // As dpkg leaves a package that it was killed in: it takes its archive to finish that.
    host.shell(
        "{ cat /root/slow/DEBIAN/control; echo Filename: slow.deb; \
           stat --format='Size: %s' /root/slow.deb; \
           sha256sum /root/slow.deb | sed 's/ .*//; s/^/SHA256: /'; } >/root/Packages &&
         echo 'deb [trusted=yes] file:/root ./' >/etc/apt/sources.list.d/slow.list &&
         { apt-get update || true; } &&
         sed -i '/^Package: slow$/,/^$/s/^Status:.*/Status: install reinstreq half-installed/' \
             /var/lib/dpkg/status",
    );
    let (result, fix) = host.check("half-configured", "");
    assert_eq!(
        (result.as_str(), fix[0].as_str()),
        ("failed", "apt-get -y install --reinstall slow")
    );
    host.shell(
        "echo 0 >/root/code & /root/setup check --only half-configured --fix --yes </dev/null",
    );
    assert!(host.passes("half-configured"));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_temporary_folder_without_programs_is_fixed() {
    let host = Host::boot("ubuntu-18.04");
    host.shell("mount -t tmpfs -o noexec tmpfs /mnt");
    let check = |options: &str| {
        let line = format!("TMPDIR=/mnt /root/setup check --only temporary-folder {options}");
        host.world.try_shell(host.machine, &format!("{line} </dev/null"))
    };
    let output = check("");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("mount -o remount,exec /mnt"), "{}", text(&output));
    assert_eq!(check("--fix --yes").status.code(), Some(0));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_system_that_is_read_only_takes_no_package() {
    let host = Host::boot("ubuntu-18.04");
    let failed = ("failed".to_owned(), Vec::new());
    assert!(host.passes("writable"));
    host.shell("mount --bind /usr /usr && mount -o remount,bind,ro /usr");
    assert_eq!(host.check("writable", ""), failed);
    let hook = "/etc/apt/apt.conf.d/99remount";
    host.shell(&format!("echo 'DPkg::Pre-Invoke {{ \"mount -o remount,rw /usr\"; }};' >{hook}"));
    assert!(host.passes("writable"));
    host.shell(&format!("rm {hook} && touch /run/ostree-booted"));
    let said = host.world.try_shell(host.machine, "/root/setup check --only writable");
    assert!(text(&said).contains("is an image of ostree's"), "{}", text(&said));
    host.shell(
        "mount -o remount,bind,rw /usr && mount --bind /etc /etc && mount -o remount,bind,ro /etc",
    );
    assert_eq!(host.check("writable", ""), failed);
}

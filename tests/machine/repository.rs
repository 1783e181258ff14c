//! The package repository, as real apt and dnf use it.

use std::fs;
use std::path::Path;

use crate::fleet::{Fleet, URL, kit, refusal};
use crate::machine::text;
use tests::workshop::Workshop;

/// Sets the repository up, and fetches its keys again where it is.
const ADD: &str = "curl -fsSL https://pools.test:8443/install.sh | sh -s -- --repository-only 2>&1";

/// A machine, its server, and what that serves as packages.
struct Site {
    workshop: Workshop,
    fleet: Fleet,
}

impl Site {
    /// A site whose server has no packages yet.
    fn boot(flavour: &str) -> Self {
        let fleet = Fleet::boot(flavour, &[]);
        fs::remove_dir_all(fleet.repository()).expect("its files are links");
        let workshop = Workshop::new(&kit().join("bin/scalr-agent-setup"));
        Self { workshop, fleet }
    }

    /// Publishes small packages of a version.
    fn publish(&self, version: &str, options: &[&str]) {
        self.workshop.clear();
        self.workshop.packages(version);
        self.workshop.setup_program("x86_64");
        self.workshop.publish(&self.fleet.repository(), options);
        self.fleet.trust_key();
    }

    fn is_apt(&self) -> bool {
        self.fleet.machine.starts_with("ubuntu")
    }

    /// Has the package tool read the indexes again.
    fn update(&self) -> &'static str {
        if self.is_apt() {
            "apt-get -o APT::Update::Error-Mode=any update 2>&1"
        } else {
            "yum -y --setopt=scalr-agent.metadata_expire=1 \
             --setopt=scalr-agent.skip_if_unavailable=0 --disablerepo=* \
             --enablerepo=scalr-agent makecache 2>&1"
        }
    }

    /// Installs a version, from a newer one too.
    fn install(&self, version: &str) -> String {
        if self.is_apt() {
            format!("apt-get -y --allow-downgrades install scalr-agent={version}-1 2>&1")
        } else {
            format!(
                "yum -y install scalr-agent-{version} 2>&1 || yum -y downgrade scalr-agent-{version} 2>&1"
            )
        }
    }

    fn upgrade(&self) -> &'static str {
        if self.is_apt() {
            "apt-get -y install --only-upgrade scalr-agent 2>&1"
        } else {
            "yum -y upgrade scalr-agent 2>&1"
        }
    }

    fn is_installed(&self, version: &str) {
        assert_eq!(self.fleet.shell("cat /usr/share/scalr-agent-test/content"), version);
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_installs_an_older_version_and_upgrades_it() {
    let site = Site::boot("ubuntu-18.04");
    versions(&site);
    let said = site.fleet.shell(
        "rm -rf /var/lib/apt/lists/*pools.test* && \
         apt-get -o Debug::pkgAcquire::Worker=1 update 2>&1",
    );
    assert!(said.contains("binary-amd64/by-hash/SHA256/"), "{said}");
    // A machine of the other architecture finds its index, empty or not.
    site.fleet.shell(
        "mkdir -p /tmp/lists/partial && apt-get -o APT::Architecture=arm64 \
         -o APT::Architectures=arm64 -o Dir::State::lists=/tmp/lists \
         -o Dir::Etc::SourceList=/etc/apt/sources.list.d/scalr-agent.sources \
         -o Dir::Etc::SourceParts=/none -o APT::Update::Error-Mode=any update 2>&1 && \
         ls /tmp/lists | grep binary-arm64",
    );
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn yum_installs_an_older_version_and_upgrades_it() {
    let site = Site::boot("centos-7");
    versions(&site);
    assert_eq!(site.fleet.shell("rpm -q --queryformat '%{ARCH}' scalr-agent"), "x86_64");
    assert_eq!(site.fleet.shell("rpm --verify scalr-agent"), "");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_installs_the_server_from_the_repository_of_the_agents() {
    installs_the_server("ubuntu-18.04", "apt-get -y install scalr-server 2>&1");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn yum_installs_the_server_from_the_repository_of_the_agents() {
    installs_the_server("centos-7", "yum -y install scalr-server 2>&1");
}

fn installs_the_server(flavour: &str, install: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    fleet.shell(ADD);
    let said = fleet.shell(install);
    assert!(said.contains("systemctl enable --now scalr-server"), "{said}");
    let version = fleet.shell("scalr-server --version");
    assert_eq!(version, format!("scalr-server {}", env!("CARGO_PKG_VERSION")));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_follows_from_one_key_to_the_next() {
    rotation(&Site::boot("ubuntu-18.04"));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn dnf_follows_from_one_key_to_the_next() {
    rotation(&Site::boot("centos-8"));
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn yum_follows_by_itself_with_the_definition_that_the_server_made() {
    let site = Site::boot("centos-7");
    let (old, new) = (site.workshop.key("old"), site.workshop.key("new"));
    site.publish("1.0.0", &["--key", &old]);
    let get = "curl -fsSL -o /etc/yum.repos.d/scalr-agent.repo";
    site.fleet.shell(&format!("{get} {URL}/packages/scalr-agent-el7.repo"));
    site.fleet.shell(&site.install("1.0.0"));
    for (version, keys) in [
        ("1.1.0", &["--key", &old, "--key", &new][..]),
        ("1.2.0", &["--key", &new, "--key", &old]),
        ("1.3.0", &["--key", &new]),
    ] {
        site.publish(version, keys);
        site.fleet.shell(site.update());
        site.fleet.shell(site.upgrade());
        site.is_installed(version);
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_without_packages_gets_the_command_that_makes_them() {
    let site = Site::boot("centos-7");
    let key = site.workshop.key("packages");
    site.workshop.rpm_for("1", ">= 230", "1.0.0", "x86_64", "newer");
    site.workshop.setup_program("x86_64");
    site.workshop.publish(&site.fleet.repository(), &["--key", &key]);
    site.fleet.trust_key();
    let look = "ls /etc/yum.repos.d /etc/pki/rpm-gpg; rpm -qa";
    let before = site.fleet.shell(look);
    let said = refusal(&site.fleet.world.try_shell(&site.fleet.machine, ADD));
    assert!(said.contains("no packages for CentOS Linux 7 (Core)"), "{said}");
    assert!(said.contains("package --type rpm-el7"), "{said}");
    assert_eq!(site.fleet.shell(look), before);

    site.workshop.rpm_for("1.el7", "", "1.0.0", "x86_64", "el7");
    site.workshop.publish(&site.fleet.repository(), &["--key", &key]);
    site.fleet.shell(ADD);
    site.fleet.shell("yum -y install scalr-agent");
    site.is_installed("el7");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn dnf_takes_no_repository_that_another_key_signed() {
    let site = Site::boot("centos-8");
    site.publish("1.0.0", &["--key", &site.workshop.key("packages")]);
    let stranger = site.workshop.key("stranger");
    let public = site.workshop.gpg().args(["--armor", "--export", &stranger]).output().unwrap();
    fs::write(site.fleet.repository().join("scalr-agent.asc"), public.stdout).unwrap();
    let before = site.fleet.shell("ls /etc/yum.repos.d /etc/pki/rpm-gpg; rpm -qa");
    let output = site.fleet.world.try_shell(&site.fleet.machine, ADD);
    assert_eq!(output.status.code(), Some(9), "{}", text(&output));
    assert!(text(&output).contains("not signed with the key that it trusts"), "{}", text(&output));
    // The server accepts it, and the indexes are still the other key's.
    site.fleet.trust_key();
    let program = site.fleet.repository().join("scalr-agent-setup-x86_64");
    let sign = ["--yes", "--armor", "--detach-sign", "--local-user", &stranger, "--output"];
    let signature = program.with_extension("asc");
    let signed = site.workshop.gpg().args(sign).args([&signature, &program]).status();
    assert!(signed.unwrap().success());
    let said = refusal(&site.fleet.world.try_shell(&site.fleet.machine, ADD));
    assert!(said.contains("cannot use the package repository"), "{said}");
    assert_eq!(site.fleet.shell("ls /etc/yum.repos.d /etc/pki/rpm-gpg; rpm -qa"), before);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_gets_no_second_definition_with_another_key() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let other = "/etc/apt/sources.list.d/z.list";
    let key = "/usr/share/keyrings/other.asc";
    fleet.shell(&format!("echo 'deb [signed-by={key}] {URL}/packages/apt stable main' >{other}"));
    let said = refusal(&fleet.world.try_shell(&fleet.machine, ADD));
    assert!(said.contains(&format!("{other}:1 ")) && said.contains(key), "{said}");
    assert_eq!(fleet.shell("ls /etc/apt/sources.list.d"), "z.list");
    let (_, remove) = said.split_once("Remove that definition with `").expect("a command");
    fleet.shell(remove.split_once('`').expect("its end").0);
    fleet.shell(ADD);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn apt_fails_at_nothing_while_a_server_publishes() {
    let site = Site::boot("ubuntu-18.04");
    let key = site.workshop.key("packages");
    site.publish("1.0.0", &["--key", &key, "--keep", "1"]);
    site.fleet.shell(ADD);
    site.fleet.shell(
        "mkdir /tmp/work && cd /tmp/work && cat >follow <<'END'\n\
         until [ -e over ]; do\n\
         apt-get -o APT::Update::Error-Mode=any update && apt-get download scalr-agent || exit 1\n\
         rm -f ./*.deb && echo round >>rounds\n\
         done\n\
         END\n\
         systemd-run --quiet --unit=follow --working-directory=/tmp/work sh follow",
    );
    for minor in 1..=5 {
        site.publish(&format!("1.{minor}.0"), &["--key", &key, "--keep", "1"]);
    }
    site.fleet.shell(
        "touch /tmp/work/over && while systemctl is-active --quiet follow; do sleep 0.1; done",
    );
    let said = site.fleet.shell("journalctl --no-pager --unit=follow");
    assert!(!said.contains("Failed") && !said.contains("\nE: "), "{said}");
    site.fleet.shell("test -s /tmp/work/rounds");
}

/// An older version by name, and from that to the newest.
fn versions(site: &Site) {
    let key = site.workshop.key("packages");
    site.publish("1.0.0", &["--key", &key]);
    site.publish("1.1.0", &["--key", &key]);
    site.fleet.shell(ADD);
    site.fleet.shell(&site.install("1.0.0"));
    site.is_installed("1.0.0");
    site.fleet.shell(site.upgrade());
    site.is_installed("1.1.0");

    // What was read stays true, though the index has something newer.
    site.fleet.shell(site.update());
    site.publish("1.2.0", &["--key", &key, "--keep", "1"]);
    site.fleet.shell(&site.install("1.0.0"));
    site.is_installed("1.0.0");
    site.fleet.shell(site.update());
    refusal(&site.fleet.world.try_shell(&site.fleet.machine, &site.install("1.1.0")));
    site.fleet.shell(site.upgrade());
    site.is_installed("1.2.0");
    verify(site);
}

/// The host trusts one key, both, and the other.
fn rotation(site: &Site) {
    let old = site.workshop.key("old");
    let new = site.workshop.key("new");
    let key_file = if site.is_apt() {
        "/usr/share/keyrings/scalr-agent.asc"
    } else {
        "/etc/pki/rpm-gpg/RPM-GPG-KEY-scalr-agent"
    };
    site.publish("1.0.0", &["--key", &old]);
    site.fleet.shell(ADD);
    site.fleet.shell(&site.install("1.0.0"));
    site.fleet.shell(&format!("cp {key_file} /root/old.asc"));

    // With both, a host that does not know the new one keeps working.
    site.publish("1.1.0", &["--key", &old, "--key", &new]);
    site.fleet.shell(site.update());
    site.fleet.shell(site.upgrade());
    site.is_installed("1.1.0");

    // It gets both keys, and goes on when the new one comes first.
    site.fleet.shell(ADD);
    assert_eq!(site.fleet.shell(&format!("grep -c BEGIN {key_file}")), "2");
    site.publish("1.2.0", &["--key", &new, "--key", &old]);
    site.fleet.shell(site.update());
    site.fleet.shell(site.upgrade());
    site.is_installed("1.2.0");

    // With the new one alone, what the old one had signed can be installed, too.
    site.publish("1.3.0", &["--key", &new]);
    site.fleet.shell(site.update());
    site.fleet.shell(site.upgrade());
    site.is_installed("1.3.0");
    site.fleet.shell(&site.install("1.0.0"));
    site.is_installed("1.0.0");

    // A host that was left behind refuses, until it gets the new key.
    site.fleet.shell(&format!("cp /root/old.asc {key_file}"));
    if site.is_apt() {
        let said = refusal(&site.fleet.world.try_shell(&site.fleet.machine, site.update()));
        assert!(said.contains("NO_PUBKEY"), "{said}");
    } else {
        // rpm and dnf know the new one by now, each in its own place.
        site.fleet.shell(
            "rpm --erase --allmatches gpg-pubkey; rm -rf /var/cache/dnf/scalr-agent*; yum clean all 2>&1",
        );
        let said = refusal(&site.fleet.world.try_shell(&site.fleet.machine, site.update()));
        assert!(said.contains("GPG") || said.contains("gpg"), "{said}");
    }
    site.fleet.shell(ADD);
    site.fleet.shell(site.update());
    site.fleet.shell(site.upgrade());
    site.is_installed("1.3.0");
    verify(site);
}

/// As its owner looks at it from elsewhere.
fn verify(site: &Site) {
    let program = kit().join("bin/scalr-agent-setup");
    let ca = site.fleet.ca();
    let verify = [
        program.as_path(),
        Path::new("repository"),
        Path::new("verify"),
        Path::new(URL),
        Path::new("--ca-cert"),
        &ca,
    ];
    let output = site.fleet.world.command("server", &verify).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output));
}

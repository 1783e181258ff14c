//! An installation from a bundle: the server hands out no packages.

use std::fs;
use std::process::Command;

use crate::fleet::{Fleet, URL, kit};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_is_installed_from_a_bundle() {
    from_a_bundle("ubuntu-18.04");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_is_installed_from_a_bundle() {
    from_a_bundle("centos-7");
}

fn from_a_bundle(flavour: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    let bundle = fleet.repository().with_file_name("bundle.tar");
    let made = Command::new(kit().join("bin/scalr-agent-setup"))
        .arg("bundle")
        .arg("--repository")
        .arg(fleet.repository())
        .arg("--output")
        .arg(&bundle)
        .output()
        .expect("the setup program starts");
    assert!(made.status.success(), "{}", crate::machine::text(&made));
    fs::remove_dir_all(fleet.repository()).expect("its files are links");

    // A folder that only root may enter.
    let archive = fs::read(&bundle).expect("the bundle was made");
    fleet.world.feed(
        &fleet.machine,
        "mkdir -m 0700 '/root/a stick' && tar -x -C '/root/a stick'",
        &archive,
    );
    let repositories = "find /etc/apt/sources.list.d /etc/yum.repos.d /usr/share/keyrings \
        /etc/pki/rpm-gpg /var/lib/apt/lists -type f ! -name lock 2>/dev/null | sort; \
        rpm -qa 'gpg-pubkey*' 2>/dev/null; :";
    let before = fleet.shell(repositories);
    fleet.shell(&format!(
        "cd '/root/a stick/scalr-agent-bundle' && sh install.sh --offline . --url {URL} \
         --token-file /root/pool.token --fix"
    ));
    fleet.load_image();
    fleet.wait_for_agent(&pool, "idle");
    assert_eq!(fleet.shell(repositories), before, "a folder is no repository to keep");
}

//! What is particular to the server's packages.

use std::process::Command;

use crate::built::{copied, only, output};

/// `section<TAB>directive<TAB>` and, per systemd (219, 237, 239, 252), y or n.
const KNOWN: &str = include_str!("directives.tsv");

#[test]
fn each_systemd_understands_every_line_it_is_given() {
    for (file, column) in [
        ("usr/lib/systemd/system/scalr-server.service", 2),
        ("usr/lib/scalr-server/until-230.conf", 2),
        ("usr/lib/scalr-server/hardening-237.conf", 3),
        ("usr/lib/scalr-server/hardening-247.conf", 5),
    ] {
        let path = tests::checkout("pkg/server").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let mut section = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let (name, _) = line.split_once('=').unwrap();
            let known = section == "Install"
                || KNOWN.lines().any(|row| {
                    let row: Vec<&str> = row.split('\t').collect();
                    row[0] == section && row[1] == name && row[column].starts_with('y')
                });
            assert!(
                known,
                "{file}: [{section}] {name}= is not known to every systemd that reads it"
            );
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_settings_survive_an_upgrade() {
    let deb = only("SCALR_TEST_SERVER_PACKAGES", "deb");
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("--control").arg(&deb).arg(folder.path()));
    let conffiles = std::fs::read_to_string(folder.path().join("conffiles")).unwrap();
    assert_eq!(conffiles.trim(), "/etc/scalr-server/server.env");
    let rpm = only("SCALR_TEST_SERVER_PACKAGES", "rpm");
    let flags = output(
        Command::new("rpm")
            .args(["--query", "--package", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]"])
            .arg(rpm),
    );
    assert!(flags.lines().any(|line| line == "/etc/scalr-server/server.env cn"), "{flags}");
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn systemd_accepts_the_unit_with_its_drop_ins() {
    let root = copied(&only("SCALR_TEST_SERVER_PACKAGES", "deb"));
    let drop_ins = root.path().join("etc/systemd/system/scalr-server.service.d");
    std::fs::create_dir_all(&drop_ins).unwrap();
    for name in ["hardening-237.conf", "hardening-247.conf"] {
        std::fs::copy(root.path().join("usr/lib/scalr-server").join(name), drop_ins.join(name))
            .unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    // Its page is not this machine's.
    verify.args(["verify", "--man=no"]).arg("--root").arg(root.path()).arg("scalr-server.service");
    let said = verify.output().expect("systemd-analyze starts");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // A root of nothing else lacks the targets that systemd brings.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("/scalr-server") || line.contains("Unknown"))
        .collect();
    assert!(ours.is_empty(), "{said}");
}

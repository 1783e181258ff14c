//! What is no regular file where settings are expected: no command waits for a pipe's writer
//! or reads what has no end.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tree::Tree;

/// Exits with this code if the time is over (timeout(1)).
const TIMED_OUT: i32 = 124;

const FILES: [&str; 17] = [
    "/etc/os-release",
    "/etc/scalr-agent/agent.toml",
    "/etc/scalr-agent/ca.pem",
    "/etc/scalr-agent/docker.json",
    "/etc/scalr-agent/proxy.env",
    "/etc/systemd/system/scalr-agent.service.d/proxy.conf",
    "/etc/systemd/system/scalr-agent.service.d/hardening.conf",
    "/etc/docker/daemon.json",
    "/etc/group",
    "/etc/passwd",
    "/etc/yum.repos.d/scalr-agent.repo",
    "/etc/yum.conf",
    "/var/lib/scalr-agent/setup.json",
    "/var/lib/scalr-agent-setup.unfinished",
    "/var/lib/scalr-agent-setup.created",
    "/proc/sys/kernel/osrelease",
    "/sys/fs/selinux/enforce",
];

fn make(kind: &str, file: &Path) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let _ = fs::remove_file(file);
    match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(file).status().unwrap().success()),
        "link to a device" => symlink("/dev/zero", file).unwrap(),
        "folder" => fs::create_dir(file).unwrap(),
        _ => File::create(file).unwrap().set_len(10 << 30).unwrap(),
    }
}

#[test]
fn no_command_hangs_or_reads_for_ever() {
    for kind in ["pipe", "link to a device", "folder", "sparse file"] {
        for file in FILES {
            let tree = Tree::new();
            tree.put(
                "/etc/systemd/system/scalr-agent.service.d/other.conf",
                "[Service]\nEnvironmentFile=-/etc/scalr-agent/proxy.env\n",
            );
            make(kind, &tree.path(file));
            for arguments in [
                &["status"][..],
                &["check"],
                &["units", "--dry-run"],
                &["proxy", "show"],
                &["proxy", "remove", "--dry-run"],
                &["uninstall", "--dry-run"],
            ] {
                let command = tree.command(arguments);
                let status = Command::new("timeout")
                    .arg("20")
                    .arg(command.get_program())
                    .args(command.get_args())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .unwrap();
                assert_ne!(status.code(), Some(TIMED_OUT), "{arguments:?}: {file} is a {kind}");
                assert!(status.code().is_some(), "{arguments:?}: {file} is a {kind}: {status}");
            }
        }
    }
}

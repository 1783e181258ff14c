//! The packages' scripts, which run on hosts whose sh is dash, bash 4.2 or
//! busybox.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_plain_sh_can_parse_every_script() {
    for script in scripts() {
        let output = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", script.display());
    }
}

/// shellcheck reads whatever names its shell; `scripts/test` runs it.
#[test]
fn every_script_says_that_it_is_posix_sh() {
    for script in scripts() {
        let text = std::fs::read_to_string(&script).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(["#!/bin/sh", "# shellcheck shell=sh"].contains(&first), "{}", script.display());
    }
}

#[test]
fn an_unknown_step_changes_nothing() {
    let maintain = source("pkg/usr/lib/scalr-agent/maintain");
    let output = Command::new("sh").arg(maintain).arg("instaled").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// What a step calls on a host with SELinux and these tools, one call a line.
fn labelled(step: &str, tools: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let script = std::fs::read_to_string(source("pkg/usr/lib/scalr-agent/maintain")).unwrap();
    let script = script.replace("/usr/lib/scalr-agent/engine", &format!("{place}/engine"));
    std::fs::create_dir(folder.path().join("engine")).unwrap();
    let tools: String = tools
        .iter()
        .map(|tool| format!("{tool}() {{ echo {tool} \"$@\" >>{place}/calls; }}\n"))
        .collect();
    let body = script.replace("set -eu\n", &format!("set -eu\n{tools}"));
    let output = Command::new("sh").args(["-c", &body, "maintain", step]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
    calls.replace(&place.to_string(), "")
}

#[test]
fn with_selinux_the_engine_has_the_labels_of_a_docker() {
    let tools = ["selinuxenabled", "semanage", "restorecon"];
    assert_eq!(
        labelled("label", &tools),
        "selinuxenabled\n\
         semanage fcontext --add --equal /usr/bin /engine\n\
         semanage fcontext --add --equal /var/lib/docker /var/lib/scalr-docker\n\
         semanage fcontext --add --equal /var/run/docker /var/run/scalr-docker\n\
         restorecon -R /engine /var/lib/scalr-docker\n"
    );
    assert_eq!(labelled("unlabel", &tools).matches("--delete --equal").count(), 3);
}

#[test]
fn without_semanage_labels_last_until_the_next_relabelling() {
    let calls = labelled("label", &["selinuxenabled", "chcon"]);
    assert!(calls.contains("chcon -t container_runtime_exec_t /engine/dockerd\n"), "{calls}");
    assert!(calls.ends_with("chcon -R -t container_var_lib_t /var/lib/scalr-docker\n"), "{calls}");
}

#[test]
fn without_selinux_no_label_is_touched() {
    assert_eq!(labelled("label", &["semanage", "restorecon", "chcon"]), "");
}

#[test]
fn runs_have_an_account_that_is_not_in_the_engines_group() {
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().display().to_string();
    let script = std::fs::read_to_string(source("pkg/usr/lib/scalr-agent/maintain")).unwrap();
    let fakes = "getent() { false; }\ngroupadd() { echo groupadd \"$@\"; }\n\
                 useradd() { echo useradd \"$@\"; }\nusermod() { echo usermod \"$@\"; }\n";
    let body = script
        .replace("/usr/lib/scalr-agent/engine", &engine)
        .replace("/var/lib/scalr-agent-setup.created", &format!("{engine}/created"))
        .replace("set -eu\n", &format!("set -eu\n{fakes}"))
        .replace("main \"$@\"\n", "make_accounts\n");
    let output = Command::new("sh").args(["-c", &body]).output().unwrap();
    let calls = String::from_utf8(output.stdout).unwrap();
    assert!(calls.contains("useradd --system --gid scalr-run "), "{calls}");
    let joins: Vec<&str> = calls.lines().filter(|call| call.starts_with("usermod ")).collect();
    assert_eq!(joins, ["usermod --append --groups scalr-docker scalr-agent"]);
}

/// What the record has after the accounts were made on a host that has `known` already.
fn recorded(folder: &Path, known: &str) -> String {
    let place = folder.display().to_string();
    let script = std::fs::read_to_string(source("pkg/usr/lib/scalr-agent/maintain")).unwrap();
    let fakes = format!(
        "getent() {{ case $2 in {known}) true ;; *) false ;; esac; }}\n\
         groupadd() {{ :; }}\nuseradd() {{ :; }}\nusermod() {{ :; }}\n"
    );
    let body = script
        .replace("/usr/lib/scalr-agent/engine", &place)
        .replace("/var/lib/scalr-agent-setup.created", &format!("{place}/created"))
        .replace("set -eu\n", &format!("set -eu\n{fakes}"))
        .replace("main \"$@\"\n", "make_accounts\n");
    let output = Command::new("sh").args(["-c", &body]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(folder.join("created")).unwrap_or_default()
}

#[test]
fn accounts_that_were_there_before_are_not_recorded_as_made() {
    let folder = tempfile::tempdir().unwrap();
    let all = "group scalr-agent\nuser scalr-agent\ngroup scalr-run\nuser scalr-run\n\
               group scalr-docker\n";
    assert_eq!(recorded(folder.path(), "nobody"), all);
    // Again, after a removal that kept the record but not the accounts.
    assert_eq!(recorded(folder.path(), "nobody"), all);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(recorded(folder.path(), "scalr-agent | scalr-run"), "group scalr-docker\n");
}

/// How often a step has systemd read its units again, where the setup program is at work or not.
fn reloads(step: &str, setup_is_at_work: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let script = std::fs::read_to_string(source("pkg/usr/lib/scalr-agent/maintain")).unwrap();
    let fakes = format!("systemctl() {{ echo \"$@\" >>{place}/calls; }}\n");
    let body = script
        .replace("set -eu\n", &format!("set -eu\n{fakes}"))
        .replace("/var/lib/scalr-agent-setup.unfinished", &format!("{place}/unfinished"))
        .replace("/run/systemd/system", &place)
        .replace(
            "main \"$@\"\n",
            "make_accounts() { :; }\nmake_directories() { :; }\nlabel_files() { :; }\n\
             render_drop_ins() { :; }\nmain \"$@\"\n",
        );
    if setup_is_at_work {
        std::fs::write(folder.path().join("unfinished"), "").unwrap();
    }
    let output = Command::new("sh").args(["-c", &body, "maintain", step]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
    calls.lines().filter(|call| *call == "daemon-reload").count()
}

#[test]
fn a_first_installation_leaves_reading_the_units_to_a_setup_program_at_work() {
    assert_eq!(reloads("installed", false), 1);
    assert_eq!(reloads("installed", true), 0);
    // The agent that goes on here needs the new unit.
    assert_eq!(reloads("upgraded", true), 1);
}

/// A purge with a record, and what it calls to remove accounts.
#[test]
fn a_purge_deletes_what_is_recorded_and_follows_no_link_further_than_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |path: &str| {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    };
    for path in [
        "srv/agent data/machine-id",
        "srv/agent data/tasks/t/journal",
        "srv/agent data/theirs",
        "srv/made/providers/x",
        "disk/image/x",
        "disk/photos/theirs",
        "var/lib/scalr-agent/setup.json",
        "etc/scalr-agent/agent.toml",
        "elsewhere/tasks/theirs",
    ] {
        put(path);
    }
    symlink(root.join("disk"), root.join("var/lib/scalr-docker")).unwrap();
    symlink(root.join("elsewhere"), root.join("srv/link")).unwrap();
    let place = root.display();
    std::fs::write(
        root.join("var/lib/scalr-agent-setup.created"),
        format!(
            "group scalr-docker\nuser scalr-agent\ndata {place}/srv/agent data\n\
             folder {place}/srv/made\ndata {place}/srv/made\ndata {place}/srv/link\n\
             was {group} 2750 {place}/srv/agent data\nwas {group} 700 {place}/srv/made\n\
             was {group} 700 {place}/srv/link\n",
            group = std::fs::metadata(root).unwrap().gid(),
        ),
    )
    .unwrap();
    for open in ["srv/agent data", "elsewhere"] {
        std::fs::set_permissions(root.join(open), Permissions::from_mode(0o1770)).unwrap();
    }
    let fakes = "getent() { true; }\nip() { :; }\nsystemctl() { :; }\n\
                 userdel() { echo userdel \"$@\"; }\nusermod() { echo usermod \"$@\"; }\n\
                 groupdel() { echo groupdel \"$@\"; }\n";
    let script = std::fs::read_to_string(source("pkg/deb/postrm")).unwrap();
    let mut body = script.replace("set -eu\n", &format!("set -eu\n{fakes}"));
    for folder in ["/var/lib/scalr-", "/etc/scalr-", "/run/scalr-", "/etc/systemd"] {
        body = body.replace(folder, &format!("{place}{folder}"));
    }
    let output = Command::new("sh").args(["-c", &body, "postrm", "purge"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Its group was there before, and userdel would take it along.
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "usermod --gid 0 scalr-agent\nuserdel scalr-agent\ngroupdel scalr-docker\n"
    );
    let find = Command::new("find").arg(root).args(["-type", "f"]).output().unwrap();
    let left = String::from_utf8(find.stdout).unwrap().replace(&place.to_string(), "");
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    assert_eq!(left, ["/disk/photos/theirs", "/elsewhere/tasks/theirs", "/srv/agent data/theirs"]);
    assert!(!root.join("srv/made").exists());
    assert_eq!(mode_of(&root.join("srv/agent data")), 0o2750, "as it was found");
    assert_eq!(mode_of(&root.join("elsewhere")), 0o1770, "the target of a link");
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_data_folder_that_was_there_before_is_recorded_as_it_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let script = std::fs::read_to_string(source("pkg/usr/lib/scalr-agent/maintain")).unwrap();
    let body = script
        .replace("/usr/lib/scalr-agent/engine", "/nowhere")
        .replace("/var/lib/scalr-agent", &format!("{place}/data"))
        .replace("/etc/scalr-agent", &format!("{place}/settings"))
        .replace("set -eu\n", "set -eu\nchown() { :; }\n")
        .replace("main \"$@\"\n", "make_directories\nmake_directories\n");
    let made = || {
        let output = Command::new("sh").args(["-c", &body]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mode_of(&folder.path().join("data")), 0o1770);
        std::fs::read_to_string(folder.path().join("data-setup.created")).unwrap_or_default()
    };
    assert_eq!(made(), "");
    // The link of an administrator.
    let disk = folder.path().join("disk");
    std::fs::remove_dir(folder.path().join("data")).unwrap();
    std::fs::create_dir(&disk).unwrap();
    std::fs::set_permissions(&disk, Permissions::from_mode(0o751)).unwrap();
    symlink("disk", folder.path().join("data")).unwrap();
    let group = std::fs::metadata(&disk).unwrap().gid();
    assert_eq!(made(), format!("was {group} 751 {}\n", disk.display()));
}

fn scripts() -> Vec<PathBuf> {
    let mut scripts =
        vec![source("pkg/usr/lib/scalr-agent/maintain"), source("scripts/install.sh")];
    for folder in ["pkg/deb", "pkg/rpm"] {
        let entries = std::fs::read_dir(source(folder)).unwrap();
        scripts.extend(entries.map(|entry| entry.unwrap().path()));
    }
    assert!(scripts.len() >= 8, "{scripts:?}");
    scripts
}

fn source(path: &str) -> PathBuf {
    tests::checkout(path)
}

//! `uninstall`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::tree::Tree;

const SETTINGS: &str = "/etc/scalr-agent/agent.toml";

fn installed() -> Tree {
    let tree = Tree::new();
    let token = [("SCALR_AGENT_TOKEN", "the-token")];
    let said = tree.setup_with(&["install", "--url", "https://pools.example.com"], &token, "");
    assert_eq!(said.code, 0, "{}", said.all());
    tree
}

/// Two running tasks of the agent, one of them damaged, and one that was
/// never written down whole.
fn take_tasks(tree: &Tree, data_dir: &str) {
    tree.put(
        &format!("{data_dir}/tasks/task-9-1/journal"),
        &(r#"{"claimed": {"slot": 1, "claim": {"task_token": "hunter2", "task": {
            "id": "task-9", "attempt": 1, "kind": "apply", "run_id": "run-7",
            "run_source": "api", "operation": "apply", "variables": [],
            "workspace": {"id": "ws-1", "name": "network"},
            "environment": {"id": "env-1", "name": "prod"}}}}}"#
            .replace('\n', " ")
            + "\n"),
    );
    tree.put(&format!("{data_dir}/tasks/task-8-2/journal"), "{\n");
    fs::create_dir_all(tree.path(&format!("{data_dir}/tasks/half-made"))).unwrap();
}

#[test]
fn where_nothing_is_installed_nothing_is_changed() {
    let tree = Tree::new();
    fs::remove_dir(tree.path("/var/lib/scalr-agent")).unwrap();
    let before = tree.snapshot();
    for options in [&[][..], &["--dry-run"], &["--purge"]] {
        let said = tree.setup(&[&["uninstall"], options].concat());
        assert_eq!(said.code, 0, "{}", said.all());
        assert_eq!(said.stdout, "Nothing to remove; nothing was changed.\n", "{}", said.all());
    }
    let said = tree.setup(&["uninstall", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["outcome"], "unchanged");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_the_agent_s_user_puts_in_place_of_a_journal_holds_nothing_up() {
    let tree = Tree::new();
    let task = tree.path("/var/lib/scalr-agent/tasks/task-1-1");
    fs::create_dir_all(&task).unwrap();
    let journal = task.join("journal");
    type Make = fn(&Path);
    let tricks: [(Make, &str); 3] = [
        (
            |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            "not a regular",
        ),
        (|path| symlink("/dev/zero", path).unwrap(), "symbolic links"),
        (|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(), "larger than"),
    ];
    for (make, why) in tricks {
        make(&journal);
        let said = tree.setup(&["uninstall"]);
        assert_eq!(said.code, 1, "{}", said.all());
        assert!(said.stderr.contains("task-1-1: cannot read its journal"), "{}", said.stderr);
        assert!(said.stderr.contains(why), "{why}: {}", said.stderr);
        assert_eq!(tree.setup(&["status"]).code, 0);
        fs::remove_file(&journal).unwrap();
    }
}

#[test]
fn a_link_that_the_agent_s_user_puts_in_place_of_a_folder_is_not_followed() {
    let outside = Tree::new();
    take_tasks(&outside, "");
    let tree = Tree::new();
    let tasks = tree.path("/var/lib/scalr-agent/tasks");
    fs::create_dir_all(&tasks).unwrap();
    symlink(outside.path("/tasks/task-9-1"), tasks.join("task-9-1")).unwrap();
    let said = tree.setup(&["uninstall", "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.all());
    fs::remove_dir_all(&tasks).unwrap();

    symlink(outside.path("/tasks"), &tasks).unwrap();
    let said = tree.setup(&["uninstall"]);
    assert_eq!(said.code, 1, "{}", said.all());
    let named = format!("cannot read {}: it is a link", tasks.display());
    assert!(said.stderr.contains(&named) && !said.all().contains("run-7"), "{}", said.all());
    let said = tree.setup(&["uninstall", "--force", "--purge"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(outside.path("/tasks/task-9-1/journal").exists() && !tasks.exists());
}

#[test]
fn it_refuses_while_runs_are_active() {
    let tree = installed();
    take_tasks(&tree, "/var/lib/scalr-agent");
    let before = tree.snapshot();
    for arguments in [&["uninstall"][..], &["uninstall", "--purge"], &["uninstall", "--dry-run"]] {
        let said = tree.setup(arguments);
        assert_eq!(said.code, 1, "{arguments:?}: {}", said.all());
        for part in [
            "run-7: apply in prod/network (task-9)",
            "task-8-2: its journal cannot be read",
            "--force",
        ] {
            assert!(said.stderr.contains(part), "{arguments:?}: {}", said.stderr);
        }
        assert!(!said.stderr.contains("half-made"), "{}", said.stderr);
        assert_eq!(tree.snapshot(), before, "{arguments:?}");
    }
    let said = tree.setup(&["uninstall", "--force"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(!tree.path("/etc/systemd").exists());
    assert!(tree.path("/var/lib/scalr-agent/tasks").exists(), "data stay without --purge");
}

#[test]
fn uninstall_purges_a_custom_data_dir() {
    let tree = installed();
    let settings = tree.read(SETTINGS);
    tree.put(SETTINGS, &format!("{settings}data_dir = \"/srv/agent\"\n"));
    take_tasks(&tree, "/srv/agent");
    for file in [
        "machine-id",
        "connection.json",
        "progress.json",
        "images.json",
        "providers.json",
        "providers/a.zip",
    ] {
        tree.put(&format!("/srv/agent/{file}"), "");
    }
    tree.put("/srv/agent/lost/task-1-1/state", "");
    tree.put("/srv/agent/somebody-elses", "");
    let said = tree.setup(&["uninstall", "--purge"]);
    assert!(said.code == 1 && said.stderr.contains("run-7"), "{}", said.all());
    assert_eq!(tree.setup(&["uninstall", "--purge", "--force"]).code, 0);
    let left: Vec<_> = fs::read_dir(tree.path("/srv/agent"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["somebody-elses"]);
    assert!(!tree.path(SETTINGS).exists(), "the settings are purged although they were edited");
}

#[test]
fn a_purge_deletes_the_data_folders_that_were_made_also_earlier_ones() {
    let tree = installed();
    let settings = tree.read(SETTINGS);
    fs::create_dir(tree.path("/srv")).unwrap();
    for folder in ["/srv/first", "/srv/second"] {
        tree.put(SETTINGS, &format!("{settings}data_dir = \"{folder}\"\n"));
        let said = tree.setup(&["units"]);
        assert_eq!(said.code, 0, "{}", said.all());
        tree.put(&format!("{folder}/providers/a.zip"), "");
    }
    tree.put("/srv/second/theirs", "");
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert!(tree.path("/srv/first/providers/a.zip").exists(), "data stay without --purge");
    let said = tree.setup(&["uninstall", "--purge"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(!tree.path("/srv/first").exists());
    let left: Vec<_> = fs::read_dir(tree.path("/srv/second"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["theirs"]);
}

#[test]
#[ignore = "needs root: run scripts/test"]
fn a_purge_gives_a_data_folder_that_stays_its_group_and_mode_back() {
    let tree = installed();
    tree.put("/etc/group", "root:x:0:\nscalr-agent:x:64321:\n");
    let settings = tree.read(SETTINGS);
    let state = |folder: &str| {
        let found = fs::metadata(tree.path(folder)).unwrap();
        format!("{} {:o}", found.gid(), found.mode() & 0o7777)
    };
    for folder in ["/srv/as before", "/srv/changed", "/srv/closed"] {
        fs::create_dir_all(tree.path(folder)).unwrap();
        fs::set_permissions(tree.path(folder), Permissions::from_mode(0o2750)).unwrap();
        chown(tree.path(folder), None, Some(50)).unwrap();
        tree.put(SETTINGS, &format!("{settings}data_dir = \"{folder}\"\n"));
        assert_eq!(tree.setup(&["units"]).code, 0);
        assert_eq!(state(folder), "64321 3770", "chmod keeps setgid");
        tree.put(&format!("{folder}/lost+found/x"), "");
    }
    fs::set_permissions(tree.path("/srv/changed"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert_eq!(state("/srv/as before"), "64321 3770", "its data stay");
    let said = tree.setup(&["uninstall", "--purge"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(state("/srv/as before"), "50 2750");
    assert_eq!(state("/srv/changed"), "64321 700");
    assert_eq!(state("/srv/closed"), "50 2750");
    assert!(said.stdout.contains("/srv/as before stays, with its earlier group"), "{}", said.all());
}

#[test]
fn a_purge_deletes_what_is_ours_in_the_target_of_a_link() {
    let tree = installed();
    tree.put("/disk/docker/image/x", "");
    tree.put("/disk/docker/photos/theirs", "");
    tree.link("/var/lib/scalr-docker", "../../disk/docker");
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    assert!(!tree.path("/disk/docker/image").exists());
    assert!(tree.path("/disk/docker/photos/theirs").exists());
    assert!(!tree.path("/var/lib/scalr-docker").is_symlink());
}

#[test]
fn the_packages_purge_knows_the_same_names() {
    let script = include_str!("../../../../pkg/deb/postrm");
    let data = config::layout::data::ALL.join(" ");
    assert!(script.contains(&format!("\nagent_data=\"{data}\"\n")), "{data}");
    let engine = config::layout::ENGINE_DATA.join(" ");
    assert!(script.contains(&format!("\nengine_data=\"{engine}\"\n")), "{engine}");
    assert!(script.contains(&format!("\ncreated={}\n", config::layout::CREATED)));
}

#[test]
fn a_dry_run_names_what_would_go_and_changes_nothing() {
    let tree = installed();
    tree.put("/run/scalr-docker/docker.pid", "1\n");
    let before = tree.snapshot();
    let said = tree.setup(&["uninstall", "--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.contains("hardening.conf"), "{}", said.stdout);
    assert!(said.stdout.contains("would delete /run/scalr-docker"), "{}", said.stdout);
    assert!(!said.stdout.contains("agent.toml"), "settings stay: {}", said.stdout);
    let said = tree.setup(&["uninstall", "--purge", "--dry-run"]);
    for part in ["--- /etc/scalr-agent/agent.toml", "would delete /etc/scalr-agent"] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    assert!(!said.all().contains("the-token"), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_somebody_has_edited_is_left_and_named() {
    let tree = installed();
    let drop_in = "/etc/systemd/system/scalr-agent.service.d/resources.conf";
    tree.put(drop_in, "[Service]\nTasksMax=1\n");
    let said = tree.setup(&["uninstall"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.contains(&format!("{drop_in} was edited")), "{}", said.stdout);
    assert!(tree.read(drop_in).contains("TasksMax=1"));
}

const REPOSITORY: &str = "/etc/yum.repos.d/CentOS-Base.repo";
const FIXES: &str = "/var/lib/scalr-agent-setup.fixes";

/// An installation for which a fix has enabled a repository.
fn fixed() -> Tree {
    let tree = installed();
    tree.put(REPOSITORY, "enabled=1\n");
    let now = json!({"file": {"sha256":
        "16f4affa3003cb1ae3f22d5e0be86a5b6fc16bbf40662629df0aa5ad0ff52e15"}});
    let owner = fs::metadata(tree.path(REPOSITORY)).unwrap();
    let before = json!({"file": {"mode": 0o644, "uid": owner.uid(), "gid": owner.gid(),
        "text": "enabled=0\n"}});
    let fix = json!([{"check": "container-selinux", "command": "yum-config-manager --enable extras",
        "failed": false, "packages": [], "undo": null, "before": null,
        "files": [{"path": REPOSITORY, "now": now, "before": before}]}]);
    tree.put(FIXES, &fix.to_string());
    tree
}

#[test]
fn what_fixes_changed_is_listed_and_stays() {
    let tree = fixed();
    for arguments in [&["status"][..], &["uninstall", "--dry-run"], &["uninstall"]] {
        let said = tree.setup(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.all());
        for part in ["yum-config-manager --enable extras", REPOSITORY] {
            assert!(said.stdout.contains(part), "{arguments:?}: {}", said.all());
        }
        assert_eq!(tree.read(REPOSITORY), "enabled=1\n");
        assert!(tree.path(FIXES).exists(), "{arguments:?}");
    }
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    assert_eq!(tree.read(REPOSITORY), "enabled=1\n");
    assert!(!tree.path(FIXES).exists());
}

#[test]
fn what_fixes_changed_is_undone_on_request() {
    let tree = fixed();
    let said = tree.setup(&["uninstall", "--undo-fixes", "--dry-run"]);
    assert!(said.code == 0 && said.stdout.contains(REPOSITORY), "{}", said.all());
    assert_eq!(tree.read(REPOSITORY), "enabled=1\n");
    let said = tree.setup(&["uninstall", "--purge", "--undo-fixes"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(tree.read(REPOSITORY), "enabled=0\n");
    assert!(!tree.path(FIXES).exists());
    assert!(!tree.path("/var/lib/scalr-agent").exists());
}

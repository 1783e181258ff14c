//! `check`, `units`, `install`, `status` and `uninstall`.

use std::fs;
use std::process::Command;

use crate::tree::{Said, Tree};

const SETTINGS: &str = "/etc/scalr-agent/agent.toml";
const TOKEN: [(&str, &str); 1] = [("SCALR_AGENT_TOKEN", "the-token")];

fn install(tree: &Tree, more: &[&str]) -> Said {
    let arguments = [&["install", "--url", "https://pools.example.com"], more].concat();
    tree.setup_with(&arguments, &TOKEN, "")
}

#[test]
fn authorities_are_read_from_a_file_that_has_an_end() {
    let tree = Tree::new();
    let pipe = tree.path("/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (file, why) in [
        (pipe.to_str().unwrap(), "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/nonexistent", "No such file"),
    ] {
        let arguments = ["install", "--url", "https://pools.example.com", "--ca-cert", file];
        let said = tree.setup_with(&arguments, &[("SCALR_AGENT_TOKEN", "t")], "");
        assert_eq!(said.code, 2, "{}", said.all());
        assert!(said.stderr.contains(&format!("--ca-cert {file}: ")), "{}", said.all());
        assert!(said.stderr.contains(why), "{}", said.all());
    }
}

#[test]
fn installed_again_and_removed() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let said = install(&tree, &["--concurrency", "3", "--http-proxy", "http://proxy:3128"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(tree.mode(SETTINGS), 0o640);
    let settings = tree.read(SETTINGS);
    assert!(settings.contains("token = \"the-token\"\n") && settings.contains("concurrency = 3\n"));
    assert!(!said.all().contains("the-token"));
    let drop_ins = tree.path("/etc/systemd/system/scalr-agent.service.d");
    let mut names: Vec<_> =
        fs::read_dir(drop_ins).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["hardening.conf", "proxy.conf", "resources.conf"]);

    let after = tree.snapshot();
    let said = install(&tree, &["--concurrency", "3", "--http-proxy", "http://proxy:3128"]);
    assert!(said.code == 0 && said.stdout.contains("nothing was changed"), "{}", said.all());
    assert_eq!(tree.snapshot(), after);

    let status = tree.setup(&["status", "--format", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let settings = status["settings"]["values"].as_array().unwrap();
    let token = settings.iter().find(|setting| setting["name"] == "token").unwrap();
    assert_eq!(token["value"], "***");
    assert_eq!(status["proxy"]["variables"]["HTTPS_PROXY"], "http://proxy:3128");

    // Settings stay for the next time; --purge takes them.
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert!(tree.path(SETTINGS).exists());
    assert!(!tree.path("/etc/systemd").exists());
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    let left = tree.snapshot();
    let before: Vec<_> = before.into_iter().filter(|l| !l.contains("lib/scalr-agent")).collect();
    assert_eq!(left, before);
}

#[test]
fn the_authority_is_kept_until_it_is_purged() {
    let tree = Tree::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my ca.pem");
    let option = file.to_str().unwrap();
    let before = tree.snapshot();
    for wrong in ["", "no certificate"] {
        if !wrong.is_empty() {
            fs::write(&file, wrong).unwrap();
        }
        let said = install(&tree, &["--ca-cert", option]);
        assert!(said.code == 2 && said.stderr.contains("--ca-cert"), "{}", said.all());
        assert_eq!(tree.snapshot(), before);
    }
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    fs::write(&file, pem).unwrap();
    let said = install(&tree, &["--ca-cert", option]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(tree.read("/etc/scalr-agent/ca.pem"), pem);
    assert_eq!(tree.mode("/etc/scalr-agent/ca.pem"), 0o644);
    assert!(tree.read(SETTINGS).contains("ca_cert = \"/etc/scalr-agent/ca.pem\"\n"));

    // The file that it was read from is not needed again.
    fs::remove_file(&file).unwrap();
    let said = install(&tree, &["--concurrency", "2"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(tree.setup(&["uninstall"]).code, 0);
    assert_eq!(tree.read("/etc/scalr-agent/ca.pem"), pem);
    assert_eq!(tree.setup(&["uninstall", "--purge"]).code, 0);
    assert!(!tree.path("/etc/scalr-agent").exists());
}

#[test]
fn what_is_set_and_not_named_stays() {
    let tree = Tree::new();
    install(&tree, &["--concurrency", "3", "--memory", "1024"]);
    let said = tree.setup(&["install", "--concurrency", "4"]);
    assert_eq!(said.code, 0, "{}", said.all());
    let settings = tree.read(SETTINGS);
    assert!(settings.contains("memory = 1024") && settings.contains("concurrency = 4"));
    assert!(settings.contains("token = \"the-token\""));
}

#[test]
fn a_step_that_fails_leaves_the_tree_as_it_was() {
    let tree = Tree::new();
    // A drop-in that can't be written: the last file of all.
    fs::create_dir_all(
        tree.path("/etc/systemd/system/scalr-docker.service.d/proxy.conf/in-the-way"),
    )
    .unwrap();
    let before = tree.snapshot();
    let said = install(&tree, &["--http-proxy", "http://proxy:3128"]);
    assert_eq!(said.code, 1, "{}", said.all());
    assert!(said.stderr.contains("Undoing"), "{}", said.stderr);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn bad_input_changes_nothing() {
    let tree = Tree::new();
    let before = tree.snapshot();
    for (arguments, code) in [
        (&["install"][..], 2),
        (&["install", "--url", "https://pools.example.com"], 2),
        (&["install", "--url", "http://pools.example.com", "--token-file", "-"], 2),
        (&["install", "--url", "nonsense"], 2),
        (&["install", "--token", "on-the-command-line"], 2),
        (&["install", "--url", "https://p.example.com", "--token-file", "/no/such/file"], 2),
        (&["check", "--only", "memroy"], 2),
    ] {
        let said = tree.setup_with(arguments, &[], "the-token\n");
        assert_eq!(said.code, code, "{arguments:?}: {}", said.all());
        assert_eq!(tree.snapshot(), before, "{arguments:?}");
    }
    for text in
        ["{\"token\": \"hunter2\"}", "Authorization: Bearer hunter2", "hunter2\nhunter2", ""]
    {
        let arguments = ["install", "--url", "https://p.example.com", "--token-file", "-"];
        let said = tree.setup_with(&arguments, &[], text);
        assert_eq!(said.code, 2, "{text}: {}", said.all());
        assert!(said.stderr.contains("standard input as the pool's token: it "), "{}", said.all());
        assert!(!said.all().contains("hunter2"), "{}", said.all());
        assert_eq!(tree.snapshot(), before, "{text}");
    }
    let said = install(&tree, &["--concurrency", "0"]);
    assert!(said.code == 2 && said.stderr.contains("concurrency"), "{}", said.all());
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_token_comes_by_standard_input() {
    let tree = Tree::new();
    let arguments = ["install", "--url", "https://pools.example.com", "--token-file", "-"];
    let said = tree.setup_with(&arguments, &[], "from-a-pipe\n");
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(tree.read(SETTINGS).contains("token = \"from-a-pipe\"\n"));
}

#[test]
fn without_the_package_there_is_nothing_to_set_up() {
    let tree = Tree::new();
    fs::remove_file(tree.path("/usr/bin/scalr-agent")).unwrap();
    let before = tree.snapshot();
    assert_eq!(install(&tree, &[]).code, 6);
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn an_unknown_system_is_not_supported() {
    let tree = Tree::new();
    tree.put("/etc/os-release", "ID=alpine\nVERSION_ID=3.20\nPRETTY_NAME=\"Alpine Linux\"\n");
    let before = tree.snapshot();
    let said = install(&tree, &[]);
    assert_eq!(said.code, 5, "{}", said.all());
    assert_eq!(tree.snapshot(), before);
    let said = tree.setup(&["check", "--format", "json"]);
    assert_eq!(said.code, 3);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (report["schema"].as_u64(), report["summary"]["failed"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(tree.setup(&["check", "--ignore", "os"]).code, 4);
}

#[test]
fn json_is_one_document_and_the_rest_goes_to_standard_error() {
    let tree = Tree::new();
    let document = |said: &Said| -> serde_json::Value {
        serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.all()))
    };
    let installed = install(&tree, &["--format", "json"]);
    let first = document(&installed);
    assert_eq!((installed.code, &first["outcome"]), (0, &"changed".into()));
    assert_eq!(first["steps"].as_array().unwrap().last().unwrap()["name"], "agent");
    assert!(first["changes"].as_array().unwrap().contains(&SETTINGS.into()), "{first}");
    assert!(installed.stderr.contains("Changed:"), "{}", installed.stderr);
    assert_eq!(document(&install(&tree, &["--format", "json"]))["outcome"], "unchanged");

    let failed = document(&install(&tree, &["--format", "json", "--concurrency", "0"]));
    assert_eq!((&failed["outcome"], &failed["error"]["exit_code"]), (&"failed".into(), &2.into()));
    assert_eq!(failed["changes"], serde_json::json!([]));
    assert!(failed["error"]["cause"].as_str().unwrap().contains("concurrency"), "{failed}");

    let before = tree.snapshot();
    let removal = document(&tree.setup(&["uninstall", "--dry-run", "--format", "json"]));
    assert_eq!((&removal["command"], &removal["dry_run"]), (&"uninstall".into(), &true.into()));
    assert!(!removal["changes"].as_array().unwrap().is_empty(), "{removal}");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_dry_run_of_a_removal_says_what_it_would_do() {
    let tree = Tree::new();
    install(&tree, &[]);
    let drop_in = "/etc/systemd/system/scalr-agent.service.d/hardening.conf";
    tree.put(drop_in, "# ours\n");
    let said = tree.setup(&["uninstall", "--dry-run"]);
    let would = format!("{drop_in} was edited since it was written, so it would stay");
    assert!(said.code == 0 && said.stdout.contains(&would), "{}", said.all());
    let said = tree.setup(&["uninstall"]);
    assert!(said.stdout.contains("so it stays; remove it by hand"), "{}", said.all());
    assert!(!said.all().contains("scalr-agent-setup uninstall"), "{}", said.all());
}

#[test]
fn a_dry_run_writes_nothing() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let said = install(&tree, &["--dry-run"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stdout.contains("+ProtectSystem=strict"), "{}", said.stdout);
    assert!(!said.all().contains("the-token"));
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn the_hosts_own_engine() {
    let tree = Tree::new();
    let groups = tree.read("/etc/group");
    tree.put("/etc/group", &format!("{groups}docker:x:998:\n"));
    let mask = tree.path("/etc/systemd/system/scalr-docker.service");
    let drop_in = "/etc/systemd/system/scalr-agent.service.d/engine.conf";
    assert_eq!(install(&tree, &["--engine", "system"]).code, 0);
    assert!(tree.read(SETTINGS).contains("engine = \"unix:///var/run/docker.sock\""));
    assert_eq!(fs::read_link(&mask).unwrap().to_str(), Some("/dev/null"));
    assert!(tree.read(drop_in).contains("\nSupplementaryGroups=docker\n"));
    assert_eq!(install(&tree, &["--engine", "bundled"]).code, 0);
    assert!(!tree.read(SETTINGS).contains("engine ="));
    assert!(fs::symlink_metadata(&mask).is_err());
    assert!(!tree.path(drop_in).exists());
    // A tree without such a group: nothing that could keep the unit from its start.
    tree.put("/etc/group", &groups);
    assert_eq!(install(&tree, &["--engine", "system"]).code, 0);
    assert!(!tree.read(drop_in).contains("SupplementaryGroups"), "{}", tree.read(drop_in));
}

#[test]
fn units_let_the_agent_write_to_a_custom_data_folder() {
    let tree = Tree::new();
    assert_eq!(install(&tree, &[]).code, 0);
    let hardening = "/etc/systemd/system/scalr-agent.service.d/hardening.conf";
    let result = |name: &str| {
        let said = tree.setup(&["check", "--only", name, "--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        report["checks"][0].clone()
    };
    assert_eq!(result("drop-ins")["result"], "passed");
    // As `scalr-agent configure` writes it.
    let settings = tree.read(SETTINGS);
    tree.put(SETTINGS, &format!("{settings}data_dir = \"/srv/agent data\"\n"));
    let stale = result("drop-ins");
    assert_eq!(stale["result"], "warning", "{stale}");
    assert_eq!(stale["fix"][0], "scalr-agent-setup units");

    // Somebody else's files are in there.
    tree.put("/srv/agent data/providers/theirs", "");
    let before = tree.snapshot();
    assert_eq!(result("data-folder")["result"], "failed");
    let said = tree.setup(&["units"]);
    assert_eq!(said.code, 2, "{}", said.all());
    assert!(said.stderr.contains("somebody else's providers is in there"), "{}", said.all());
    assert_eq!(tree.snapshot(), before);

    fs::remove_dir_all(tree.path("/srv/agent data")).unwrap();
    let said = tree.setup(&["units"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(tree.read(hardening).contains("ReadWritePaths=\"-/srv/agent data\"\n"));
    assert!(tree.path("/srv/agent data").is_dir());
    assert_eq!(result("drop-ins")["result"], "passed");
    assert_eq!(result("data-folder")["result"], "passed");
}

#[test]
#[ignore = "needs root: run scripts/test"]
fn a_data_folder_on_a_disk_that_is_mounted_read_only_is_refused_before_anything_is_changed() {
    let tree = Tree::new();
    assert_eq!(install(&tree, &[]).code, 0);
    let settings = tree.read(SETTINGS);
    tree.put(SETTINGS, &format!("{settings}data_dir = \"/srv/agent\"\n"));
    fs::create_dir(tree.path("/srv")).unwrap();
    for arguments in [&["check", "--only", "data-folder"][..], &["units"]] {
        let setup = tree.command(arguments);
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", "mount -t tmpfs -o ro tmpfs \"$0\"; exec \"$@\""])
            .arg(tree.path("/srv"))
            .arg(setup.get_program())
            .args(setup.get_args())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("its disk is mounted read-only"), "{said}");
        assert!(!said.contains("Undoing"), "{said}");
    }
}

#[test]
fn units_go_by_the_services_variables_and_leave_what_was_edited() {
    let tree = Tree::new();
    assert_eq!(install(&tree, &[]).code, 0);
    let drop_ins = "/etc/systemd/system/scalr-agent.service.d";
    let resources = format!("{drop_ins}/resources.conf");
    tree.put(&resources, "[Service]\nTasksMax=1\n");
    let variable = "[Service]\nEnvironment=SCALR_AGENT_DATA_DIR=/srv/agent\n";
    tree.put(&format!("{drop_ins}/site.conf"), variable);
    fs::create_dir(tree.path("/srv")).unwrap();
    let said = tree.setup(&["units"]);
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(said.stderr.contains("resources.conf was edited by hand"), "{}", said.all());
    assert_eq!(tree.read(&resources), "[Service]\nTasksMax=1\n");
    let hardening = tree.read(&format!("{drop_ins}/hardening.conf"));
    assert!(hardening.contains("ReadWritePaths=\"-/srv/agent\"\n"), "{hardening}");
}

#[test]
fn units_for_any_systemd() {
    let tree = Tree::new();
    let before = tree.snapshot();
    let output = tempfile::tempdir().unwrap();
    for (version, wanted) in [("219", "ProtectSystem=full"), ("252", "ProtectSystem=strict")] {
        let directory = output.path().join(version);
        let directory = directory.to_str().unwrap();
        let said = tree.setup(&["units", "--systemd-version", version, "--output", directory]);
        assert_eq!(said.code, 0, "{}", said.all());
        let text = fs::read_to_string(output.path().join(version).join("hardening.conf")).unwrap();
        assert!(text.contains(wanted), "{text}");
    }
    assert_eq!(tree.snapshot(), before);
}

//! The Ansible role and its example playbook, on each family.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::fleet::{Fleet, URL};
use crate::held::{RIVAL, repository};
use crate::machine::{text, wait_for};
use crate::proxy::Proxy;
use crate::watch::Watch;

#[test]
#[ignore = "needs root, a kit and Ansible: run scripts/test"]
fn ubuntu_18_04_is_set_up_by_ansible_and_a_second_play_changes_nothing() {
    ansible_sets_up("ubuntu-18.04");
}

#[test]
#[ignore = "needs root, a kit and Ansible: run scripts/test"]
fn centos_8_is_set_up_by_ansible_and_a_second_play_changes_nothing() {
    ansible_sets_up("centos-8");
}

#[test]
#[ignore = "needs root, a kit and Ansible: run scripts/test"]
fn centos_8_behind_a_proxy_is_looked_at_and_set_up_by_ansible() {
    ansible_sets_up_behind_a_proxy("centos-8");
}

/// What the role asks of a host before it installs anything, on this host with tools of the
/// test's own.
#[test]
#[ignore = "needs root and Ansible: run scripts/test"]
fn a_question_of_the_role_that_fails_is_no_answer() {
    const ABSENT: &str = "echo package scalr-agent is not installed; exit 1";
    const NO_DATABASE: &str = "echo error: cannot open Packages database >&2; exit 1";
    const NO_METADATA: &str = "echo \"Error: cannot read the repository 'vendor'\" >&2; exit 1";
    std::thread::scope(|scope| {
        for (tasks, tools, is_folder, why, steps) in [
            ("yum", &[("rpm", ABSENT)][..], true, "must be a file", 0),
            ("yum", &[("rpm", NO_DATABASE)], false, "cannot open Packages database", 1),
            ("yum", &[("rpm", ABSENT), ("dnf", NO_METADATA)], false, "the repository 'vendor'", 2),
            (
                "apt",
                &[("apt-get", ""), ("apt-cache", "echo E: no lists >&2; exit 100")],
                false,
                "E: no lists",
                3,
            ),
        ] {
            scope.spawn(move || {
                let asked = ask(tasks, tools, is_folder);
                assert_eq!(asked.count("failed"), 1, "{}", asked.said);
                assert_eq!(asked.said.matches("ASKED ").count(), steps, "{}", asked.said);
                assert!(asked.said.contains(why), "{why}: {}", asked.said);
                assert!(
                    !asked.said.contains("TASK [scalr_agent : Install the package and what"),
                    "{}",
                    asked.said
                );
            });
        }
    });
}

/// Plays some tasks of the role on this host. Nothing of the host is asked or changed: its tools
/// come from the test, and the repository's definition is in the test's folder.
fn ask(tasks: &str, tools: &[(&str, &str)], is_folder: bool) -> Play {
    let work = tempfile::tempdir().expect("a work folder");
    let definition = work.path().join("scalr-agent.repo");
    if is_folder {
        std::fs::create_dir(&definition).expect("the work folder takes folders");
    }
    for (name, body) in tools {
        tests::programs::write(
            &work.path().join(name),
            &format!("#!/bin/sh\necho {name} >>\"${{0%/*}}/asked\"\n{body}\n"),
        );
    }
    let variables = json!({
        "ansible_facts": {
            "os_family": if tasks == "apt" { "Debian" } else { "RedHat" },
            "pkg_mgr": "dnf", "distribution": "CentOS", "distribution_major_version": "8",
        },
        "scalr_agent_url": URL, "scalr_agent_definition_file": definition,
        "scalr_agent_known":
            {"results": [{"stat": {"exists": false}}, {"stat": {"exists": is_folder}}]},
    });
    let play = json!([{
        "hosts": "localhost", "connection": "local", "gather_facts": false,
        "tasks": [{"ansible.builtin.import_role": {"name": "scalr_agent", "tasks_from": tasks}}],
    }]);
    for (name, content) in [("variables.json", variables), ("play.json", play)] {
        std::fs::write(work.path().join(name), content.to_string())
            .expect("the folder takes files");
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", work.path().display());
    let output = playbook(&work, &path)
        .current_dir(work.path())
        .args(["--inventory", "localhost,", "--extra-vars", "@variables.json", "play.json"])
        .output()
        .expect("ansible-playbook starts");
    let asked = std::fs::read_to_string(work.path().join("asked")).unwrap_or_default();
    let asked: String = asked.lines().map(|line| format!("ASKED {line}\n")).collect();
    Play { said: text(&output) + &asked }
}

/// Ansible with the role, and nothing of this host's environment: its connections hand that on.
fn playbook(work: &TempDir, path: &str) -> Command {
    let mut command = Command::new("ansible-playbook");
    command
        .env_clear()
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .env("HOME", "/root")
        .env("ANSIBLE_LOCAL_TEMP", work.path())
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_ROLES_PATH", tests::checkout("pkg/ansible"));
    command
}

mod full {
    use super::ansible_sets_up_behind_a_proxy;

    #[test]
    #[ignore = "needs root, a kit and Ansible: run scripts/test --full"]
    fn ubuntu_18_04_behind_a_proxy_is_looked_at_and_set_up_by_ansible() {
        ansible_sets_up_behind_a_proxy("ubuntu-18.04");
    }
}

fn ansible_sets_up_behind_a_proxy(flavour: &str) {
    let fleet = Fleet::boot(flavour, &["--only-proxy"]);
    let pool = fleet.pool();
    fleet.distrust_server();
    let _open = Proxy::start(&fleet, 8888, None);
    let _closed = Proxy::start(&fleet, 8889, Some(("robot", "pa55word")));
    let ansible = Ansible { proxy: Some("http://proxy.test:8888"), ..Ansible::new(&fleet) };
    let set = || json!({"scalr_agent_http_proxy": "http://robot:pa%355word@proxy.test:8889"});
    let files = "find /etc /usr -name '*scalr*'";
    // The package manager has one of its own that does not answer.
    let (dead, file) = match flavour.starts_with("ubuntu") {
        true => ("Acquire::http::Proxy \"http://127.0.0.1:9\";", "/etc/apt/apt.conf.d/01proxy"),
        false => ("proxy=http://127.0.0.1:9", "/etc/dnf/dnf.conf"),
    };
    fleet.shell(&format!("printf '%s\\n' '{dead}' >>{file}"));

    let looked = ansible.look(&pool.token, set());
    assert_eq!(looked.count("failed"), 0, "{}", looked.said);
    assert!(looked.count("changed") > 0, "{}", looked.said);
    assert_eq!(fleet.shell(files), "");

    let elsewhere = json!({"scalr_agent_url": "https://nowhere.test"});
    let wrong = ansible.play(&pool.token, elsewhere);
    assert_eq!(wrong.count("failed"), 1, "{}", wrong.said);
    assert!(wrong.said.contains("https://nowhere.test/packages/scalr-agent.asc"), "{}", wrong.said);

    let first = ansible.play(&pool.token, set());
    assert_eq!(first.count("failed"), 0, "{}", first.said);
    fleet.wait_for_agent(&pool, "idle");
    let secret = "find /etc/apt /etc/yum* /etc/dnf -type f 2>/dev/null | \
                  xargs grep -l 5word | xargs stat --format=%a";
    assert_eq!(fleet.shell(secret), "600");
    for shown in [&looked.said, &first.said] {
        assert!(!shown.contains("5word"), "the password shows: {shown}");
    }
    for again in [ansible.play("", set()), ansible.play("", json!({})), ansible.look("", set())] {
        assert_eq!((again.count("failed"), again.count("changed")), (0, 0), "{}", again.said);
    }
    fleet.wait_for_agent(&pool, "idle");
}

fn ansible_sets_up(flavour: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    // The role brings it.
    fleet.distrust_server();
    let ansible = Ansible::new(&fleet);
    let watch = Watch::start(&fleet, "/root/pool.token");

    let other = json!({"scalr_agent_key_checksum": format!("sha256:{}", "0".repeat(64))});
    let distrusted = ansible.play(&pool.token, other);
    assert_eq!(distrusted.count("failed"), 1, "{}", distrusted.said);
    assert!(distrusted.said.contains("key is not the expected one"), "{}", distrusted.said);
    fleet.shell(
        "! ls /etc/apt/sources.list.d/scalr-agent.sources /etc/yum.repos.d/scalr-agent.repo",
    );

    let (add, remove) = rival(&fleet, flavour);
    fleet.shell(add);
    let rivals = ansible.play(&pool.token, json!({}));
    assert_eq!(rivals.count("failed"), 1, "{}", rivals.said);
    assert!(
        rivals.said.contains("instead of the server's; nothing was installed"),
        "{}",
        rivals.said
    );
    fleet.shell("! test -e /usr/bin/scalr-agent-setup");
    fleet.shell(remove);

    let refused = ansible.play("no-such-token", json!({}));
    assert_eq!(refused.count("failed"), 1, "{}", refused.said);
    assert!(refused.said.contains("refuses"), "{}", refused.said);
    assert!(!refused.said.contains("no-such-token"), "{}", refused.said);

    let first = ansible.play(&pool.token, json!({}));
    assert_eq!(first.count("failed"), 0, "{}", first.said);
    assert!(first.count("changed") > 0, "{}", first.said);
    fleet.wait_for_agent(&pool, "idle");

    let services = "systemctl show --property=MainPID scalr-agent scalr-docker";
    let before = fleet.shell(services);
    // Also without the token: the host has it.
    for token in [pool.token.as_str(), ""] {
        let again = ansible.play(token, json!({}));
        assert_eq!((again.count("failed"), again.count("changed")), (0, 0), "{}", again.said);
        assert_eq!(fleet.shell(services), before, "nothing was restarted");
    }

    let other = ansible.play("", json!({"scalr_agent_user": "root"}));
    assert_eq!((other.count("failed"), other.count("changed")), (0, 1), "{}", other.said);
    assert!(fleet.shell("cat /etc/scalr-agent/agent.toml").contains("user = \"root\""));
    fleet.wait_for_agent(&pool, "idle");

    // A new authority is read by the agent that runs.
    let ready = || {
        let lines = fleet.shell("journalctl --unit=scalr-agent --output=cat --no-pager");
        lines.matches("ready to receive tasks").count()
    };
    let (running, starts) = (fleet.shell(services), ready());
    let ca = std::fs::read_to_string(fleet.ca()).expect("the server's authority");
    let renewed = ansible.play("", json!({"scalr_agent_server_ca": format!("{ca}\n")}));
    assert_eq!(renewed.count("failed"), 0, "{}", renewed.said);
    wait_for("the agent to be ready again", Duration::from_secs(60), || {
        (ready() > starts).then_some(())
    });
    assert_eq!(fleet.shell(services), running, "the agent was reloaded, not restarted");

    let system = fleet.world.try_shell(&fleet.machine, &format!("curl -fsS {URL}/install.sh"));
    assert_eq!(system.status.code(), Some(60), "the host itself does not trust the server");

    assert_eq!(watch.end(), "", "the token was on a command line");
    for shown in [&first.said, &other.said, &fleet.shell("journalctl --no-pager")] {
        assert!(!shown.contains(&pool.token), "the token shows");
    }
    assert_eq!(fleet.shell("find /root/.ansible/tmp -type f"), "");
}

/// What adds another repository with a newer package of the same name, and what removes it.
fn rival(fleet: &Fleet, flavour: &str) -> (&'static str, &'static str) {
    if flavour.starts_with("ubuntu") {
        let remove = "rm /etc/apt/sources.list.d/rival.list /etc/apt/preferences \
                      /etc/apt/preferences.d/rival; apt-get update >/dev/null";
        return (RIVAL, remove);
    }
    fleet.world.feed(&fleet.machine, "tar -x -C /srv", &repository("scalr-agent", "0.40.0"));
    let add = "printf '%s\\n' '[vendor]' name=Vendor baseurl=file:///srv/repository gpgcheck=0 \
               >/etc/yum.repos.d/vendor.repo";
    (add, "rm /etc/yum.repos.d/vendor.repo")
}

/// Ansible on this host, and the machine as the one host of its inventory.
struct Ansible<'a> {
    fleet: &'a Fleet,
    work: TempDir,
    /// What the modules reach the server through.
    proxy: Option<&'a str>,
}

/// What came of a play.
struct Play {
    said: String,
}

impl<'a> Ansible<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        let work = tempfile::tempdir().expect("a work folder");
        let host = format!(
            "[terraform_agents]\n{} ansible_connection=community.docker.nsenter \
             ansible_nsenter_pid={} ansible_python_interpreter=/usr/bin/python3\n",
            fleet.machine,
            fleet.world.pid(&fleet.machine),
        );
        std::fs::write(work.path().join("inventory"), host).expect("the work folder takes files");
        Self { fleet, work, proxy: None }
    }

    /// Plays the example, with this world's server and what else is set.
    fn play(&self, token: &str, set: Value) -> Play {
        self.run(token, set, &[])
    }

    /// The same in check mode.
    fn look(&self, token: &str, set: Value) -> Play {
        self.run(token, set, &["--check", "--diff"])
    }

    fn run(&self, token: &str, set: Value, options: &[&str]) -> Play {
        let ca = std::fs::read_to_string(self.fleet.ca()).expect("the server's authority");
        let key = std::fs::read(self.fleet.repository().join("scalr-agent.asc")).expect("the key");
        let mut variables = json!({
            "scalr_agent_url": URL, "scalr_agent_server_ca": ca, "scalr_agent_concurrency": 1,
            "scalr_agent_key_checksum": format!("sha256:{}", hex::encode(Sha256::digest(key))),
        });
        for (name, value) in set.as_object().expect("an object") {
            variables[name] = value.clone();
        }
        let file = self.work.path().join("variables.json");
        std::fs::write(&file, variables.to_string()).expect("the work folder takes files");
        let output = playbook(&self.work, "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("POOL_TOKEN", token)
            .arg("--inventory")
            .arg(self.work.path().join("inventory"))
            .arg("--extra-vars")
            .arg(format!("@{}", file.display()))
            .arg("-vvv")
            .args(options)
            .arg(self.playbook())
            .output()
            .expect("ansible-playbook starts");
        Play { said: text(&output) }
    }
}

impl Ansible<'_> {
    /// The example, whose modules reach the server through the proxy if there is one.
    fn playbook(&self) -> PathBuf {
        let example = tests::checkout("pkg/ansible/playbook.yml");
        let Some(proxy) = self.proxy else { return example };
        let text = std::fs::read_to_string(example).expect("the example");
        let root = "  become: true\n";
        assert!(text.contains(root), "{text}");
        let text = text.replace(root, &format!("{root}  environment: {{https_proxy: {proxy}}}\n"));
        let file = self.work.path().join("playbook.yml");
        std::fs::write(&file, text).expect("the work folder takes files");
        file
    }
}

impl Play {
    /// How many tasks the recap says are `changed`, `failed`, ….
    fn count(&self, what: &str) -> u32 {
        let recap = self.said.split("PLAY RECAP").nth(1).unwrap_or_default();
        recap
            .split_whitespace()
            .find_map(|word| word.strip_prefix(what)?.strip_prefix('=')?.parse().ok())
            .unwrap_or_else(|| panic!("no {what} in the recap: {}", self.said))
    }
}

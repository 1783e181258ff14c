//! What dpkg and rpm do with a package in its life: services, files, accounts,
//! settings and running tasks are as they should be after each step.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::fleet::{Fleet, configuration, kit, refusal};
use crate::machine::{text, wait_for};
use crate::pool::{Pool, Run};

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_upgrades_downgrades_removes_and_purges() {
    lives("ubuntu-18.04", &DEB);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_upgrades_downgrades_and_removes() {
    lives("centos-7", &RPM_EL7);
}

/// The first two take every step, also those of the oldest yum and systemd.
mod full {
    use super::{RPM, lives};

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_upgrades_downgrades_and_removes() {
        lives("centos-8", &RPM);
    }
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_7_refuses_the_rpm_for_newer_systems() {
    let fleet = Fleet::boot("centos-7", &[]);
    fleet.shell("yum-config-manager --enable extras");
    let newer = feed(&fleet, "packages", "rpm");
    let install = RPM.install.replace("FILE", &newer);
    let said = refusal(&fleet.world.try_shell(&fleet.machine, &install));
    assert!(said.contains("systemd >= 230"), "{said}");
    assert_eq!(fleet.shell("rpm -q scalr-agent || :"), "package scalr-agent is not installed");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_image_is_built_without_systemd() {
    for (flavour, commands) in [("ubuntu-18.04", &DEB), ("centos-8", &RPM)] {
        let fleet = Fleet::boot(flavour, &[]);
        let file = feed(&fleet, "packages", commands.kind);
        // As in a chroot or an image's build, nothing says that systemd runs.
        let without = |command: &str| {
            let command = command.replace("FILE", &file);
            fleet.shell(&format!("unshare --mount sh -c 'mount -t tmpfs tmpfs /run && {command}'"))
        };
        without(commands.install);
        let accounts = fleet.shell(ACCOUNTS);
        assert!(accounts.contains("/var/lib/scalr-agent root:scalr-agent 1770"), "{accounts}");
        without(commands.reinstall);
        assert_eq!(fleet.shell(ACCOUNTS), accounts, "twice is once");
        assert_eq!(fleet.shell(commands.verify), "");
        without("scalr-agent configure --url=https://pools.example.com --concurrency=2");
        without(commands.remove);
        assert_eq!(fleet.shell("ls /usr/bin/scalr* 2>/dev/null || :"), "");
        if commands.kind == "deb" {
            // The engine's data is often a disk of its own.
            without(
                "mount -t tmpfs tmpfs /var/lib/scalr-docker && mkdir /var/lib/scalr-docker/image && \
                 apt-get purge --yes scalr-agent && [ -z \"$(ls -A /var/lib/scalr-docker)\" ]",
            );
            assert_eq!(fleet.shell("dpkg --list scalr-agent 2>/dev/null || :"), "");
        }
    }
}

/// The commands of a family of systems; `FILE` is a package.
struct Commands {
    /// The package's kind, as `scalr-agent-setup package` names it.
    kind: &'static str,
    /// How its release ends.
    suffix: &'static str,
    install: &'static str,
    downgrade: &'static str,
    reinstall: &'static str,
    remove: &'static str,
    version: &'static str,
    /// Prints what is not as it was packaged.
    verify: &'static str,
}

const DEB: Commands = Commands {
    kind: "deb",
    suffix: "",
    install: "apt-get install --yes FILE",
    downgrade: "apt-get install --yes --allow-downgrades FILE",
    reinstall: "apt-get install --yes --reinstall FILE",
    remove: "apt-get remove --yes scalr-agent",
    version: "dpkg-query --show --showformat='${Version}' scalr-agent",
    verify: "dpkg --verify scalr-agent",
};

const RPM: Commands = Commands {
    kind: "rpm",
    suffix: "",
    install: "yum -y install FILE",
    downgrade: "yum -y downgrade FILE",
    reinstall: "yum -y reinstall FILE",
    remove: "yum -y remove scalr-agent",
    version: "rpm -q --qf '%{VERSION}-%{RELEASE}' scalr-agent",
    verify: "rpm --verify scalr-agent || :",
};

const RPM_EL7: Commands = Commands { kind: "rpm-el7", suffix: ".el7", ..RPM };

/// Accounts, folders with their owners and modes, and what starts at boot.
const ACCOUNTS: &str = "id scalr-agent; id scalr-run; \
    getent group scalr-agent scalr-docker scalr-run; \
    stat --format='%n %U:%G %a' /etc/scalr-agent /var/lib/scalr-agent /var/lib/scalr-docker; \
    systemctl is-enabled scalr-agent scalr-docker || :";

/// What an administrator has changed, and a drop-in of somebody else's.
const EDIT: &str = "scalr-agent configure --concurrency=3 && \
    mkdir -p /etc/systemd/system/scalr-agent.service.d && \
    printf '[Service]\\nNice=5\\n' >/etc/systemd/system/scalr-agent.service.d/site.conf && \
    systemctl daemon-reload";
const EDITED: &str = "grep -h -e concurrency -e Nice /etc/scalr-agent/agent.toml \
    /etc/systemd/system/scalr-agent.service.d/site.conf";

/// How many seconds an apply takes: longer than a busy machine unpacks a package.
const STEPS: u32 = 60;

/// The services' main processes: a reload keeps them, a restart does not.
const PROCESSES: &str =
    "systemctl show --property=MainPID scalr-agent scalr-docker scalr-containerd";

fn lives(flavour: &str, commands: &Commands) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, &STEPS.to_string());
    let first = feed(&fleet, "packages", commands.kind);
    let next = feed(&fleet, "next", commands.kind);
    let run = |command: &str, file: &str| fleet.shell(&command.replace("FILE", file));

    // Fresh, by hand: nothing runs that nobody has configured, and twice is once.
    if flavour == "centos-7" {
        fleet.shell("yum-config-manager --enable extras");
    }
    run(commands.install, &first);
    let services = "systemctl is-active scalr-agent scalr-docker || :; \
        systemctl is-enabled scalr-agent scalr-docker || :";
    assert_eq!(fleet.shell(services), "inactive\ninactive\ndisabled\ndisabled");
    let accounts = fleet.shell(ACCOUNTS);
    assert!(accounts.contains("/var/lib/scalr-agent root:scalr-agent 1770"), "{accounts}");
    assert!(accounts.contains("/var/lib/scalr-docker root:root 710"), "{accounts}");
    run(commands.reinstall, &first);
    assert_eq!(fleet.shell(ACCOUNTS), accounts);
    assert_eq!(fleet.shell(commands.verify), "");

    fleet.install("");
    fleet.shell(EDIT);
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    let life = Life::of(&fleet, &pool, commands);

    // Removed while a run applies; what is removed may come back.
    let (interrupted, _) = applying(&fleet, &pool);
    run(commands.remove, "");
    life.is_removed();
    assert_eq!(pool.status(&interrupted), "errored");
    let log = pool.log(&interrupted, "apply");
    assert!(log.contains("the agent was stopped"), "{log}");
    run(commands.install, &first);
    fleet.shell("systemctl enable scalr-agent scalr-docker && systemctl start scalr-agent");
    life.goes_on_as("0.1.0-1");

    let processes = fleet.shell(PROCESSES);
    let goes_on_untouched = |version: &str| {
        life.goes_on_as(version);
        assert_eq!(fleet.shell(PROCESSES), processes, "the same processes, as {version}");
    };
    a_broken_download_is_refused(&fleet, commands, &next);
    goes_on_untouched("0.1.0-1");
    run(commands.reinstall, &first);
    goes_on_untouched("0.1.0-1");
    run(commands.install, &next);
    goes_on_untouched("0.1.0-2");
    run(commands.downgrade, &first);
    goes_on_untouched("0.1.0-1");
    an_upgrade_in_the_middle_of_an_apply_loses_nothing(&fleet, &pool, || {
        run(commands.install, &next);
    });
    goes_on_untouched("0.1.0-2");

    if commands.kind == "deb" {
        run("apt-get purge --yes scalr-agent", "");
    } else {
        fleet.shell("scalr-agent-setup uninstall --purge");
    }
    fleet.wait_for_agent(&pool, "offline");
    let left = "getent passwd scalr-agent scalr-run; \
        getent group scalr-agent scalr-docker scalr-run; \
        ls -d /etc/scalr-agent /etc/needrestart /var/lib/scalr-* /run/scalr-docker /usr/lib/scalr-agent \
        /usr/bin/scalr* 2>/dev/null; ip -o link | grep scalr; iptables-save | grep SCALR; \
        ls -A /etc/systemd/system/scalr-agent.service.d; :";
    assert_eq!(fleet.shell(left), "site.conf", "nothing of ours is left");
}

/// An agent that is set up, and what no package may change of it.
struct Life<'a> {
    fleet: &'a Fleet,
    pool: &'a Pool<'a>,
    commands: &'a Commands,
    accounts: String,
    edited: String,
}

impl<'a> Life<'a> {
    fn of(fleet: &'a Fleet, pool: &'a Pool<'a>, commands: &'a Commands) -> Self {
        let (accounts, edited) = (fleet.shell(ACCOUNTS), fleet.shell(EDITED));
        assert!(accounts.ends_with("enabled\nenabled"), "{accounts}");
        Self { fleet, pool, commands, accounts, edited }
    }

    /// Whole, in its version, with its accounts and settings, and ready for runs.
    fn goes_on_as(&self, version: &str) {
        let Self { fleet, pool, commands, accounts, edited } = self;
        fleet.wait_for_agent(pool, "idle");
        let version = format!("{version}{}", commands.suffix);
        assert_eq!(fleet.shell(commands.version), version);
        assert_eq!(fleet.shell(commands.verify), "", "as it was packaged");
        assert_eq!(&fleet.shell(ACCOUNTS), accounts);
        assert_eq!(&fleet.shell(EDITED), edited);
        assert_eq!(
            fleet.shell("systemctl is-active scalr-agent scalr-docker scalr-containerd"),
            "active\nactive\nactive"
        );
        let program = "stat --dereference --format=%i /proc/$(systemctl show --property=MainPID \
            scalr-agent | cut -d= -f2)/exe /usr/bin/scalr-agent | uniq | wc -l";
        assert_eq!(fleet.shell(program), "1", "the program that runs is the one that is installed");
    }

    /// Nothing of it runs or starts; accounts, settings and data are there.
    fn is_removed(&self) {
        let Self { fleet, pool, edited, .. } = self;
        fleet.wait_for_agent(pool, "offline");
        assert_eq!(fleet.shell("ls /usr/bin/scalr* /usr/lib/scalr-agent 2>/dev/null || :"), "");
        assert_eq!(fleet.shell("systemctl list-unit-files --no-legend 'scalr-*' || :"), "");
        let processes = "pgrep -f '[/]usr/lib/scalr-agent/engine|[t]erraform' || :";
        assert_eq!(fleet.shell(processes), "");
        assert_eq!(&fleet.shell(EDITED), edited, "what is removed may come back");
        fleet.shell("id scalr-agent && ls -d /var/lib/scalr-docker/* /var/lib/scalr-agent/*");
    }
}

/// The end of the package never arrived.
fn a_broken_download_is_refused(fleet: &Fleet, commands: &Commands, whole: &str) {
    let broken = whole.replace("next", "broken");
    fleet.shell(&format!("cp {whole} {broken} && truncate --size=-1M {broken}"));
    let output = fleet.world.try_shell(&fleet.machine, &commands.install.replace("FILE", &broken));
    assert!(!output.status.success(), "it was installed: {}", text(&output));
}

/// An apply whose first step is done, and its container.
fn applying(fleet: &Fleet, pool: &Pool<'_>) -> (Run, serde_json::Value) {
    let run = pool.start_run(&configuration());
    pool.wait_for_status(&run, "planned");
    pool.apply(&run);
    wait_for("the apply's first step", Duration::from_secs(60), || {
        pool.log(&run, "apply").contains("step 1 of").then_some(())
    });
    (run, fleet.running_container())
}

fn an_upgrade_in_the_middle_of_an_apply_loses_nothing(
    fleet: &Fleet,
    pool: &Pool<'_>,
    upgrade: impl Fn(),
) {
    let (run, container) = applying(fleet, pool);
    upgrade();
    assert_eq!(pool.status(&run), "applying", "it was upgraded in the middle");
    assert_eq!(fleet.running_container()["Id"], container["Id"]);
    pool.wait_for_status(&run, "applied");
    let log = pool.log(&run, "apply");
    for step in 1..=STEPS {
        assert_eq!(log.matches(&format!("step {step} of")).count(), 1, "step {step}: {log}");
    }
    assert_eq!(pool.output("greeting"), json!("hello, from a run's container"));
    assert_eq!(fleet.containers(), "");
}

/// Brings a package of the kit to the machine; gives its path there.
pub(crate) fn feed(fleet: &Fleet, folder: &str, kind: &str) -> String {
    let file = package(folder, kind);
    let extension = if kind == "deb" { "deb" } else { "rpm" };
    let path = format!("/root/{folder}.{extension}");
    fleet.copy(&file, &path, "0644");
    path
}

/// The package of a kind in a folder of the kit.
pub(crate) fn package(folder: &str, kind: &str) -> PathBuf {
    fs::read_dir(kit().join(folder))
        .expect("the kit has packages")
        .map(|entry| entry.expect("the kit can be read").path())
        .find(|path| {
            let name = path.to_string_lossy();
            match kind {
                "rpm-el7" => name.ends_with(".rpm") && name.contains(".el7."),
                "rpm" => name.ends_with(".rpm") && !name.contains(".el7."),
                _ => name.ends_with(&format!(".{kind}")),
            }
        })
        .expect("the kit has that package")
}

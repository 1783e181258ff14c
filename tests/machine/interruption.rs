//! Install, upgrade and uninstall that are interrupted at each step: the machine is as
//! before, or one command makes it so or finishes, and an apply goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, URL, creating, refusal};
use crate::lifecycle::feed;
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// A step of a command, and how to see that it is being done.
#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    command: Command,
    /// A condition of the shell.
    reached: &'static str,
    /// The folder that the step writes to; the first one that is there.
    writes_to: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Install,
    Upgrade,
    Uninstall,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Ctrl-C, a closed terminal, a shutdown or a kill: to all processes of the command.
    Signal(&'static str),
    ServerGone,
    DiskFull,
}

const UNPACKING: &str =
    "ls /usr/lib/scalr-agent/engine/*.dpkg-new || ls /usr/lib/scalr-agent/engine/*\\;*";

const SETTINGS_WRITTEN: &str = "grep -q 'concurrency = 3' /etc/scalr-agent/agent.toml";

const INSTALL_PACKAGE: Step = Step {
    name: "the package",
    command: Command::Install,
    reached: UNPACKING,
    writes_to: "/usr/lib/scalr-agent",
};

/// A package tool with no space for what is installed.
const INSTALL_RECORD: Step = Step {
    name: "the record of the package",
    command: Command::Install,
    reached: UNPACKING,
    writes_to: "/var/lib/dpkg",
};

const INSTALL_SETTINGS: Step = Step {
    name: "the settings",
    command: Command::Install,
    reached: SETTINGS_WRITTEN,
    writes_to: "/etc/scalr-agent",
};

const INSTALL_START: Step = Step {
    name: "the agent's start",
    command: Command::Install,
    // Not the unit's state: the agent may have registered between two looks at that.
    reached: "[ -L /etc/systemd/system/multi-user.target.wants/scalr-agent.service ]",
    writes_to: "/var/lib/scalr-agent",
};

/// When the server has to go for the agent to start without it: it registers within
/// milliseconds of its start.
const ENGINE_STARTS: &str =
    "systemctl show --property=ActiveState scalr-docker | grep -q =activating";

const UPGRADE_PACKAGE: Step = Step {
    name: "the package",
    command: Command::Upgrade,
    reached: UNPACKING,
    writes_to: "/usr/lib/scalr-agent",
};

const UPGRADE_SETTINGS: Step = Step {
    name: "the settings",
    command: Command::Upgrade,
    reached: SETTINGS_WRITTEN,
    writes_to: "/etc/scalr-agent",
};

const UNINSTALL_STOP: Step = Step {
    name: "the agent's stop",
    command: Command::Uninstall,
    reached: "! systemctl is-active --quiet scalr-agent",
    writes_to: "/var/lib",
};

const UNINSTALL_PACKAGE: Step = Step {
    name: "the package",
    command: Command::Uninstall,
    reached: "! [ -e /usr/share/man/man1/scalr-agent.1.gz ]",
    writes_to: "/var/lib/dpkg",
};

const STEPS: [Step; 7] = [
    INSTALL_PACKAGE,
    INSTALL_SETTINGS,
    INSTALL_START,
    UPGRADE_PACKAGE,
    UPGRADE_SETTINGS,
    UNINSTALL_STOP,
    UNINSTALL_PACKAGE,
];

/// The journal of what is to be undone.
const UNFINISHED: &str = "/var/lib/scalr-agent-setup.unfinished";

/// The setup program as the install script has it: also there without the package.
const SETUP: &str = "/root/scalr-agent-setup";

/// Settings, drop-ins, files, and which units run and start at boot.
const STATE: &str = "sha256sum /etc/scalr-agent/* /etc/systemd/system/scalr-agent.service.d/*; \
    find /usr -path '*scalr*' ! -type d | sort; \
    systemctl is-active scalr-agent scalr-docker scalr-containerd; \
    systemctl is-enabled scalr-agent scalr-docker; :";

const ACCOUNTS: &str = "getent passwd scalr-agent scalr-run || :";

/// The package's files.
const FILES: &str = "find /usr -path '*scalr*' ! -type d";

/// What is wrong with the package, and what an interrupted dpkg or rpm has left of its files.
const HALF_INSTALLED: &str = "if command -v dpkg >/dev/null && ! [ -d /etc/yum.repos.d ]; then dpkg --audit; \
     else rpm -qa scalr-agent | sort | tail -n +2; ! rpm -q scalr-agent >/dev/null || \
     rpm --verify --nomtime scalr-agent | grep -v ' c ' || :; fi; \
     find /usr -name '*.dpkg-new' -o -name '*;[0-9a-f]*'";

/// Leaves no space in a folder: what is written there goes to a small disk that is full. The
/// data of agent and engine, which may be below it, stay where they are.
const FILL: &str = "set -e; mkdir -p PLACE /run/full; mount -t tmpfs -o size=64k full /run/full; \
    for data in scalr-agent scalr-docker; do mkdir -p /run/full/$data /var/lib/$data; \
        mount --rbind /var/lib/$data /run/full/$data; done; \
    mkdir /run/full/upper /run/full/work; \
    mount -t overlay -o lowerdir=PLACE,upperdir=/run/full/upper,workdir=/run/full/work full PLACE; \
    [ PLACE != /var/lib ] || for data in scalr-agent scalr-docker; do \
        mount --rbind /run/full/$data PLACE/$data; done; \
    dd if=/dev/zero of=/run/full/filler bs=4k 2>/dev/null || :";

/// Takes that disk away.
const FREE: &str = "umount --lazy PLACE && umount --lazy /run/full; \
    rmdir PLACE /var/lib/scalr-agent /var/lib/scalr-docker 2>/dev/null; :";

/// An agent that can't reach its server fails to start sooner than after 90 seconds.
const IMPATIENT: &str = "folder=/run/systemd/system/scalr-agent.service.d; mkdir -p $folder; \
    printf '[Service]\\nTimeoutStartSec=25\\n' >$folder/test.conf; systemctl daemon-reload";

const ENGINE_PROCESSES: &str = "systemctl show --property=MainPID scalr-docker scalr-containerd";

/// How long an apply takes in seconds.
const SECONDS: u32 = 25;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn ubuntu_18_04_survives_a_kill_during_an_upgrade_and_a_full_disk_during_a_removal() {
    let kill = Fault::Signal("KILL");
    let cells = [
        (Fault::DiskFull, INSTALL_RECORD),
        (kill, UPGRADE_PACKAGE),
        (Fault::DiskFull, UNINSTALL_PACKAGE),
    ];
    survives("ubuntu-18.04", &cells);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn centos_8_survives_a_kill_during_an_installation_and_full_disks() {
    let cells = [
        (Fault::Signal("KILL"), INSTALL_PACKAGE),
        (Fault::DiskFull, INSTALL_RECORD),
        (Fault::DiskFull, INSTALL_SETTINGS),
        (Fault::DiskFull, UNINSTALL_PACKAGE),
    ];
    survives("centos-8", &cells);
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_repeated_configure_finishes_one_that_was_interrupted_after_it_wrote_the_settings() {
    let fleet = Fleet::boot_with_package();
    let _pool = fleet.pool();
    fleet.shell(&format!("scalr-agent configure --url={URL} --token-file=/root/pool.token"));
    fleet.shell("mv /usr/bin/scalr-agent-setup /root/setup");
    let memory = "grep ^Memory /etc/systemd/system/scalr-agent.service.d/resources.conf";
    for (concurrency, signal) in [(3, "INT"), (4, "TERM"), (5, "KILL")] {
        let configure = format!("scalr-agent configure --concurrency={concurrency}");
        fleet.shell(&format!(
            "printf '%s\\n' '#!/bin/sh' 'kill -s {signal} $PPID' >/usr/bin/scalr-agent-setup && \
             chmod 0755 /usr/bin/scalr-agent-setup"
        ));
        refusal(&fleet.world.try_shell(&fleet.machine, &configure));
        fleet.shell("install -m 0755 /root/setup /usr/bin/scalr-agent-setup");
        assert!(fleet.shell(&configure).starts_with("Unchanged:"));
        // What the agent needs, in MB, and for each of its slots.
        assert_eq!(fleet.shell(memory), format!("MemoryMax={}M", 512 + 64 * concurrency));
        assert_eq!(fleet.shell("find /etc/scalr-agent -name '.*'"), "", "{signal}");
    }
}

mod full {
    use super::{Fault, survives_at_each_step};

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_ctrl_c_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::Signal("INT"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_a_closed_terminal_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::Signal("HUP"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_a_termination_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::Signal("TERM"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_a_kill_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::Signal("KILL"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_a_server_gone_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::ServerGone);
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_a_full_disk_at_each_step() {
        survives_at_each_step("ubuntu-18.04", Fault::DiskFull);
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_ctrl_c_at_each_step() {
        survives_at_each_step("centos-8", Fault::Signal("INT"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_a_closed_terminal_at_each_step() {
        survives_at_each_step("centos-8", Fault::Signal("HUP"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_a_termination_at_each_step() {
        survives_at_each_step("centos-8", Fault::Signal("TERM"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_a_kill_at_each_step() {
        survives_at_each_step("centos-8", Fault::Signal("KILL"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_a_server_gone_at_each_step() {
        survives_at_each_step("centos-8", Fault::ServerGone);
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_a_full_disk_at_each_step() {
        survives_at_each_step("centos-8", Fault::DiskFull);
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_ctrl_c_at_each_step() {
        survives_at_each_step("centos-7", Fault::Signal("INT"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_a_closed_terminal_at_each_step() {
        survives_at_each_step("centos-7", Fault::Signal("HUP"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_a_termination_at_each_step() {
        survives_at_each_step("centos-7", Fault::Signal("TERM"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_a_kill_at_each_step() {
        survives_at_each_step("centos-7", Fault::Signal("KILL"));
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_a_server_gone_at_each_step() {
        survives_at_each_step("centos-7", Fault::ServerGone);
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_a_full_disk_at_each_step() {
        survives_at_each_step("centos-7", Fault::DiskFull);
    }
}

fn survives_at_each_step(flavour: &str, fault: Fault) {
    survives(flavour, &STEPS.map(|step| (fault, step)));
}

/// The faults at their steps, one after the other on one machine.
fn survives(flavour: &str, cells: &[(Fault, Step)]) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    let host = Host::set_up(&fleet, &pool);
    for (fault, step) in cells {
        let begun = Instant::now();
        host.prepare(step.command);
        let apply = (step.command == Command::Upgrade).then(|| host.applying());
        host.interrupt(step, *fault);
        if let Some(apply) = apply {
            host.applies_once(&apply);
        }
        let seconds = begun.elapsed().as_secs();
        println!("{flavour}: {fault:?} at {} of {:?}: {seconds} s", step.name, step.command);
    }
    host.prepare(Command::Upgrade);
}

/// A machine with an agent.
struct Host<'a> {
    fleet: &'a Fleet,
    pool: &'a Pool<'a>,
    /// The next version's package.
    package: String,
}

impl<'a> Host<'a> {
    fn set_up(fleet: &'a Fleet, pool: &'a Pool<'a>) -> Self {
        let kind = match fleet.machine.as_str() {
            "centos-7" => "rpm-el7",
            "centos-8" => "rpm",
            _ => "deb",
        };
        if kind == "rpm-el7" {
            fleet.shell("yum-config-manager --enable extras");
        }
        fleet.shell(&format!(
            "curl -fsSL {URL}/packages/scalr-agent-setup-x86_64 -o {SETUP} && chmod 0700 {SETUP}"
        ));
        fleet.shell(IMPATIENT);
        Self { fleet, pool, package: feed(fleet, "next", kind) }
    }

    /// Brings the machine to where a command begins: without an agent, or with one.
    fn prepare(&self, command: Command) {
        let is_installed = !self.fleet.shell(FILES).is_empty();
        match command {
            Command::Install if is_installed => {
                self.fleet.shell(&format!("{SETUP} uninstall --purge"));
            }
            Command::Upgrade | Command::Uninstall if !is_installed => {
                self.fleet.install("");
                self.fleet.wait_for_agent(self.pool, "idle");
            }
            _ => {}
        }
    }

    /// An apply whose first step is done.
    fn applying(&self) -> Run {
        self.fleet.wait_for_agent(self.pool, "idle");
        // Another resource than that of the apply before, which is in the state.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("steps_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let steps =
            format!("for step in $(seq {SECONDS}); do echo step $step of {SECONDS}; sleep 1; done");
        let run = self.pool.start_run(creating(&name, &steps).path());
        self.pool.wait_for_status(&run, "planned");
        self.pool.apply(&run);
        wait_for("the apply's first step", Duration::from_secs(60), || {
            self.pool.log(&run, "apply").contains("step 1 of").then_some(())
        });
        run
    }

    /// Each of its steps is in the log once, and nothing is left.
    fn applies_once(&self, run: &Run) {
        self.pool.wait_for_status(run, "applied");
        let log = self.pool.log(run, "apply");
        for step in 1..=SECONDS {
            assert_eq!(log.matches(&format!("step {step} of")).count(), 1, "step {step}: {log}");
        }
        assert_eq!(self.fleet.containers(), "");
    }

    /// Runs the step's command, and has `fault` happen at the step.
    fn interrupt(&self, step: &Step, fault: Fault) {
        let what = format!("{fault:?} at {} of {:?}", step.name, step.command);
        if fault == Fault::DiskFull {
            self.fleet.shell(&FILL.replace("PLACE", self.place(step)));
        }
        let (before, engine) = (self.fleet.shell(STATE), self.fleet.shell(ENGINE_PROCESSES));
        let said = match fault {
            Fault::DiskFull => self.fail_for_lack_of_space(step),
            Fault::Signal(name) => {
                self.fleet.shell(&self.at(step, &format!("kill -s {name} -- -$job")));
                self.said()
            }
            Fault::ServerGone => self.lose_server(step),
        };
        let recovered = self.fleet.shell(&format!("! [ -e {UNFINISHED} ] || {SETUP} recover 2>&1"));
        let said = format!("{said}\n{recovered}");
        self.fleet.shell(&format!("! [ -e {UNFINISHED} ]"));
        wait_for(&format!("the units after {what}"), Duration::from_secs(60), || {
            let is_settled = !self.fleet.shell(STATE).contains("activating");
            is_settled.then_some(())
        });
        let after = self.fleet.shell(STATE);
        if fault == Fault::DiskFull {
            self.fleet.shell(&FREE.replace("PLACE", self.place(step)));
        }
        match step.command {
            Command::Install | Command::Upgrade => assert_eq!(after, before, "{what}: {said}"),
            // Its second half is another transaction, which is finished by repeating it.
            Command::Uninstall if after != before => {
                self.fleet.shell(&format!("{SETUP} uninstall"));
                assert_eq!(self.fleet.shell(FILES), "", "{what}: {said}");
            }
            Command::Uninstall => {}
        }
        assert_eq!(self.fleet.shell(HALF_INSTALLED), "", "{what}: {said}");
        // A full /etc/scalr-agent was there before, and with it the accounts stay.
        if step.command == Command::Install && fault != Fault::DiskFull {
            assert_eq!(self.fleet.shell(ACCOUNTS), "", "{what}: {said}");
        }
        if step.command == Command::Upgrade {
            assert_eq!(self.fleet.shell(ENGINE_PROCESSES), engine, "{what}: {said}");
        }
    }

    fn command(&self, command: Command) -> String {
        // The check of a full disk would refuse before the first step.
        let install = format!(
            "{SETUP} install --url {URL} --token-file /root/pool.token --concurrency 3 --ignore disk"
        );
        match command {
            Command::Install => format!("{install} --lock-timeout 9"),
            Command::Upgrade => format!("{install} --upgrade --package {}", self.package),
            Command::Uninstall => format!("{SETUP} uninstall"),
        }
    }

    /// A shell line that begins the step's command in a process group of its own and does
    /// `action` at the step.
    fn at(&self, step: &Step, action: &str) -> String {
        // The group is made by `set -m`, which dash has on terminals only.
        let line = format!(
            "set -m; {} </dev/null >/root/said 2>&1 & job=$!; \
             until {{ {}; }} >/dev/null 2>&1; do \
                 kill -0 $job || {{ cat /root/said; exit 1; }}; done; \
             {action}; echo $job >/root/job",
            self.command(step.command),
            step.reached
        );
        format!("timeout 180 bash -c '{}'", line.replace('\'', "'\\''"))
    }

    /// Stops the command while the server goes, or it might be at its end first. The shell
    /// stays meanwhile: stopped processes without it get a hangup.
    fn lose_server(&self, step: &Step) -> String {
        let starts_agent = step.reached == INSTALL_START.reached;
        let step =
            &Step { reached: if starts_agent { ENGINE_STARTS } else { step.reached }, ..*step };
        let action = "kill -s STOP -- -$job; touch /root/stopped; \
            while [ -e /root/stopped ]; do sleep 0.1; done; kill -s CONT -- -$job";
        let line = self.at(step, action);
        self.fleet.shell(&format!("rm -f /root/job; {line} </dev/null >/dev/null 2>&1 &"));
        wait_for(step.name, Duration::from_secs(180), || {
            self.fleet.shell("ls /root/stopped 2>/dev/null || :").contains("stopped").then_some(())
        });
        self.fleet.kill_server();
        self.fleet.shell(
            "rm /root/stopped; timeout 20 sh -c 'until [ -s /root/job ]; do sleep 0.1; done'",
        );
        let said = self.said();
        self.fleet.start_server(&[]);
        said
    }

    /// What the command says that was begun, when it has ended.
    fn said(&self) -> String {
        self.fleet.shell(
            "timeout 400 sh -c 'while env kill -0 $(cat /root/job) 2>/dev/null; do sleep 0.2; done'; \
             cat /root/said",
        )
    }

    /// The command fails, says where there is no space, and has undone what it did.
    fn fail_for_lack_of_space(&self, step: &Step) -> String {
        let output = self.fleet.world.try_shell(&self.fleet.machine, &self.command(step.command));
        let said = refusal(&output);
        let place = format!("{}: 0 MB free of ", self.place(step));
        assert!(said.contains(&place), "no {place:?} in: {said}");
        self.fleet.shell(&format!("! [ -e {UNFINISHED} ]"));
        said
    }

    fn place(&self, step: &Step) -> &'static str {
        match step.writes_to {
            "/var/lib/dpkg" if self.fleet.machine != "ubuntu-18.04" => "/var/lib/rpm",
            place => place,
        }
    }
}

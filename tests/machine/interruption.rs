//! Install, upgrade and uninstall that are interrupted at each step: the machine is as
//! before, or one command makes it so or finishes, and an apply goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::fleet::{DOCKER, Fleet, URL, creating};
use crate::lifecycle::feed;
use crate::machine::wait_for;
use crate::pool::{Pool, Run};

/// A step of a command, and how to see that it is being done.
struct Step {
    name: &'static str,
    command: Command,
    /// A condition of the shell.
    reached: &'static str,
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
    /// Ctrl-C, a closed terminal, or a kill: to all processes of the command.
    Signal(&'static str),
    ServerGone,
}

const UNPACKING: &str = "pgrep -x dpkg-deb || ls /usr/lib/scalr-agent/engine/*\\;*";

const SETTINGS_WRITTEN: &str = "grep -q 'concurrency = 3' /etc/scalr-agent/agent.toml";

const STEPS: [Step; 7] = [
    Step { name: "the package", command: Command::Install, reached: UNPACKING },
    Step { name: "the settings", command: Command::Install, reached: SETTINGS_WRITTEN },
    Step {
        name: "the agent's start",
        command: Command::Install,
        reached: "systemctl show --property=ActiveState scalr-agent | grep -q =activating",
    },
    Step { name: "the package", command: Command::Upgrade, reached: UNPACKING },
    Step { name: "the settings", command: Command::Upgrade, reached: SETTINGS_WRITTEN },
    Step {
        name: "the agent's stop",
        command: Command::Uninstall,
        reached: "! systemctl is-active --quiet scalr-agent",
    },
    Step {
        name: "the package",
        command: Command::Uninstall,
        reached: "pgrep -x dpkg || pgrep -x yum || pgrep -x dnf",
    },
];

const FAULTS: [Fault; 4] =
    [Fault::Signal("INT"), Fault::Signal("HUP"), Fault::Signal("KILL"), Fault::ServerGone];

/// The journal of what is to be undone.
const UNFINISHED: &str = "/var/lib/scalr-agent-setup.unfinished";

/// The setup program as the install script has it: also there without the package.
const SETUP: &str = "/root/scalr-agent-setup";

/// Settings, drop-ins, and which units run and start at boot.
const STATE: &str = "sha256sum /etc/scalr-agent/* /etc/systemd/system/scalr-agent.service.d/*; \
    systemctl is-active scalr-agent scalr-docker scalr-containerd; \
    systemctl is-enabled scalr-agent scalr-docker; :";

const ENGINE_PROCESSES: &str = "systemctl show --property=MainPID scalr-docker scalr-containerd";

/// How long an apply takes in seconds.
const SECONDS: u32 = 25;

mod full {
    use super::each_interruption_ends_well;

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn ubuntu_18_04_survives_each_interruption() {
        each_interruption_ends_well("ubuntu-18.04");
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_8_survives_each_interruption() {
        each_interruption_ends_well("centos-8");
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn centos_7_survives_each_interruption() {
        each_interruption_ends_well("centos-7");
    }
}

fn each_interruption_ends_well(flavour: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    let host = Host::set_up(&fleet, &pool);
    for fault in FAULTS {
        for step in STEPS {
            let apply = (step.command == Command::Upgrade).then(|| host.applying());
            host.interrupt(&step, fault);
            if let Some(apply) = apply {
                host.applies_once(&apply);
            }
        }
    }
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
        fleet.install("");
        fleet.wait_for_agent(pool, "idle");
        Self { fleet, pool, package: feed(fleet, "next", kind) }
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
        assert_eq!(self.fleet.shell(&format!("{DOCKER} ps --all --quiet")), "");
    }

    /// Runs the step's command, and has `fault` happen at the step.
    fn interrupt(&self, step: &Step, fault: Fault) {
        let what = format!("{fault:?} at {} of {:?}", step.name, step.command);
        if step.command == Command::Install {
            self.fleet.shell(&format!("{SETUP} uninstall --purge"));
        }
        let (before, engine) = (self.fleet.shell(STATE), self.fleet.shell(ENGINE_PROCESSES));
        let said = self.begin_and_interrupt(step, fault);
        if fault == Fault::ServerGone {
            self.fleet.start_server(&[]);
        }
        self.fleet.shell(&format!("! [ -e {UNFINISHED} ] || {SETUP} recover"));
        self.fleet.shell(&format!("! [ -e {UNFINISHED} ]"));
        self.has_no_half_installed_package(&what);
        wait_for(&format!("the units after {what}"), Duration::from_secs(60), || {
            let is_settled = !self.fleet.shell(STATE).contains("activating");
            is_settled.then_some(())
        });
        let after = self.fleet.shell(STATE);
        match step.command {
            Command::Install | Command::Upgrade => assert_eq!(after, before, "{what}: {said}"),
            // Its second half is another transaction, which is finished by repeating it.
            Command::Uninstall if after != before => {
                self.fleet.shell(&format!("{SETUP} uninstall"));
            }
            Command::Uninstall => {}
        }
        if step.command == Command::Upgrade {
            assert_eq!(self.fleet.shell(ENGINE_PROCESSES), engine, "{what}: {said}");
        } else {
            self.fleet.install("");
        }
    }

    fn begin_and_interrupt(&self, step: &Step, fault: Fault) -> String {
        let token = "--token-file /root/pool.token";
        let command = match step.command {
            Command::Install => {
                format!("{SETUP} install --url {URL} {token} --concurrency 3 --lock-timeout 9")
            }
            Command::Upgrade => format!(
                "{SETUP} install --url {URL} {token} --concurrency 3 --upgrade --package {}",
                self.package
            ),
            Command::Uninstall => format!("{SETUP} uninstall"),
        };
        let signal = match fault {
            Fault::Signal(name) => format!("kill -s {name} -- -$job"),
            Fault::ServerGone => ":".to_owned(),
        };
        // In a group of its own, which `set -m` makes; dash has it on terminals only.
        let line = format!(
            "set -m; {command} </dev/null >/root/said 2>&1 & job=$!; \
             until {{ {}; }} >/dev/null 2>&1; do \
                 kill -0 $job || {{ cat /root/said; exit 1; }}; done; \
             {signal}; echo $job >/root/job",
            step.reached
        );
        self.fleet.shell(&format!("timeout 180 bash -c '{}'", line.replace('\'', "'\\''")));
        if fault == Fault::ServerGone {
            self.fleet.kill_server();
        }
        self.fleet.shell(
            "timeout 400 sh -c 'while env kill -0 $(cat /root/job) 2>/dev/null; do sleep 0.2; done'; \
             cat /root/said",
        )
    }

    fn has_no_half_installed_package(&self, what: &str) {
        let wrong = self.fleet.shell(
            "if command -v dpkg >/dev/null && ! [ -d /etc/yum.repos.d ]; then dpkg --audit; \
             else rpm -qa scalr-agent | sort | tail -n +2; ! rpm -q scalr-agent >/dev/null || \
             rpm --verify --nomtime scalr-agent | grep -v ' c ' || :; fi",
        );
        assert_eq!(wrong, "", "{what}");
    }
}

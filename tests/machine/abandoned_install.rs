//! Installations that lose their terminal, their reader or the machine's power, and commands
//! that meet one another.

use std::time::Duration;

use crate::failed_install::{assert_same, installation, state};
use crate::fleet::{Fleet, refusal};
use crate::machine::wait_for;

const UNFINISHED: &str = "/var/lib/scalr-agent-setup.unfinished";

/// dpkg or rpm is at the package's files.
const UNPACKING: &str = "timeout 120 sh -c 'until ls /usr/lib/scalr-agent/engine/*.dpkg-new \
     /usr/lib/scalr-agent/engine/*\\;* 2>/dev/null | grep -q .; do sleep 0.01; done'";

const SETTINGS_WRITTEN: &str =
    "timeout 120 sh -c 'until [ -s /etc/scalr-agent/agent.toml ]; do sleep 0.01; done'";

/// The install script and its setup program.
const PROCESSES: &str = "'^(sh /root/install[.]sh|/[^ ]*/scalr-agent-setup )'";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_installation_whose_terminal_closes_is_undone_and_one_without_a_reader_goes_on() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    let before = state(&fleet);
    for step in [UNPACKING, SETTINGS_WRITTEN] {
        close_terminal(&fleet, step);
        fleet.shell(&format!("! [ -e {UNFINISHED} ]"));
        assert_same(step, &before, &state(&fleet));
    }
    two_at_once(&fleet);

    fleet.shell("scalr-agent-setup uninstall --purge");
    let line = installation(&fleet);
    // What nohup has it ignore stays ignored.
    fleet.shell(&format!(
        "(setsid nohup {line} 2>&1; echo $? >/root/code) | head -n 2 & {SETTINGS_WRITTEN} && \
         pkill -HUP -f {PROCESSES}; {}",
        ended()
    ));
    assert_eq!(fleet.shell("cat /root/code"), "0");
    fleet.wait_for_agent(&pool, "idle");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn an_installation_that_a_power_cut_ends_is_undone_once() {
    for (flavour, step) in
        [("ubuntu-18.04", UNPACKING), ("centos-8", UNPACKING), ("centos-8", SETTINGS_WRITTEN)]
    {
        let fleet = Fleet::boot(flavour, &[]);
        let pool = fleet.pool();
        let setup = "/root/scalr-agent-setup";
        fleet.shell(&format!(
            "curl -fsSL {}/packages/scalr-agent-setup-x86_64 -o {setup} && chmod 0700 {setup}",
            crate::fleet::URL
        ));
        let before = state(&fleet);
        let line = installation(&fleet);
        fleet.shell(&format!("({line}) >/dev/null 2>&1 </dev/null & {step}"));
        fleet.world.power(&fleet.machine, "off");
        fleet.world.power(&fleet.machine, "on");
        let said = fleet.shell(&format!("{setup} recover 2>&1"));
        assert!(said.contains("as it was before"), "{said}");
        assert_same(flavour, &before, &state(&fleet));
        let said = fleet.shell(&format!("{setup} recover 2>&1"));
        assert!(said.contains("nothing to undo"), "{said}");
        fleet.install("");
        fleet.wait_for_agent(&pool, "idle");
    }
}

/// A line that waits until they have ended.
fn ended() -> String {
    format!("timeout 200 sh -c \"while pgrep -f {PROCESSES}; do sleep 0.2; done\" >/dev/null")
}

/// Installs on a terminal that is closed at `step`: its processes get a hangup, and writing
/// to it fails.
fn close_terminal(fleet: &Fleet, step: &str) {
    let line = installation(fleet);
    fleet.shell(&format!(
        "setsid script --quiet --command '{line}' /dev/null </dev/null >/dev/null 2>&1 & \
         {step} && pkill -KILL -x script; {}",
        ended()
    ));
}

/// Another command during an installation is refused, and the installation goes on. It is
/// stopped meanwhile, or it might end first.
fn two_at_once(fleet: &Fleet) {
    let line = installation(fleet);
    fleet.shell(&format!(
        "({line}; echo $? >/root/code) >/dev/null 2>&1 </dev/null & {SETTINGS_WRITTEN} && \
         pkill -STOP -x scalr-agent-set"
    ));
    for command in ["recover", "recover --discard", "uninstall", "install --no-start"] {
        let other = format!("scalr-agent-setup {command}");
        let said = refusal(&fleet.world.try_shell(&fleet.machine, &other));
        assert!(said.contains("another scalr-agent-setup is changing this machine"), "{said}");
    }
    fleet.shell("pkill -CONT -x scalr-agent-set");
    wait_for("the installation's end", Duration::from_secs(120), || {
        (fleet.shell("cat /root/code 2>/dev/null || :") == "0").then_some(())
    });
}

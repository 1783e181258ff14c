//! An agent that was paused for long and goes on beside its successor.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{Fleet, configuration};
use crate::machine::wait_for;

/// How many lines the plan writes before Terraform plans, two a second: enough to be
/// at it still when the first agent is back.
const LINES: u32 = 240;

/// How long the first agent is paused.
const PAUSE: Duration = Duration::from_secs(120);

mod full {
    use super::*;

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn a_revived_agent_cannot_write_over_its_successor() {
        let fleet = Fleet::boot_with_package();
        let pool = fleet.pool();
        pool.variable("greeting", "terraform", false, "hello");
        pool.hooks(json!({ "pre-plan": format!(
            "i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); \
             echo \"$(hostname) line $i of {LINES}\"; sleep 0.5; done"
        )}));
        fleet.install("");
        // Its systemd would take a paused agent for one that hangs, and end it.
        fleet.shell(
            "printf '[Service]\\nWatchdogSec=0\\n' >/etc/systemd/system/scalr-agent.service.d/z.conf && \
             systemctl daemon-reload && systemctl restart scalr-agent",
        );
        fleet.wait_for_agent(&pool, "idle");
        let run = pool.start_run(&configuration());
        let says = |machine: &str, text: &str| {
            let host = container(&fleet, machine);
            wait_for(&format!("{text:?} in the log"), Duration::from_secs(90), || {
                pool.log(&run, "plan").contains(&format!("{host} {text}")).then_some(())
            });
            host
        };
        let first = says(&fleet.machine, "line 3 of");
        let agent = "$(systemctl show --property=MainPID scalr-agent | cut -d= -f2)";
        fleet.shell(&format!("kill -STOP {agent}"));
        let paused = Instant::now();

        let another = fleet.boot_another(&pool);
        fleet.install_on(&another, "");
        let second = says(&another, "line 3 of");
        std::thread::sleep(PAUSE.saturating_sub(paused.elapsed()));
        assert_eq!(pool.status(&run), "planning", "the successor is still at it");
        fleet.shell(&format!("kill -CONT {agent}"));
        wait_for("the first one's container to be gone", Duration::from_secs(90), || {
            fleet.containers().is_empty().then_some(())
        });
        assert_eq!(container(&fleet, &another), second, "the successor's goes on");

        pool.wait_for_status(&run, "planned");
        let log = pool.log(&run, "plan");
        assert!(!log.contains(&first), "the first one's words are in the log: {log}");
        for number in 1..=LINES {
            let line = format!("{second} line {number} of");
            assert_eq!(log.matches(&line).count(), 1, "{line} in: {log}");
        }
        pool.apply(&run);
        pool.wait_for_status(&run, "applied");
    }

    /// The host name of the only container on a machine.
    fn container(fleet: &Fleet, machine: &str) -> String {
        wait_for("a run's container", Duration::from_secs(90), || {
            let ids = fleet.running_containers_on(machine);
            Some(ids).filter(|ids| !ids.is_empty())
        })
    }
}

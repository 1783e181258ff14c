//! The firewall rules of a run that goes on are flushed by something else on its host.

use std::time::Duration;

use serde_json::json;

use crate::environment::{hold, let_on};
use crate::fleet::Fleet;
use crate::machine::wait_for;

const HOLD: &str = "echo holding; until [ -e /tmp/go ]; do sleep 0.2; done";

/// As the documentation promises.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// The rules of runs, without counters.
const RULES: &str = "{ iptables-save; ip6tables-save; } | grep SCALR-AGENT | sed 's/ \\[.*//'";

const BREAK: &str = "\
printf '#!/bin/sh\\necho iptables is broken >&2; exit 3\\n' >/usr/local/sbin/iptables
chmod 0755 /usr/local/sbin/iptables";

/// What `nft flush ruleset` leaves of them, too: nothing.
const FLUSH: &str = "\
for tool in iptables ip6tables; do
    for table in filter nat; do $tool -t $table -F; $tool -t $table -X; done
done 2>/dev/null; :";

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn rules_that_are_flushed_during_a_run_are_back_within_30_seconds() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    pool.variable("steps", "terraform", false, "1");
    pool.hooks(json!({ "pre-plan": HOLD }));
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let run = hold(&pool);
    let rules = fleet.shell(RULES);
    assert!(rules.contains("169.254.0.0/16"), "{rules}");
    let are_back = || (fleet.shell(&format!("{RULES} || :")) == rules).then_some(());

    fleet.shell(FLUSH);
    assert_eq!(fleet.shell(&format!("{RULES} || :")), "");
    wait_for("the rules", BACK_WITHIN, are_back);
    let log = fleet.shell("journalctl --no-pager -u scalr-agent");
    assert!(log.contains("firewall rules of runs were missing or out of date: put up"), "{log}");

    // Where they cannot come back, the run goes on and the pool knows why no other begins.
    fleet.shell(BREAK);
    fleet.shell(FLUSH);
    fleet.wait_for_agent(&pool, "errored");
    let message = pool.agent_message();
    assert!(message.contains("iptables is broken"), "{message}");
    assert_eq!(pool.status(&run), "planning");
    fleet.shell("rm /usr/local/sbin/iptables");
    wait_for("the rules", BACK_WITHIN, are_back);
    fleet.wait_for_agent(&pool, "busy");
    let_on(&fleet, &run);
    pool.wait_for_status(&run, "planned");
}

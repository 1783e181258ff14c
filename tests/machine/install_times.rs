//! How long the curl-piped script takes beside the package tool's own installation, and until
//! the agent waits for runs.
//!
//! `scripts/bench install` is the same with more rounds.

use std::time::{Duration, Instant};

use load::figures::{note, quantile, spread};

use crate::fleet::{Fleet, URL, setting};
use crate::machine::wait_for;

/// How many installations are timed: the variable that says so, and what holds without it.
const ROUNDS: (&str, u32) = ("SCALR_INSTALL_ROUNDS", 1);

/// Installs with the tool's own command and with the script in turn, each time on a machine
/// without the agent.
fn install_beside(tool: &str, flavour: &str) {
    let fleet = Fleet::boot(flavour, &[]);
    let pool = fleet.pool();
    let timed = |line: &str| {
        let begun = Instant::now();
        fleet.shell(line);
        begun.elapsed().as_secs_f64()
    };
    let (mut by_tool, mut by_script, mut until_idle) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=setting(ROUNDS) {
        fleet.shell(&format!("curl -fsSL {URL}/install.sh | sh -s -- --repository-only"));
        let tool_took = timed(tool);
        fleet.shell("scalr-agent-setup uninstall --purge");

        let begun = Instant::now();
        let script_took = timed(&Fleet::install_line(""));
        wait_for("the agent to be idle", Duration::from_secs(90), || {
            pool.agents().iter().any(|status| status == "idle").then_some(())
        });
        let idle_after = begun.elapsed().as_secs_f64();
        fleet.shell("scalr-agent-setup uninstall --purge");
        // The first one of each also installs what the package depends on.
        if round > 0 {
            by_tool.push(tool_took);
            by_script.push(script_took);
            until_idle.push(idle_after);
        }
    }
    println!("\n{flavour}, s, minimum / median / maximum of {} rounds", by_tool.len());
    println!("| | s |\n|---|---|");
    println!("| `{tool}` | {} |", spread(&by_tool));
    println!("| `curl … \\| sh` | {} |", spread(&by_script));
    let ratio = quantile(&by_script, 0.5) / quantile(&by_tool, 0.5);
    println!("| ratio of the medians | {ratio:.2} |");
    println!("| `curl … \\| sh`, until the agent is idle | {} |", spread(&until_idle));
    let name = tool.split_once(' ').expect("a command with arguments").0;
    note(&format!("installation on {flavour}, against {name}"), ratio).expect("a file");
}

mod full {
    use super::install_beside;

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn the_script_installs_beside_apt() {
        install_beside(
            "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get -y install scalr-agent",
            "ubuntu-18.04",
        );
    }

    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn the_script_installs_beside_dnf() {
        install_beside("dnf makecache && dnf -y install scalr-agent", "centos-8");
    }
}

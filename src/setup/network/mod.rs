//! `network`: the addresses that runs get, and the firewall rules around them.
//!
//! scalr-docker.service calls it before the engine starts and after it stopped;
//! scalr-agent-network.socket starts it for the agent, which verifies the rules
//! before each task.

mod fence;
mod surroundings;

use std::fs::File;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use self::fence::Fence;
use self::surroundings::Source;
use crate::context::{Context, RECORDS, require_root};
use crate::document;
use cli::{println, untrusted_file};
use config::layout::ENGINE_SETTINGS;
use host::changes::{Attributes, Changes};
use host::fence::Answer;
use host::iptables;
use host::machine::Machine;
use host::network::{self, Route};

/// Where runs get their addresses from: the first that no route touches. Rarely
/// used parts of each private block, away from what Docker, Kubernetes and
/// clouds take by default.
const RANGES: [&str; 6] = [
    "10.213.64.0/20",
    "10.187.64.0/20",
    "10.149.64.0/20",
    "172.29.64.0/20",
    "172.27.64.0/20",
    "192.168.208.0/20",
];

/// What the private engine has in place of docker0, with no container in it: an
/// engine that is configured without one removes docker0, also a host's own (moby's
/// `removeDefaultBridgeInterface`).
const BRIDGE: &str = "scalr-docker0";

/// The size of one slot's network: 13 addresses for containers.
const SLOT_PREFIX: u8 = 28;

/// Put up, verify or take down the firewall rules of runs
///
/// The services call this. The rules are in chains whose names begin with
/// SCALR-AGENT; nothing else is touched.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Write docker.json if it is missing, check its range, add the rules
    Up,
    /// Put up rules that are missing, and print the result as one line of JSON
    ///
    /// The JSON has result (good, repaired or failed); repaired comes with
    /// chains, failed with why. The agent asks for it through
    /// scalr-agent-network.socket before each task.
    Verify {
        /// Take settings and proxies from the environment, as an agent in a
        /// container does, instead of from the agent's unit
        #[arg(long)]
        from_environment: bool,
    },
    /// Remove the rules, unless runs still use them
    Down,
}

/// Runs `network`.
///
/// # Errors
/// Not root; the range collides with a route of the host; iptables fails.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    require_root(&context.machine, false)?;
    match args.action {
        Action::Up => up(&context.machine),
        Action::Verify { from_environment } => {
            let source = if from_environment { Source::Environment } else { Source::Unit };
            verify(&context.machine, source)
        }
        Action::Down => down(&context.machine),
    }
}

/// Writes [`ENGINE_SETTINGS`] with a range that is free on this host, unless it
/// exists; returns whether it was written.
///
/// # Errors
/// No range is free, or the file can't be written.
pub(crate) fn write_docker_json(changes: &mut Changes) -> Result<bool> {
    if changes.machine().path(ENGINE_SETTINGS).exists() {
        return Ok(false);
    }
    let range = free_range(&taken(changes.machine())?)?;
    changes.write(ENGINE_SETTINGS, &docker_json(range), Attributes::PUBLIC)
}

/// The range that runs get, or would get, their addresses from.
///
/// # Errors
/// An existing range collides with a route of the host, or none is free.
pub(crate) fn range(machine: &Machine) -> Result<Vec<Ipv4Net>> {
    let taken = taken(machine)?;
    let Some(ranges) = configured(machine)? else { return Ok(vec![free_range(&taken)?]) };
    for range in &ranges {
        if let Some(route) = taken.iter().find(|route| collides(*range, route)) {
            bail!(
                "the range {range} of {ENGINE_SETTINGS} collides with {} ({}); write another one \
                 under default-address-pools, or remove the file to have one chosen, then \
                 `systemctl restart scalr-docker`",
                route.range,
                if route.device.is_empty() { "a route" } else { &route.device },
            );
        }
    }
    Ok(ranges)
}

/// Whether the rules are as [`Action::Up`] and [`Action::Verify`] leave them:
/// whoever empties the tables of iptables takes them along. Only root may ask.
///
/// # Errors
/// It is unknown what they have to be.
pub(crate) fn rules_state(machine: &Machine) -> Result<iptables::State> {
    Ok(surroundings::fence(machine, Source::Unit)?.state())
}

/// Whether any of the rules is up, or a part of them.
pub(crate) fn has_rules() -> bool {
    fence::is_begun()
}

/// Takes down the rules, whoever still uses them.
///
/// # Errors
/// iptables fails.
pub(crate) fn take_down_rules() -> Result<()> {
    let _lock = lock()?;
    fence::take_down()
}

/// The bridges of the runs' networks that an engine has left behind.
///
/// # Errors
/// [`ENGINE_SETTINGS`] can't be understood, or `ip` fails.
pub(crate) fn left_bridges(machine: &Machine) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for range in configured(machine)?.unwrap_or_default() {
        left.extend(network::bridges(range)?.into_iter().filter(|name| is_engine_bridge(name)));
    }
    Ok(left)
}

fn up(machine: &Machine) -> Result<()> {
    // Only then: an installation that starts the engine holds the machine's lock.
    if !machine.path(ENGINE_SETTINGS).exists() {
        let mut changes = Changes::begin(machine, &RECORDS, false)?;
        write_docker_json(&mut changes)?;
        changes.commit()?;
        println!("wrote {ENGINE_SETTINGS}");
    }
    if !machine.is_this_one() {
        return Ok(());
    }
    let ranges = range(machine)?;
    iptables::require()?;
    network::forward_packets()?;
    network::put_up_bridge(BRIDGE, bridge_address(&ranges)?)?;
    put_up(&surroundings::private(machine, ranges.clone())?)?;
    for range in ranges {
        println!("runs get their addresses from {range}");
    }
    Ok(())
}

/// Prints an [`Answer`]; its reader learns from that of a failure, too.
fn verify(machine: &Machine, source: Source) -> Result<()> {
    let verified = surroundings::fence(machine, source).and_then(|fence| {
        iptables::require()?;
        put_up(&fence)
    });
    let answer = match &verified {
        Ok(chains) if chains.is_empty() => Answer::Good,
        Ok(chains) => Answer::Repaired { chains: chains.join(", ") },
        Err(error) => Answer::Failed { why: format!("{error:#}") },
    };
    document::write(&serde_json::to_string(&answer)?)?;
    verified.map(drop)
}

/// One at a time: the agent and the engine's unit may ask at once.
fn put_up(fence: &Fence) -> Result<Vec<String>> {
    let _lock = lock()?;
    fence.put_up()
}

/// The lock is on our own program's file, so nothing is left in /run.
fn lock() -> Result<File> {
    let lock = || {
        let file = File::open("/proc/self/exe")?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    lock().context("cannot lock the program's file")
}

/// Runs outlive a restart of the engine, and so do the rules that they need and
/// that keep them from the metadata service.
fn down(machine: &Machine) -> Result<()> {
    if !machine.is_this_one() {
        return Ok(());
    }
    let ranges = configured(machine)?.unwrap_or_default();
    for range in &ranges {
        if let Some(bridge) = network::busy_bridges(*range)?.first() {
            println!("a run still uses {bridge}, so the rules stay");
            return Ok(());
        }
    }
    if network::exists(BRIDGE)? {
        network::remove_bridge(BRIDGE)?;
    }
    take_down_rules()
}

/// The engine's own: the first of the range's last part, which no slot gets before
/// all others are used.
fn bridge_address(ranges: &[Ipv4Net]) -> Result<Ipv4Net> {
    let range = ranges.first().context("there is no range")?;
    let last = range.subnets(SLOT_PREFIX).ok().and_then(Iterator::last);
    let part =
        last.with_context(|| format!("the range {range} is smaller than a /{SLOT_PREFIX}"))?;
    let address = part.hosts().next().context("a range has addresses")?;
    Ok(Ipv4Net::new(address, SLOT_PREFIX)?)
}

fn docker_json(range: Ipv4Net) -> String {
    let settings = json!({
        "live-restore": true,
        "bridge": BRIDGE,
        "iptables": false,
        "ip6tables": false,
        "default-address-pools": [{ "base": range, "size": SLOT_PREFIX }],
        "log-driver": "json-file",
        "log-opts": { "max-size": "100m", "max-file": "5" },
    });
    format!("{settings:#}\n")
}

/// The ranges in [`ENGINE_SETTINGS`]; `None` if there is no such file.
fn configured(machine: &Machine) -> Result<Option<Vec<Ipv4Net>>> {
    let file = machine.path(ENGINE_SETTINGS);
    if !file.exists() {
        return Ok(None);
    }
    let text = untrusted_file::read_text(file)
        .with_context(|| format!("cannot read {ENGINE_SETTINGS}"))?;
    let settings: Value =
        serde_json::from_str(&text).with_context(|| format!("{ENGINE_SETTINGS} is no JSON"))?;
    let pools = settings["default-address-pools"].as_array().cloned().unwrap_or_default();
    let ranges: Vec<Ipv4Net> = pools
        .iter()
        .map(|pool| {
            let base = pool["base"].as_str().unwrap_or_default();
            base.parse().with_context(|| format!("{ENGINE_SETTINGS}: `{base}` is no IPv4 range"))
        })
        .collect::<Result<_>>()?;
    if ranges.is_empty() {
        bail!(
            "{ENGINE_SETTINGS} has no default-address-pools, so runs would take addresses that \
             other programs use; add one, or remove the file to have one chosen"
        );
    }
    Ok(Some(ranges))
}

/// The destinations of the host's routes, and its name servers.
fn taken(machine: &Machine) -> Result<Vec<Route>> {
    if !machine.is_this_one() {
        return Ok(Vec::new());
    }
    let mut taken = network::routes()?;
    taken.extend(
        surroundings::resolvers(machine)
            .into_iter()
            .map(|address| Route { range: address.into(), device: "a name server".to_owned() }),
    );
    Ok(taken)
}

fn free_range(taken: &[Route]) -> Result<Ipv4Net> {
    let ranges = RANGES.iter().map(|range| range.parse());
    for range in ranges {
        let range = range.context("our own list of ranges")?;
        if !taken.iter().any(|route| overlap(range, route.range)) {
            return Ok(range);
        }
    }
    bail!(
        "this host has routes to all of {}; write a free range into {ENGINE_SETTINGS} under \
         default-address-pools",
        RANGES.join(", ")
    )
}

/// Whether a route is somebody else's use of the range: the slots' own networks
/// lie in it too.
fn collides(range: Ipv4Net, route: &Route) -> bool {
    let is_slot = range.contains(&route.range) && is_engine_bridge(&route.device);
    overlap(range, route.range) && !is_slot
}

/// As Docker names the bridge of a network, or as the agent does.
fn is_engine_bridge(device: &str) -> bool {
    device.starts_with("scalr-") || is_of_a_docker_network(device)
}

/// Whether containers of the host's own Docker are behind it.
fn is_dockers_bridge(device: &str) -> bool {
    device == "docker0" || is_of_a_docker_network(device)
}

fn is_of_a_docker_network(device: &str) -> bool {
    device
        .strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.chars().all(|c| c.is_ascii_hexdigit()))
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn route(range: &str, device: &str) -> Route {
        Route { range: range.parse().unwrap(), device: device.to_owned() }
    }

    #[test]
    fn the_first_free_range_is_taken() {
        let free = |taken: &[Route]| free_range(taken).map(|range| range.to_string());
        assert_eq!(free(&[]).unwrap(), "10.213.64.0/20");
        assert_eq!(free(&[route("10.213.70.0/24", "eth0")]).unwrap(), "10.187.64.0/20");
        assert_eq!(free(&[route("10.0.0.0/8", "eth0")]).unwrap(), "172.29.64.0/20");
        let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"].map(|r| route(r, "vpn0"));
        assert!(free(&all).unwrap_err().to_string().contains("default-address-pools"));
    }

    #[test]
    fn the_engines_own_bridge_is_out_of_the_slots_way() {
        let range: Ipv4Net = RANGES[0].parse().unwrap();
        assert_eq!(bridge_address(&[range]).unwrap().to_string(), "10.213.79.241/28");
        assert!(bridge_address(&["10.0.0.0/30".parse().unwrap()]).is_err());
        // Docker takes a name of at most 15 characters, and `none` for no bridge.
        assert!(BRIDGE.len() <= 15 && is_engine_bridge(BRIDGE));
    }

    #[test]
    fn the_slots_own_networks_do_not_collide() {
        let range: Ipv4Net = "10.213.64.0/20".parse().unwrap();
        assert!(!collides(range, &route("10.213.64.16/28", "br-0123456789ab")));
        assert!(collides(range, &route("10.213.64.16/28", "eth0")));
        assert!(collides(range, &route("10.0.0.0/8", "br-0123456789ab")));
        assert!(!collides(range, &route("10.1.0.0/16", "eth0")));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for first in [true, false] {
            let mut changes = Changes::begin(&machine, &RECORDS, false).unwrap();
            assert_eq!(write_docker_json(&mut changes).unwrap(), first);
            changes.commit().unwrap();
        }
        assert_eq!(range(&machine).unwrap()[0].to_string(), RANGES[0]);
    }

    #[test]
    fn settings_without_a_range_are_refused() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = machine.path(ENGINE_SETTINGS);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (text, error) in [
            ("{}", "has no default-address-pools"),
            ("{", "is no JSON"),
            (r#"{"default-address-pools":[{"base":"x"}]}"#, "`x` is no IPv4 range"),
        ] {
            fs::write(&file, text).unwrap();
            let said = format!("{:#}", range(&machine).unwrap_err());
            assert!(said.contains(error), "{said}");
        }
    }
}

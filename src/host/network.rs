//! Routes and address ranges.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;

use super::command::CommandExt as _;

/// Where the kernel says whether it passes packets on between networks.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A range that this host sends somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub range: Ipv4Net,
    /// Through which interface; empty for a range that is unreachable.
    pub device: String,
}

/// The host's IPv4 routes in all tables, without the default one and what is
/// inside the host itself.
///
/// # Errors
/// `ip` is missing or fails.
pub fn routes() -> Result<Vec<Route>> {
    let text = Command::new("ip").args(["-4", "route", "show", "table", "all"]).read()?;
    Ok(parse_routes(&text))
}

/// The bridges that have an address in `range`.
///
/// # Errors
/// `ip` is missing or fails.
pub fn bridges(range: Ipv4Net) -> Result<Vec<String>> {
    let bridges = ["-4", "-o", "address", "show", "type", "bridge"];
    let text = Command::new("ip").args(bridges).read()?;
    Ok(parse_addresses(&text)
        .into_iter()
        .filter(|(_, address)| range.contains(&address.addr()))
        .map(|(device, _)| device)
        .collect())
}

/// The host's own IPv4 addresses.
///
/// # Errors
/// `ip` is missing or fails.
pub fn own_addresses() -> Result<Vec<Ipv4Addr>> {
    let text = Command::new("ip").args(["-4", "-o", "address", "show"]).read()?;
    Ok(parse_addresses(&text).into_iter().map(|(_, address)| address.addr()).collect())
}

/// The names of all bridges, in the order of the alphabet.
///
/// # Errors
/// `ip` is missing or fails.
pub fn bridge_names() -> Result<Vec<String>> {
    let text = Command::new("ip").args(["-o", "link", "show", "type", "bridge"]).read()?;
    let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
    let mut names: Vec<String> = text.lines().filter_map(name).collect();
    names.sort();
    Ok(names)
}

/// The bridges that have an address in `range` and something attached: its
/// containers run.
///
/// # Errors
/// `ip` is missing or fails.
pub fn busy_bridges(range: Ipv4Net) -> Result<Vec<String>> {
    let mut busy = Vec::new();
    for bridge in bridges(range)? {
        // Not from /sys: in a container it may show another network namespace.
        let ports = Command::new("ip").args(["-o", "link", "show", "master", &bridge]).read()?;
        if !ports.trim().is_empty() {
            busy.push(bridge);
        }
    }
    Ok(busy)
}

/// Whether there is an interface of that name.
///
/// # Errors
/// `ip` is missing.
pub fn exists(name: &str) -> Result<bool> {
    Ok(Command::new("ip").args(["-o", "link", "show", "dev", name]).probe()?.status.success())
}

/// Sees to it that there is a bridge with just this address.
///
/// # Errors
/// `ip` is missing or fails.
pub fn put_up_bridge(name: &str, address: Ipv4Net) -> Result<()> {
    if !exists(name)? {
        Command::new("ip").args(["link", "add", name, "type", "bridge"]).run()?;
    }
    Command::new("ip").args(["-4", "address", "flush", "dev", name]).run()?;
    Command::new("ip").args(["address", "add", &address.to_string(), "dev", name]).run()?;
    Ok(Command::new("ip").args(["link", "set", name, "up"]).run()?)
}

/// Removes a bridge.
///
/// # Errors
/// `ip` is missing or fails.
pub fn remove_bridge(name: &str) -> Result<()> {
    Ok(Command::new("ip").args(["link", "delete", name, "type", "bridge"]).run()?)
}

/// Makes the kernel pass packets on between networks; leaves it alone where it
/// does already.
///
/// # Errors
/// The setting can't be written.
pub fn forward_packets() -> Result<()> {
    let now = fs::read_to_string(IP_FORWARD).context("cannot read net.ipv4.ip_forward")?;
    if now.trim() == "0" {
        fs::write(IP_FORWARD, "1\n").context("cannot switch on net.ipv4.ip_forward")?;
    }
    Ok(())
}

/// Lines like `10.1.2.0/24 dev eth0 proto kernel scope link src 10.1.2.3`,
/// `default via …`, `unreachable 10.9.0.0/16`, `local 127.0.0.1 dev lo table local …`.
fn parse_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, range) = match words.first()? {
            word if word.starts_with(|c: char| c.is_ascii_digit()) => ("unicast", *word),
            word => (*word, *words.get(1)?),
        };
        if ["local", "broadcast", "multicast", "anycast", "throw"].contains(&kind) {
            return None;
        }
        let device = words.iter().position(|word| *word == "dev");
        let device = device.and_then(|at| words.get(at + 1)).unwrap_or(&"").to_string();
        Some(Route { range: parse_range(range)?, device }).filter(|r| r.range.prefix_len() > 0)
    };
    text.lines().filter_map(route).collect()
}

/// Lines like `2: eth0    inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0\ …`.
fn parse_addresses(text: &str) -> Vec<(String, Ipv4Net)> {
    let address = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let device = words.next()?.split('@').next()?.to_owned();
        Some((device, words.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(address).collect()
}

/// `ip` leaves `/32` out.
fn parse_range(text: &str) -> Option<Ipv4Net> {
    text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_as_iproute_prints_them() {
        // iproute2 6.1, with a host route and a tunnel's own table added.
        let text = "\
default via 10.1.2.1 dev br0 \n\
default dev wg0 table 51820 scope link \n\
10.1.2.0/24 dev br0 proto kernel scope link src 10.1.2.3 \n\
10.44.0.7 via 10.1.2.9 dev br0 \n\
unreachable 10.9.0.0/16 \n\
100.64.0.0/10 dev tailscale0 table 52 \n\
local 10.1.2.3 dev br0 table local proto kernel scope host src 10.1.2.3 \n\
broadcast 10.1.2.255 dev br0 table local proto kernel scope link src 10.1.2.3 \n\
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1 \n";
        let routes: Vec<String> =
            parse_routes(text).iter().map(|r| format!("{} {}", r.range, r.device)).collect();
        assert_eq!(
            routes,
            ["10.1.2.0/24 br0", "10.44.0.7/32 br0", "10.9.0.0/16 ", "100.64.0.0/10 tailscale0"]
        );
    }

    #[test]
    fn addresses_as_iproute_prints_them() {
        let text = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n\
2: host0@if5    inet 10.1.2.3/24 scope global host0\\       valid_lft forever preferred_lft forever\n";
        let addresses = parse_addresses(text);
        assert_eq!(addresses[1].0, "host0");
        assert_eq!(addresses[1].1.to_string(), "10.1.2.3/24");
    }
}

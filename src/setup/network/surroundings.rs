//! What the firewall rules depend on: the settings, the host's name servers, its
//! addresses and its bridges.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use serde_json::Value;
use url::Url;

use super::fence::Fence;
use super::{configured, is_dockers_bridge};
use cli::untrusted_file;
use config::Settings;
use config::layout::{AGENT_DROP_INS, ENGINE_SETTINGS};
use config::proxy::{self, ProxySelection};
use host::machine::Machine;
use host::{network, unit};

/// Where a host names its resolvers. Behind systemd-resolved's stub, an engine asks
/// those of the second file.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The settings of the host's own Docker.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Where the variables come from that override the settings' file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The agent's unit.
    Unit,
    /// Our own environment.
    Environment,
}

/// The fence that this host has to have, for the engine of its settings.
///
/// # Errors
/// The settings can't be used, the private engine has no range, or `ip` fails.
pub(super) fn fence(machine: &Machine, source: Source) -> Result<Fence> {
    let (settings, proxy) = settings(machine, source)?;
    if settings.engine.as_deref().unwrap_or(config::ENGINE) != config::ENGINE {
        return fence_around(machine, Vec::new(), &settings, &proxy);
    }
    let ranges = configured(machine)?;
    let ranges = ranges.with_context(|| format!("{ENGINE_SETTINGS} is missing"))?;
    fence_around(machine, ranges, &settings, &proxy)
}

/// The fence around the private engine's runs.
///
/// # Errors
/// `ip` fails.
pub(super) fn private(machine: &Machine, ranges: Vec<Ipv4Net>) -> Result<Fence> {
    // An engine starts whatever the agent's settings are; the agent reports them.
    let (settings, proxy) = settings(machine, Source::Unit).unwrap_or_default();
    fence_around(machine, ranges, &settings, &proxy)
}

fn fence_around(
    machine: &Machine,
    ranges: Vec<Ipv4Net>,
    settings: &Settings,
    proxy: &[(String, String)],
) -> Result<Fence> {
    let bridges = network::bridge_names()?.into_iter().filter(|name| is_dockers_bridge(name));
    let engine_settings = if ranges.is_empty() { DAEMON_JSON } else { ENGINE_SETTINGS };
    let mut resolvers = resolvers(machine);
    resolvers.extend(engine_resolvers(machine, engine_settings));
    resolvers.sort();
    resolvers.dedup();
    Ok(Fence {
        ranges,
        resolvers,
        own: network::own_addresses()?,
        services: services(settings.url.as_ref(), proxy)?,
        bridges: bridges.collect(),
    })
}

/// The settings, and the variables of the proxy.
fn settings(machine: &Machine, source: Source) -> Result<(Settings, Vec<(String, String)>)> {
    let environment: BTreeMap<String, String> = match source {
        Source::Environment => std::env::vars().collect(),
        Source::Unit => unit::environment(machine, AGENT_DROP_INS)?
            .into_iter()
            .map(|(name, given)| (name, given.value))
            .collect(),
    };
    let proxy = proxy::variables(|name| environment.get(name).map(String::as_str));
    Ok((Settings::load(&machine.path(config::FILE), environment)?, proxy))
}

/// The name servers in the host's own settings, without its loopback's.
pub(super) fn resolvers(machine: &Machine) -> Vec<Ipv4Addr> {
    let texts =
        RESOLV_CONF.map(|file| untrusted_file::read_text(machine.path(file)).unwrap_or_default());
    texts.iter().flat_map(|text| parse_resolvers(text)).collect()
}

fn parse_resolvers(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().filter_map(|line| {
        let address = line.strip_prefix("nameserver")?.split_whitespace().next()?.parse();
        address.ok().filter(|address: &Ipv4Addr| !address.is_loopback())
    })
}

/// Those that an engine's settings name, if it has any.
fn engine_resolvers(machine: &Machine, settings: &str) -> Vec<Ipv4Addr> {
    let text = untrusted_file::read_text(machine.path(settings)).unwrap_or_default();
    let settings: Value = serde_json::from_str(&text).unwrap_or_default();
    let addresses = settings["dns"].as_array().into_iter().flatten();
    addresses.filter_map(|address| address.as_str()?.parse().ok()).collect()
}

/// Where the server and the proxies are. A name that can't be resolved is nowhere:
/// a run can't reach it either.
fn services(server: Option<&Url>, proxy: &[(String, String)]) -> Result<Vec<SocketAddrV4>> {
    let selection = ProxySelection::of(proxy)?;
    let outside = ["http://outside.invalid", "https://outside.invalid"];
    let proxies = outside.iter().filter_map(|url| selection.for_url(&url.parse().ok()?).cloned());
    let mut services: Vec<SocketAddrV4> = server
        .cloned()
        .into_iter()
        .chain(proxies)
        .filter_map(|url| {
            let port = url.port_or_known_default()?;
            let host = url.host_str()?.to_owned();
            (host, port).to_socket_addrs().ok()
        })
        .flatten()
        .filter_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        })
        .collect();
    services.sort();
    services.dedup();
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn resolvers_are_those_of_the_host_and_of_its_stub() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (file, text) in [
            ("/etc/resolv.conf", "search example.com\nnameserver 127.0.0.53\noptions edns0\n"),
            (
                "/run/systemd/resolve/resolv.conf",
                "nameserver\t169.254.169.253\nnameserver fd00:ec2::253\nnameserver 10.1.2.3 # a\n",
            ),
            ("/etc/docker/daemon.json", r#"{"dns": ["172.17.0.1", "::1"]}"#),
        ] {
            fs::create_dir_all(machine.path(file).parent().unwrap()).unwrap();
            fs::write(machine.path(file), text).unwrap();
        }
        let text = |found: Vec<Ipv4Addr>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(resolvers(&machine)), ["169.254.169.253", "10.1.2.3"]);
        assert_eq!(text(engine_resolvers(&machine, DAEMON_JSON)), ["172.17.0.1"]);
        assert_eq!(text(engine_resolvers(&machine, ENGINE_SETTINGS)), [""; 0]);
    }

    #[test]
    fn the_server_and_the_proxies_are_needed_by_runs() {
        let server = "https://10.1.2.3".parse().unwrap();
        let proxy = [
            ("HTTPS_PROXY".to_owned(), "http://me:word@10.1.2.4:3128".to_owned()),
            ("HTTP_PROXY".to_owned(), "10.1.2.5".to_owned()),
        ];
        let found = services(Some(&server), &proxy).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.1.2.3:443", "10.1.2.4:3128", "10.1.2.5:80"]);
        assert!(services(None, &[]).unwrap().is_empty());
    }
}

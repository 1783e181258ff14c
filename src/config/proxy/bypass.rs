//! `NO_PROXY`: what is reached directly.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

/// The entries of a `NO_PROXY` list.
///
/// An entry is `*`, an address, a network (`10.0.0.0/8`) or a domain; a port after it
/// narrows it to that port. A domain stands for itself and all names below it, with or
/// without a dot or `*.` before it, as curl and Go's `net/http` have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Bypass(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    All,
    Network(IpNet),
    /// In lower case, with no dot before it.
    Domain(String),
}

impl Bypass {
    pub(super) fn read(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter_map(Entry::read).collect())
    }

    pub(super) fn contains(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let host = without_brackets(host).to_ascii_lowercase();
        let port = url.port_or_known_default();
        self.0
            .iter()
            .any(|entry| entry.hosts.contain(&host) && (entry.port.is_none() || entry.port == port))
    }
}

impl Entry {
    fn read(text: &str) -> Option<Self> {
        let (host, port) = split_port(text);
        let host = without_brackets(host);
        let network = || host.parse::<IpNet>().ok();
        let address = || host.parse::<IpAddr>().ok().map(IpNet::from);
        let hosts = match network().or_else(address) {
            Some(network) => Hosts::Network(network),
            None if host == "*" => Hosts::All,
            None => {
                let domain = host.strip_prefix('*').unwrap_or(host).trim_start_matches('.');
                Hosts::Domain(domain.to_ascii_lowercase())
            }
        };
        let is_empty = matches!(&hosts, Hosts::Domain(domain) if domain.is_empty());
        (!is_empty).then_some(Self { hosts, port })
    }
}

impl Hosts {
    fn contain(&self, host: &str) -> bool {
        match (self, host.parse::<IpAddr>()) {
            (Hosts::All, _) => true,
            (Hosts::Network(network), Ok(address)) => network.contains(&address),
            (Hosts::Domain(domain), Err(_)) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            _ => false,
        }
    }
}

/// A colon in an IPv6 address without brackets starts no port.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match port {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_bypasses_the_proxy_for_the_hosts_it_names() {
        for (list, url, direct) in [
            ("*", "https://pools.example.com", true),
            ("example.com", "https://pools.example.com", true),
            (".example.com", "https://pools.example.com", true),
            (".example.com", "https://example.com", true),
            ("*.example.com", "https://pools.example.com", true),
            ("x,POOLS.example.com", "https://pools.Example.com", true),
            ("y .example.com", "https://pools.example.com", true),
            ("ample.com", "https://pools.example.com", false),
            ("pools.example.org", "https://pools.example.com", false),
            ("", "https://pools.example.com", false),
            (", .,", "https://pools.example.com", false),
            ("example.com:443", "https://pools.example.com", true),
            ("example.com:443", "https://pools.example.com:8443", false),
            ("example.com:8443", "https://pools.example.com:8443", true),
            ("*:80", "http://pools.example.com", true),
            ("*:80", "https://pools.example.com", false),
            ("10.0.0.5", "https://10.0.0.5:8443", true),
            ("10.0.0.5:8443", "https://10.0.0.5", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.0.0.0/8", "https://ten.example.com", false),
            ("0.0.5", "https://10.0.0.5", false),
            ("::1", "https://[::1]:8443", true),
            ("[::1]", "https://[::1]", true),
            ("[::1]:443", "https://[::1]:8443", false),
            ("fd00::/8", "https://[fd00::5]", true),
            ("fd00::/8", "https://[fe80::5]", false),
        ] {
            let bypass = Bypass::read(list);
            assert_eq!(bypass.contains(&url.parse().unwrap()), direct, "`{list}` and {url}");
        }
    }
}

//! firewalld: its settings, as its files have them.
//!
//! Its own client takes half a second to start, and needs it running.

use std::io;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::machine::Machine;
use cli::untrusted_file;

/// The zone whose traffic is let through as it is.
const TRUSTED: &str = "/etc/firewalld/zones/trusted.xml";

const SETTINGS: &str = "/etc/firewalld/firewalld.conf";

/// The sources of the zone `trusted`: what comes from there passes.
///
/// # Errors
/// The zone's file can't be read.
pub fn trusted_sources(machine: &Machine) -> Result<Vec<Ipv4Net>> {
    #[derive(Deserialize)]
    struct Zone {
        #[serde(default)]
        source: Vec<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        #[serde(rename = "@address")]
        address: Option<String>,
    }
    let text = match untrusted_file::read_text(machine.path(TRUSTED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.with_context(|| format!("cannot read {TRUSTED}"))?,
    };
    let zone: Zone =
        quick_xml::de::from_str(&text).with_context(|| format!("cannot understand {TRUSTED}"))?;
    Ok(zone.source.into_iter().filter_map(|source| source.address?.parse().ok()).collect())
}

/// Whether it filters with nftables, beside iptables and not in it. The default
/// since 0.6, whose settings name it; before, there was nothing to name.
pub fn uses_nftables(machine: &Machine) -> bool {
    let text = untrusted_file::read_text(machine.path(SETTINGS)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .any(|(name, value)| name.trim() == "FirewallBackend" && value.trim() == "nftables")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(file: &str, text: &str) -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = machine.path(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        (tree, machine)
    }

    #[test]
    fn the_trusted_zones_sources() {
        let (_tree, machine) = machine(
            TRUSTED,
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone target=\"ACCEPT\">\n  \
             <short>Trusted</short>\n  <description>All is accepted.</description>\n  \
             <source address=\"10.213.64.0/20\"/>\n  <source mac=\"00:11:22:33:44:55\"/>\n  \
             <source address=\"172.16.0.0/12\"/>\n  <interface name=\"lo\"/>\n</zone>\n",
        );
        let sources = trusted_sources(&machine).unwrap();
        assert_eq!(sources, ["10.213.64.0/20".parse().unwrap(), "172.16.0.0/12".parse().unwrap()]);
        assert!(!uses_nftables(&machine));
    }

    #[test]
    fn without_files_it_has_its_defaults() {
        let tree = tempfile::tempdir().unwrap();
        assert!(trusted_sources(&Machine::at(tree.path())).unwrap().is_empty());
    }

    #[test]
    fn the_backend() {
        let text = "# FirewallBackend\n# Selects the firewall backend.\nFirewallBackend=nftables\n";
        let (_tree, machine) = machine(SETTINGS, text);
        assert!(uses_nftables(&machine));
    }
}

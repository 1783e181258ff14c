//! The firewall rules of runs: what a run can't reach, whichever engine starts it,
//! and what the private engine's networks need.
//!
//! The agent names the bridges of its slots `scalr-slot-N`, on every engine, so
//! the fence goes by the bridges' names. What may pass is left to the chains after
//! ours, unless the engine is the private one, which has no rules of its own.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use ipnet::Ipv4Net;

use host::iptables::{Chain, Family, State};

const FORWARD: Chain = Chain {
    family: Family::V4,
    table: "filter",
    from: "FORWARD",
    name: "SCALR-AGENT",
    spare: "SCALR-AGENT-NEW",
};
const INPUT: Chain =
    Chain { from: "INPUT", name: "SCALR-AGENT-INPUT", spare: "SCALR-AGENT-INPUT-NEW", ..FORWARD };
const NAT: Chain = Chain { table: "nat", from: "POSTROUTING", ..FORWARD };
const FORWARD_V6: Chain = Chain { family: Family::V6, ..FORWARD };
const INPUT_V6: Chain = Chain { family: Family::V6, ..INPUT };

/// The bridges of the slots, as iptables matches them.
const RUNS: &str = "-i scalr-+";

/// Where clouds give out the host's own credentials: link-local addresses of all
/// clouds, Alibaba's, Azure's and Oracle's own. The IPv6 ones go with all of IPv6.
const CLOSED: [&str; 4] =
    ["100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "169.254.0.0/16"];

/// What the rules are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    /// The private engine's ranges; empty: runs use the host's own engine.
    pub ranges: Vec<Ipv4Net>,
    /// The host's name servers.
    pub resolvers: Vec<Ipv4Addr>,
    /// The host's own addresses.
    pub own: Vec<Ipv4Addr>,
    /// Services on this host that runs need: its proxy, or the server.
    pub services: Vec<SocketAddrV4>,
    /// The bridges of the host's own containers.
    pub bridges: Vec<String>,
}

impl Fence {
    /// Puts up the rules; returns the chains that were not as they have to be.
    ///
    /// # Errors
    /// iptables is missing or refuses a rule.
    pub(crate) fn put_up(&self) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        for (chain, rules) in self.chains() {
            if chain.put_up(&rules)? {
                changed.push(chain.to_string());
            }
        }
        Ok(changed)
    }

    /// The worst state of a chain, compared to how [`Fence::put_up`] leaves it. Only root may
    /// ask.
    pub(crate) fn state(&self) -> State {
        let mut worst = State::Up;
        for (chain, rules) in self.chains() {
            match chain.state(&rules) {
                State::Missing => return State::Missing,
                State::Behind(rule) => worst = State::Behind(rule),
                State::Up => {}
            }
        }
        worst
    }

    fn chains(&self) -> Vec<(Chain, Vec<String>)> {
        let mut chains = vec![(INPUT, self.input()), (FORWARD, self.forward())];
        if !self.ranges.is_empty() {
            chains.push((NAT, self.nat()));
        }
        if Family::V6.is_usable() {
            // The slots' networks have no IPv6.
            let all = vec![format!("{RUNS} -j DROP")];
            chains.extend([(INPUT_V6, all.clone()), (FORWARD_V6, all)]);
        }
        chains
    }

    /// For what is addressed to the host itself.
    fn input(&self) -> Vec<String> {
        let mut rules =
            vec![format!("{RUNS} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")];
        for (address, protocol, port) in self.open_services() {
            rules.push(format!(
                "-d {address}/32 {RUNS} -p {protocol} -m {protocol} --dport {port} -j RETURN"
            ));
        }
        rules.push(format!("{RUNS} -j DROP"));
        rules
    }

    /// For what is addressed to others.
    fn forward(&self) -> Vec<String> {
        let closed = CLOSED.map(|range| range.parse::<Ipv4Net>().expect("a constant range"));
        let pass = if self.ranges.is_empty() { "RETURN" } else { "ACCEPT" };
        let mut rules = Vec::new();
        for resolver in &self.resolvers {
            if closed.iter().any(|range| range.contains(resolver)) {
                for protocol in ["udp", "tcp"] {
                    rules.push(format!(
                        "-d {resolver}/32 {RUNS} -p {protocol} -m {protocol} --dport 53 -j {pass}"
                    ));
                }
            }
        }
        rules.extend(closed.iter().map(|range| format!("-d {range} {RUNS} -j DROP")));
        rules.push(format!("{RUNS} -o scalr-+ -j DROP"));
        // A service of the host may be in a container, behind a published port.
        for (address, protocol, port) in self.open_services() {
            rules.push(format!(
                "{RUNS} -p {protocol} -m conntrack --ctstate DNAT --ctorigdst {address} \
                 --ctorigdstport {port} -j {pass}"
            ));
        }
        rules.push(format!("{RUNS} -m conntrack --ctstate DNAT -j DROP"));
        rules.extend(self.bridges.iter().map(|bridge| format!("{RUNS} -o {bridge} -j DROP")));
        for from in &self.ranges {
            rules.extend(self.ranges.iter().map(|to| format!("-s {from} -d {to} -j DROP")));
        }
        for range in &self.ranges {
            rules.push(format!("-s {range} -j ACCEPT"));
            rules.push(format!("-d {range} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
            // A host that passes packets on would let anybody in from outside.
            rules.push(format!("-d {range} -j DROP"));
        }
        rules
    }

    fn nat(&self) -> Vec<String> {
        let masquerade = |range| format!("-s {range} ! -d {range} -j MASQUERADE");
        self.ranges.iter().map(masquerade).collect()
    }

    /// Addresses of the host itself, with the protocol and the port that are open.
    fn open_services(&self) -> Vec<(Ipv4Addr, &'static str, u16)> {
        let resolvers = self.resolvers.iter().filter(|address| self.own.contains(address));
        let names = resolvers.flat_map(|address| ["udp", "tcp"].map(|of| (*address, of, 53)));
        let services = self.services.iter().filter(|service| self.own.contains(service.ip()));
        names.chain(services.map(|service| (*service.ip(), "tcp", service.port()))).collect()
    }
}

/// Whether any of the rules' chains is there.
pub(crate) fn is_begun() -> bool {
    let v6 = || Family::V6.is_usable() && [FORWARD_V6, INPUT_V6].into_iter().any(Chain::exists);
    [FORWARD, INPUT, NAT].into_iter().any(Chain::exists) || v6()
}

/// Takes down the rules, whoever still uses them.
///
/// # Errors
/// iptables fails.
pub(crate) fn take_down() -> Result<()> {
    for chain in [FORWARD, INPUT, NAT] {
        chain.take_down()?;
    }
    if Family::V6.is_usable() {
        FORWARD_V6.take_down()?;
        INPUT_V6.take_down()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Fence {
        Fence { ranges: vec!["10.213.64.0/20".parse().unwrap()], ..Fence::default() }
    }

    fn position(rules: &[String], text: &str) -> usize {
        let found = rules.iter().position(|rule| rule == text);
        found.unwrap_or_else(|| panic!("no {text:?} in {rules:#?}"))
    }

    #[test]
    fn every_drop_comes_before_the_private_engines_accept() {
        let fence = Fence { bridges: vec!["docker0".to_owned()], ..private() };
        let rules = fence.forward();
        let accept = position(&rules, "-s 10.213.64.0/20 -j ACCEPT");
        for drop in [
            "-d 169.254.0.0/16 -i scalr-+ -j DROP",
            "-d 168.63.129.16/32 -i scalr-+ -j DROP",
            "-d 100.100.100.200/32 -i scalr-+ -j DROP",
            "-d 192.0.0.192/32 -i scalr-+ -j DROP",
            "-i scalr-+ -o scalr-+ -j DROP",
            "-i scalr-+ -m conntrack --ctstate DNAT -j DROP",
            "-i scalr-+ -o docker0 -j DROP",
            "-s 10.213.64.0/20 -d 10.213.64.0/20 -j DROP",
        ] {
            assert!(position(&rules, drop) < accept, "{drop}");
        }
    }

    #[test]
    fn a_resolver_at_the_metadata_address_answers_names_and_nothing_else() {
        let resolvers = ["169.254.169.254", "168.63.129.16", "9.9.9.9"];
        let resolvers = resolvers.map(|address| address.parse().unwrap()).to_vec();
        for (ranges, pass) in [(private().ranges, "ACCEPT"), (Vec::new(), "RETURN")] {
            let rules =
                Fence { ranges, resolvers: resolvers.clone(), ..Fence::default() }.forward();
            for protocol in ["udp", "tcp"] {
                let open = format!(
                    "-d 169.254.169.254/32 -i scalr-+ -p {protocol} -m {protocol} --dport 53 -j {pass}"
                );
                let drop = position(&rules, "-d 169.254.0.0/16 -i scalr-+ -j DROP");
                assert!(position(&rules, &open) < drop);
            }
            // Not closed, so it needs no rule, and a change of it none either.
            assert!(!rules.iter().any(|rule| rule.contains("9.9.9.9")), "{rules:#?}");
        }
    }

    #[test]
    fn on_the_hosts_own_engine_nothing_is_accepted_or_masqueraded() {
        let fence = Fence {
            resolvers: vec!["169.254.169.254".parse().unwrap()],
            services: vec!["10.1.2.3:3128".parse().unwrap()],
            own: vec!["10.1.2.3".parse().unwrap()],
            ..Fence::default()
        };
        let rules = [fence.forward(), fence.input()].concat();
        for rule in &rules {
            assert!(rule.ends_with("DROP") || rule.ends_with("RETURN"), "{rule}");
            assert!(rule.contains("-i scalr-+"), "{rule}");
        }
        assert!(fence.nat().is_empty());
    }

    #[test]
    fn of_the_host_itself_runs_reach_its_resolver_and_its_proxy() {
        let fence = Fence {
            resolvers: vec!["10.1.2.3".parse().unwrap(), "10.1.2.9".parse().unwrap()],
            services: ["10.1.2.3:3128", "10.1.2.8:3128"].map(|one| one.parse().unwrap()).to_vec(),
            own: vec!["127.0.0.1".parse().unwrap(), "10.1.2.3".parse().unwrap()],
            ..private()
        };
        assert_eq!(
            fence.input(),
            [
                "-i scalr-+ -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
                "-d 10.1.2.3/32 -i scalr-+ -p udp -m udp --dport 53 -j RETURN",
                "-d 10.1.2.3/32 -i scalr-+ -p tcp -m tcp --dport 53 -j RETURN",
                "-d 10.1.2.3/32 -i scalr-+ -p tcp -m tcp --dport 3128 -j RETURN",
                "-i scalr-+ -j DROP",
            ]
        );
        // The same where a container of the host has published that port.
        let published = "-i scalr-+ -p tcp -m conntrack --ctstate DNAT --ctorigdst 10.1.2.3 \
                         --ctorigdstport 3128 -j ACCEPT";
        let rules = fence.forward();
        let drop = position(&rules, "-i scalr-+ -m conntrack --ctstate DNAT -j DROP");
        assert!(position(&rules, published) < drop);
    }
}

//! The runs' networks, and the firewall before them.

use ipnet::Ipv4Net;

use super::{Outcome, Subject};
use crate::host::{firewalld as daemon, iptables as tables};

pub fn iptables(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match tables::find() {
        Some(file) => Outcome::Passed(file.display().to_string()),
        None if subject.before_install => {
            Outcome::Skipped("it comes with the package scalr-agent".to_owned())
        }
        None => Outcome::problem(
            "iptables is not installed; the package scalr-agent brings it, or install it",
        ),
    }
}

pub fn addresses(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match subject.ranges() {
        Ok(ranges) => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            Outcome::Passed(format!("{} is free", ranges.join(", ")))
        }
        Err(error) => Outcome::problem(error),
    }
}

pub fn firewalld(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    if !subject.is_active("firewalld.service") {
        return Outcome::Skipped("firewalld does not run".to_owned());
    }
    if !subject.is_bundled() {
        return Outcome::Passed("the host's own Docker looks after firewalld by itself".to_owned());
    }
    let sources = match daemon::trusted_sources(&subject.machine) {
        Ok(sources) => sources,
        Err(error) => return Outcome::could_not_look(format!("{error:#}")),
    };
    match subject.ranges() {
        Ok(ranges) => judge_firewalld(ranges, &sources, daemon::uses_nftables(&subject.machine)),
        Err(error) => Outcome::could_not_look(error),
    }
}

/// With nftables, what our chain in iptables lets through still has to pass
/// firewalld's own chains. With iptables our chain is asked first, and all that
/// is lost is lost by `firewall-cmd --reload`, which empties the tables.
fn judge_firewalld(ranges: &[Ipv4Net], trusted: &[Ipv4Net], nftables: bool) -> Outcome {
    let is_trusted = |range: &&Ipv4Net| trusted.iter().any(|source| source.contains(*range));
    let blocked: Vec<&Ipv4Net> = ranges.iter().filter(|range| !is_trusted(range)).collect();
    let named =
        |ranges: &[&Ipv4Net]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if blocked.is_empty() {
        let ranges = named(&ranges.iter().collect::<Vec<_>>());
        return Outcome::Passed(format!("it runs, and its zone trusted has {ranges}"));
    }
    if !nftables {
        return Outcome::warning(
            "it runs on iptables, where the runs' traffic passes; but `firewall-cmd --reload` \
             takes their rules away: follow it with `systemctl restart scalr-docker`, which \
             interrupts no run",
        );
    }
    let mut fix: Vec<String> = blocked
        .iter()
        .map(|range| format!("firewall-cmd --permanent --zone=trusted --add-source={range}"))
        .collect();
    fix.push("firewall-cmd --reload".to_owned());
    Outcome::Problem(
        format!(
            "it runs, and rejects what runs send, from {}, on its way out; its zone trusted lets \
             that pass",
            named(&blocked)
        ),
        fix,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_range_that_firewalld_does_not_trust() {
        let ranges = nets(&["10.213.64.0/20"]);
        let Outcome::Problem(_, fix) = judge_firewalld(&ranges, &[], true) else { panic!() };
        assert_eq!(
            fix,
            [
                "firewall-cmd --permanent --zone=trusted --add-source=10.213.64.0/20",
                "firewall-cmd --reload",
            ]
        );
        let trusted = nets(&["10.0.0.0/8"]);
        assert!(matches!(judge_firewalld(&ranges, &trusted, true), Outcome::Passed(_)));
    }

    #[test]
    fn on_iptables_only_a_reload_hurts() {
        let found = judge_firewalld(&nets(&["10.213.64.0/20"]), &[], false);
        assert!(matches!(&found, Outcome::Warning(text, _) if text.contains("--reload")));
    }
}

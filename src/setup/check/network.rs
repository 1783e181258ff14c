//! The runs' networks, and the firewall before them.

use ipnet::Ipv4Net;

use super::{Outcome, Subject};
use crate::network;
use config::{Firewall, layout};
use host::{firewalld as daemon, iptables as tables, users};

pub(super) fn iptables(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match tables::find() {
        Some(file) => Outcome::Passed(file.display().to_string()),
        None if subject.before_install => {
            Outcome::Skipped("it comes with the package scalr-agent".to_owned())
        }
        None => Outcome::problem(
            "iptables is not installed; install it, or the package scalr-agent, which requires it",
        ),
    }
}

pub(super) fn addresses(subject: &Subject) -> Outcome {
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

pub(super) fn firewalld(subject: &Subject) -> Outcome {
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
        Err(error) => return Outcome::unknown(format!("{error:#}")),
    };
    match subject.ranges() {
        Ok(ranges) => judge_firewalld(ranges, &sources, daemon::uses_nftables(&subject.machine)),
        Err(error) => Outcome::unknown(error),
    }
}

/// The agent takes no task without them.
pub(super) fn firewall_rules(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    if subject.settings.firewall == Some(Firewall::None) {
        return Outcome::warning(
            "runs have no firewall rules (firewall = none): they reach what this host reaches",
        );
    }
    let unit = if subject.is_bundled() { layout::ENGINE_UNIT } else { layout::AGENT_UNIT };
    if !subject.is_active(unit) {
        return Outcome::Skipped(format!("{unit} does not run"));
    }
    if subject.is_active(layout::AGENT_UNIT) && !subject.is_active(layout::NETWORK_UNIT) {
        return Outcome::Problem(
            format!(
                "{} does not run, so the agent cannot have the rules verified and takes no tasks",
                layout::NETWORK_UNIT
            ),
            vec![format!("systemctl start {}", layout::NETWORK_UNIT)],
        );
    }
    if !users::are_root() {
        return Outcome::Skipped("only root can see them".to_owned());
    }
    let fix = vec!["scalr-agent-setup network verify".to_owned()];
    match network::rules_state(&subject.machine) {
        Err(error) => Outcome::unknown(format!("{error:#}")),
        Ok(tables::State::Up) => {
            Outcome::Passed("the rules of the runs' networks are up".to_owned())
        }
        Ok(tables::State::Behind(rule)) => Outcome::Warning(
            format!(
                "something has put a rule before those of the runs' networks; the agent moves its \
                 own to the front before its next task:\n{rule}"
            ),
            fix,
        ),
        Ok(tables::State::Missing) => Outcome::Problem(
            "something has removed the rules of the runs' networks, such as a reload of a \
             firewall; the agent puts them up again before its next task"
                .to_owned(),
            fix,
        ),
    }
}

/// With nftables, what our chain in iptables lets through still has to pass
/// firewalld's own chains. With iptables our chain is asked first.
///
/// Of either kind, a reload or restart of firewalld also empties the tables of
/// iptables (seen with 1.3.3), so the fix is done to what runs and to what is
/// kept, without a reload.
fn judge_firewalld(ranges: &[Ipv4Net], trusted: &[Ipv4Net], nftables: bool) -> Outcome {
    const AFTER_RELOAD: &str =
        "its reload drops the runs' own rules; the agent puts them up again within 30 s";
    let is_trusted = |range: &&Ipv4Net| trusted.iter().any(|source| source.contains(*range));
    let blocked: Vec<String> =
        ranges.iter().filter(|range| !is_trusted(range)).map(ToString::to_string).collect();
    if blocked.is_empty() {
        return Outcome::Passed(format!("firewalld trusts the runs' networks; {AFTER_RELOAD}"));
    }
    if !nftables {
        return Outcome::Passed(format!(
            "firewalld uses iptables, which allow the runs' traffic; {AFTER_RELOAD}"
        ));
    }
    let trust = |range: &String| {
        let add = format!("--zone=trusted --add-source={range}");
        [format!("firewall-cmd {add}"), format!("firewall-cmd --permanent {add}")]
    };
    Outcome::Problem(
        format!(
            "it rejects the runs' traffic from {}; its zone trusted allows that",
            blocked.join(", ")
        ),
        blocked.iter().flat_map(trust).collect(),
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
                "firewall-cmd --zone=trusted --add-source=10.213.64.0/20",
                "firewall-cmd --permanent --zone=trusted --add-source=10.213.64.0/20",
            ]
        );
        let trusted = nets(&["10.0.0.0/8"]);
        assert!(matches!(judge_firewalld(&ranges, &trusted, true), Outcome::Passed(_)));
    }

    #[test]
    fn on_iptables_they_pass_until_a_reload() {
        let found = judge_firewalld(&nets(&["10.213.64.0/20"]), &[], false);
        assert!(
            matches!(&found, Outcome::Passed(text) if text.contains("within 30 s")),
            "{found:?}"
        );
    }
}

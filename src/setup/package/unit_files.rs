//! The units in the packages: the same on every host.
//!
//! What depends on the host is in drop-ins, which `install` renders.

use anyhow::{Context as _, Result};
use config::layout;

const AGENT: (&str, &str) =
    (layout::AGENT_UNIT, include_str!("../../../templates/systemd/scalr-agent.service.tera"));
const DOCKER: (&str, &str) =
    (layout::ENGINE_UNIT, include_str!("../../../templates/systemd/scalr-docker.service.tera"));
const CONTAINERD: (&str, &str) = (
    layout::CONTAINERD_UNIT,
    include_str!("../../../templates/systemd/scalr-containerd.service.tera"),
);

const NETWORK: (&str, &str) =
    (layout::NETWORK_UNIT, include_str!("../../../templates/systemd/scalr-agent-network.socket"));
const NETWORK_VERIFICATION: (&str, &str) = (
    "scalr-agent-network@.service",
    include_str!("../../../templates/systemd/scalr-agent-network@.service"),
);

/// The units' names and texts, with an engine of our own or for the host's.
///
/// # Errors
/// A template is wrong.
pub(super) fn render(bundled: bool) -> Result<Vec<(&'static str, String)>> {
    let mut context = tera::Context::new();
    context.insert("engine", if bundled { layout::ENGINE_PROGRAMS } else { "" });
    let mut templates = vec![AGENT, NETWORK, NETWORK_VERIFICATION];
    if bundled {
        templates.extend([DOCKER, CONTAINERD]);
    }
    templates
        .into_iter()
        .map(|(name, template)| {
            let text = tera::Tera::one_off(template, &context, false)
                .with_context(|| format!("cannot render {name}"))?;
            Ok((name, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `section<TAB>directive<TAB>y` begins the line of what the oldest systemd knows.
    const KNOWN: &str = include_str!("../../../tests/packages/directives.tsv");

    fn directives(text: &str) -> Vec<(String, String, String)> {
        let mut section = String::new();
        let mut found = Vec::new();
        for line in text.replace("\\\n", " ").lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((name, value)) = line.split_once('=') {
                found.push((section.clone(), name.to_owned(), value.to_owned()));
            } else {
                assert_eq!(line, "", "not a line of a unit");
            }
        }
        found
    }

    #[test]
    fn systemd_219_understands_every_line() {
        for (unit, text) in render(true).unwrap().into_iter().chain(render(false).unwrap()) {
            for (section, name, value) in directives(&text) {
                let known = section == "Install" && name == "WantedBy"
                    || KNOWN.lines().any(|line| line.starts_with(&format!("{section}\t{name}\ty")));
                assert!(known, "{unit}: [{section}] {name}= is not known to systemd 219");
                // It knows just these two prefixes, and drops the line at another.
                if name.starts_with("Exec") {
                    let command = value.trim_start_matches(['-', '@']);
                    assert!(command.starts_with('/'), "{unit}: {name}={value}");
                }
                // It makes a directory of one level only.
                if name == "RuntimeDirectory" {
                    assert!(!value.contains('/'), "{unit}: {name}={value}");
                }
            }
        }
    }

    #[test]
    fn without_an_engine_nothing_names_it() {
        let units = render(false).unwrap();
        assert_eq!(units.len(), 3);
        for (unit, text) in &units {
            assert!(!text.contains("scalr-docker"), "{unit}: {text}");
        }
        assert!(units[0].1.contains("\nGroup=scalr-agent\nWorkingDirectory="), "{}", units[0].1);
    }

    #[test]
    fn the_agent_may_talk_to_its_engine() {
        let (_, agent) = &render(true).unwrap()[0];
        for line in ["SupplementaryGroups=scalr-docker", "RestartPreventExitStatus=2 7"] {
            assert!(agent.lines().any(|found| found == line), "no {line} in:\n{agent}");
        }
        // An EnvironmentFile= here would be read even where no proxy is set.
        assert!(!agent.contains("EnvironmentFile"));
    }
}

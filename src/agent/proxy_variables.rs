//! The proxy's variables, for the agent's own requests and for the containers of its runs.

use std::collections::BTreeMap;

use config::layout::AGENT_DROP_INS;
use config::proxy;
use host::machine::Machine;
use host::unit;

/// The proxy's variables, each under its upper and its lower case name: the
/// environment's, else, in an agent that is run by hand, the service's.
///
/// A variable that is there but empty counts as the wish to use no proxy. Call
/// this before systemd's notification socket is taken out of the environment:
/// it shows whether systemd started us.
pub(crate) fn of_agent() -> Vec<(String, String)> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    effective(&environment, &Machine::at("/"))
}

fn effective(environment: &BTreeMap<String, String>, machine: &Machine) -> Vec<(String, String)> {
    let own = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let is_set = |name: &&str| {
        environment.contains_key(*name) || environment.contains_key(&name.to_ascii_lowercase())
    };
    if environment.contains_key("NOTIFY_SOCKET") || own.iter().any(is_set) {
        return proxy::variables(|name| environment.get(name).map(String::as_str));
    }
    match unit::environment(machine, AGENT_DROP_INS) {
        Ok(set) => proxy::variables(|name| Some(set.get(name)?.value.as_str())),
        Err(error) => {
            tracing::warn!("cannot read the service's proxy, so no proxy is used: {error:#}");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine whose service uses the proxy `http://service:1`.
    fn machine() -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = machine.path(config::layout::PROXY_DROP_IN);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "[Service]\nEnvironment=HTTPS_PROXY=http://service:1\n").unwrap();
        (tree, machine)
    }

    fn with(environment: &[(&str, &str)]) -> Vec<(String, String)> {
        let (_tree, machine) = machine();
        effective(&owned(environment).into_iter().collect(), &machine)
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_agent_run_by_hand_uses_the_proxy_of_the_service() {
        let service = [("HTTPS_PROXY", "http://service:1"), ("https_proxy", "http://service:1")];
        assert_eq!(with(&[("HOME", "/")]), owned(&service));
        assert_eq!(with(&[("NO_PROXY", "localhost")]), owned(&service));
    }

    #[test]
    fn the_environment_takes_precedence_over_the_service() {
        assert_eq!(
            with(&[("http_proxy", "http://mine:2"), ("NO_PROXY", "a,b")]),
            owned(&[
                ("HTTP_PROXY", "http://mine:2"),
                ("http_proxy", "http://mine:2"),
                ("NO_PROXY", "a,b"),
                ("no_proxy", "a,b"),
            ])
        );
    }

    #[test]
    fn an_agent_run_by_systemd_uses_the_environment_alone() {
        assert_eq!(with(&[("NOTIFY_SOCKET", "/run/systemd/notify")]), []);
    }

    #[test]
    fn an_empty_variable_means_no_proxy() {
        assert_eq!(with(&[("HTTPS_PROXY", "")]), []);
    }

    #[test]
    fn a_machine_without_a_proxy_has_no_variables() {
        let tree = tempfile::tempdir().unwrap();
        assert_eq!(effective(&BTreeMap::new(), &Machine::at(tree.path())), []);
    }
}

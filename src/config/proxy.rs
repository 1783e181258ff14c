//! The proxy that the services are given: by their drop-in, or by the
//! environment file that it names.
//!
//! A program that is run by hand has to use the same proxy as the service.

use anyhow::Result;

use super::unit;
use crate::host::machine::Machine;

/// The drop-in of the agent's unit.
pub const DROP_IN: &str = "/etc/systemd/system/scalr-agent.service.d/proxy.conf";

/// The engine's: a symbolic link to [`DROP_IN`].
pub const ENGINE_DROP_IN: &str = "/etc/systemd/system/scalr-docker.service.d/proxy.conf";

/// Holds the values if they carry a password: a drop-in's would be shown to
/// every user by `systemctl show`.
pub const SECRETS: &str = "/etc/scalr-agent/proxy.env";

/// The variables, upper case; programs differ in which case they read.
pub const VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The proxy's variables that the agent's unit sets, each under its upper and
/// its lower case name; `None` if it sets none.
///
/// Every drop-in of the unit counts, whoever wrote it. An environment file that
/// we may not read is passed over.
///
/// # Errors
/// A drop-in can't be read.
pub fn of_units(machine: &Machine) -> Result<Option<Vec<(String, String)>>> {
    let set = unit::environment(machine)?;
    let variables: Vec<_> = VARIABLES
        .iter()
        .filter_map(|upper| {
            let lower = upper.to_ascii_lowercase();
            let given = set.get(*upper).or_else(|| set.get(&lower))?;
            let value = &given.value;
            Some([((*upper).to_owned(), value.clone()), (lower, value.clone())])
        })
        .flatten()
        .collect();
    Ok((!variables.is_empty()).then_some(variables))
}

/// The text with the password of its URL hidden, and a user's name that stands
/// alone, since that is usually a token.
pub fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((user, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:***@{host}"),
        None => format!("{scheme}://***@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (path, text) in files {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        (tree, machine)
    }

    fn value(machine: &Machine, name: &str) -> Option<String> {
        let all = of_units(machine).unwrap().unwrap_or_default();
        all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    #[test]
    fn without_a_drop_in_there_is_none() {
        let (_tree, machine) = machine_with(&[]);
        assert_eq!(of_units(&machine).unwrap(), None);
    }

    #[test]
    fn a_hand_written_one_counts() {
        let (_tree, machine) = machine_with(&[(
            DROP_IN,
            "[Service]\nEnvironment=\"HTTP_PROXY=http://proxy.example.com:3128\"\n\
             Environment=HTTPS_PROXY=http://proxy.example.com:3129 'NO_PROXY=a b,c'\n",
        )]);
        let of = |name| value(&machine, name);
        assert_eq!(of("http_proxy").as_deref(), Some("http://proxy.example.com:3128"));
        assert_eq!(of("HTTPS_PROXY").as_deref(), Some("http://proxy.example.com:3129"));
        assert_eq!(of("no_proxy").as_deref(), Some("a b,c"));
        assert_eq!(of("ALL_PROXY"), None);
    }

    #[test]
    fn escapes_are_undone() {
        let text = "[Service]\nEnvironment=\"HTTP_PROXY=http://u:p%%2F\\\"\\\\x@proxy:80\"\n";
        let (_tree, machine) = machine_with(&[(DROP_IN, text)]);
        let value = value(&machine, "HTTP_PROXY");
        assert_eq!(value.as_deref(), Some("http://u:p%2F\"\\x@proxy:80"));
    }

    #[test]
    fn the_environment_file_goes_before() {
        let (_tree, machine) = machine_with(&[
            (
                DROP_IN,
                "[Service]\nEnvironmentFile=-/etc/scalr-agent/proxy.env\n\
                 Environment=HTTP_PROXY=http://one:1\n",
            ),
            (SECRETS, "# ours\nHTTP_PROXY=\"http://u:p\\$%2F@two:2\"\n"),
        ]);
        assert_eq!(value(&machine, "http_proxy").as_deref(), Some("http://u:p$%2F@two:2"));
    }

    #[test]
    fn other_sections_and_other_variables_do_not_count() {
        let text = "[Unit]\nEnvironment=HTTP_PROXY=x\n[Service]\n# Environment=HTTP_PROXY=y\n\
                    Environment=HOME=/\n";
        let (_tree, machine) = machine_with(&[(DROP_IN, text)]);
        assert_eq!(of_units(&machine).unwrap(), None);
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(masked("http://user:p@ss@host:1"), "http://user:***@host:1");
        assert_eq!(masked("http://token@host:1"), "http://***@host:1");
        assert_eq!(masked("http://host:1"), "http://host:1");
        assert_eq!(masked("localhost,127.0.0.1"), "localhost,127.0.0.1");
    }
}

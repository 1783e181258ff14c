//! The proxy that the services are given: by their drop-in, or by the
//! environment file that it names.
//!
//! A program that is run by hand has to use the same proxy as the service.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

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
    let mut set = BTreeMap::new();
    for file in drop_ins(machine)? {
        let text = match fs::read_to_string(&file) {
            // A link to /dev/null, or one that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.with_context(|| format!("cannot read {}", file.display()))?,
        };
        read_unit(&text, machine, &mut set);
    }
    let variables: Vec<_> = VARIABLES
        .iter()
        .filter_map(|upper| {
            let lower = upper.to_ascii_lowercase();
            let value = set.get(*upper).or_else(|| set.get(&lower))?;
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

fn drop_ins(machine: &Machine) -> Result<Vec<PathBuf>> {
    let directory = machine.path("/etc/systemd/system/scalr-agent.service.d");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    Ok(files)
}

/// Adds what a unit file sets. As in systemd, files named by `EnvironmentFile=`
/// go before `Environment=`.
fn read_unit(text: &str, machine: &Machine, set: &mut BTreeMap<String, String>) {
    let text = text.replace("\\\n", " ");
    let mut in_service = false;
    let mut of_files = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| in_service) else { continue };
        match name.trim() {
            "Environment" if value.trim().is_empty() => set.clear(),
            "Environment" => set.extend(words(value).iter().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.replace("%%", "%")))
            })),
            "EnvironmentFile" => {
                let file = machine.path(value.trim().trim_start_matches('-'));
                let text = fs::read_to_string(file).unwrap_or_default();
                of_files.extend(text.lines().filter_map(assignment));
            }
            _ => {}
        }
    }
    set.extend(of_files);
}

/// A line of an environment file.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let value = match value.chars().next() {
        Some('"' | '\'') => words(value).into_iter().next().unwrap_or_default(),
        _ => value.to_owned(),
    };
    Some((name.trim().to_owned(), value))
}

/// A unit file's words: separated by spaces, quoted by `"` or `'`, with a
/// backslash before a character that is meant (systemd.syntax(7)).
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
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

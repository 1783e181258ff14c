//! The drop-ins by which scalr-agent and scalr-docker get the proxy: reading,
//! writing and removing them.

use std::fs;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::units;
use cli::untrusted_file;
use config::layout::AGENT_DROP_INS;
use config::layout::{ENGINE_PROXY_DROP_IN, PROXY_DROP_IN, PROXY_SECRETS};
use config::proxy::{self, ProxySettings};
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::unit;

/// The proxy's variables that the agent's unit sets, each under its upper and its
/// lower case name. Every drop-in counts, whoever wrote it.
///
/// # Errors
/// A drop-in can't be read.
pub(crate) fn of_units(machine: &Machine) -> Result<Vec<(String, String)>> {
    let set = unit::environment(machine, AGENT_DROP_INS)?;
    Ok(proxy::variables(|name| Some(set.get(name)?.value.as_str())))
}

/// Writes the drop-ins; returns whether anything changed.
///
/// # Errors
/// A file was written by hand and `force` is not set; one can't be written.
pub(crate) fn write(changes: &mut Changes, proxy: &ProxySettings, force: bool) -> Result<bool> {
    let drop_in = drop_in(proxy)?;
    let mut changed = if proxy.has_credentials() {
        own(changes, PROXY_SECRETS, Some(&secrets(proxy)), force)?;
        changes.write(PROXY_SECRETS, &secrets(proxy), Attributes::SECRET)?
    } else if changes.is_ours(PROXY_SECRETS)? {
        changes.remove(PROXY_SECRETS)?
    } else {
        false
    };
    own(changes, PROXY_DROP_IN, Some(&drop_in), force)?;
    changed |= changes.write(PROXY_DROP_IN, &drop_in, Attributes::PUBLIC)?;
    if !is_linked(changes.machine()) {
        own(changes, ENGINE_PROXY_DROP_IN, None, force)?;
        changed |= changes.symlink(ENGINE_PROXY_DROP_IN, PROXY_DROP_IN)?;
    }
    Ok(changed)
}

fn drop_in(proxy: &ProxySettings) -> Result<String> {
    #[derive(Serialize)]
    struct Variable {
        name: String,
        escaped: String,
    }
    let variables: Vec<Variable> = proxy
        .variables()
        .into_iter()
        .map(|(name, value)| Variable { name, escaped: escaped(&value) })
        .collect();
    let mut context = tera::Context::new();
    context.insert("secrets", &proxy.has_credentials().then_some(PROXY_SECRETS));
    context.insert("variables", &variables);
    units::fill(include_str!("../../../templates/systemd/drop-ins/proxy.conf.tera"), &context)
}

/// Environment files know neither specifiers nor variables, but quotes and
/// backslashes; `$` and the backtick are for a shell that reads it.
fn secrets(proxy: &ProxySettings) -> String {
    let quoted = |value: &str| {
        let mut text = String::new();
        for character in value.chars() {
            if "\\\"$`".contains(character) {
                text.push('\\');
            }
            text.push(character);
        }
        text
    };
    let lines: String = proxy
        .variables()
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"\n", quoted(value)))
        .collect();
    format!("# Written by \"scalr-agent-setup proxy\".\n{lines}")
}

/// As it must stand between the quotes of `Environment="…"`.
fn escaped(value: &str) -> String {
    value.replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"")
}

/// Refuses to touch what somebody wrote by hand, unless it says the same
/// already or `force` is set.
fn own(changes: &Changes, path: &str, text: Option<&str>, force: bool) -> Result<()> {
    let file = changes.machine().entry(path);
    if force || file.symlink_metadata().is_err() || changes.is_ours(path)? {
        return Ok(());
    }
    if text.is_some() && untrusted_file::read_text(&file).ok().as_deref() == text {
        return Ok(());
    }
    if file.is_dir() && !file.is_symlink() {
        bail!("{path} is a directory, not a file\nRemove it, and run this again.");
    }
    if let Ok(target) = fs::read_link(&file) {
        bail!(
            "{path} is a symbolic link to {} that was made by hand; add --force to replace it",
            target.display()
        );
    }
    bail!(
        "{path} was written by hand, and it is in use as it is; look at it with \
         `scalr-agent-setup proxy show`, and add --force to replace it"
    )
}

/// Whether the engine's drop-in is a link to the agent's, as our own is and the
/// one that the vendor's documentation tells people to make.
pub(super) fn is_linked(machine: &Machine) -> bool {
    let target = fs::read_link(machine.entry(ENGINE_PROXY_DROP_IN)).unwrap_or_default();
    [PROXY_DROP_IN, "../scalr-agent.service.d/proxy.conf"]
        .iter()
        .any(|known| target.as_os_str() == *known)
}

/// Removes the drop-ins; returns whether anything changed.
///
/// # Errors
/// One was written by hand and `force` is not set; one can't be removed.
pub(super) fn remove(changes: &mut Changes, force: bool) -> Result<bool> {
    for path in [PROXY_DROP_IN, PROXY_SECRETS] {
        own(changes, path, None, force)?;
    }
    let mut changed = false;
    if is_linked(changes.machine()) {
        changed |= changes.remove(ENGINE_PROXY_DROP_IN)?;
    }
    for path in [PROXY_DROP_IN, PROXY_SECRETS] {
        changed |= changes.remove(path)?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::RECORDS;

    #[test]
    fn what_is_written_is_what_units_read() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (url, secret) in [("http://u:p%2Fb$x`y@proxy:3128", true), ("http://proxy:3128", false)]
        {
            let proxy =
                ProxySettings::check(url, Some("http://other:1"), Some("*.a,100%,b")).unwrap();
            let mut changes = Changes::begin(&machine, &RECORDS, false).unwrap();
            assert!(write(&mut changes, &proxy, false).unwrap());
            assert!(!write(&mut changes, &proxy, false).unwrap(), "the same again");
            changes.commit().unwrap();

            let mut read = of_units(&machine).unwrap();
            let mut wrote = proxy.variables();
            read.sort();
            wrote.sort();
            assert_eq!(read, wrote);
            assert_eq!(machine.path(PROXY_SECRETS).exists(), secret);
            let drop_in = fs::read_to_string(machine.path(PROXY_DROP_IN)).unwrap();
            assert_eq!(drop_in.contains("HTTP_PROXY"), !secret, "{drop_in}");
        }
        let target = fs::read_link(machine.entry(ENGINE_PROXY_DROP_IN)).unwrap();
        assert_eq!(target.to_str(), Some(PROXY_DROP_IN));
    }

    #[test]
    fn specifiers_are_doubled() {
        assert_eq!(escaped(r#"p%2F"\"#), r#"p%%2F\"\\"#);
        let proxy = ProxySettings::check("http://p:1", None, Some("100%")).unwrap();
        let drop_in = drop_in(&proxy).unwrap();
        assert!(drop_in.contains("Environment=\"NO_PROXY=100%%,localhost"), "{drop_in}");
    }

    #[test]
    fn what_was_written_by_hand_stays() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let by_hand = "[Service]\nEnvironment=\"HTTP_PROXY=http://old:1\"\n";
        fs::create_dir_all(machine.path(PROXY_DROP_IN).parent().unwrap()).unwrap();
        fs::write(machine.path(PROXY_DROP_IN), by_hand).unwrap();
        let read = || fs::read_to_string(machine.path(PROXY_DROP_IN)).unwrap();

        let proxy = ProxySettings::check("http://new:1", None, None).unwrap();
        let mut changes = Changes::begin(&machine, &RECORDS, false).unwrap();
        let error = write(&mut changes, &proxy, false).unwrap_err();
        assert!(error.to_string().contains("written by hand"), "{error}");
        let error = remove(&mut changes, false).unwrap_err();
        assert!(error.to_string().contains("written by hand"), "{error}");
        drop(changes);
        assert_eq!(read(), by_hand);

        let mut changes = Changes::begin(&machine, &RECORDS, false).unwrap();
        write(&mut changes, &proxy, true).unwrap();
        changes.commit().unwrap();
        assert!(read().contains("http://new:1"));
    }
}

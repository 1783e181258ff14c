//! The agent's proxy for apt and yum, where they fetch from the server's repository.

use anyhow::{Context as _, Result};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::authority;
use super::source::{Files, ID};
use cli::Failure;
use cli::untrusted_file;
use config::layout::CA_CERT;
use config::proxy::{ProxySelection, with_port};
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::os::Family;
use host::package_tool::OfProxy;

/// apt's setting for this server alone.
const APT: &str = "/etc/apt/apt.conf.d/90scalr-agent-proxy";

/// Where apt takes a proxy's password from; it reads this as root.
const APT_SECRET: &str = "/etc/apt/auth.conf.d/90scalr-agent-proxy.conf";

/// What a definition calls a proxy with a password. A definition has to be readable for
/// everybody: yum 3 fails without. A variable does not, and without it this host name has
/// no address, so that yum passes over the repository.
const VARIABLE: &str = "scalr_agent_proxy";

/// yum's settings of a repository.
const PROXY: &str = "proxy";
const PROXY_CA: &str = "proxy_sslcacert";

/// Has apt or yum use the proxy among `variables` for the server's repository, or none;
/// returns whether that changed anything. Does nothing where the repository is not set up.
///
/// # Errors
/// A variable is not the URL of a proxy; a file can't be changed.
pub(crate) fn put(
    changes: &mut Changes,
    family: Family,
    variables: &[(String, String)],
) -> Result<bool> {
    let machine = changes.machine().clone();
    let definition_file = Files::of(family, ID).definition;
    let Ok(definition) = untrusted_file::read_text(machine.path(&definition_file)) else {
        return Ok(false);
    };
    let Some(server) = address(&definition) else { return Ok(false) };
    let proxies = ProxySelection::of(variables)?;
    let proxy = proxies.for_url(&server).filter(|proxy| proxy.scheme().starts_with("http"));
    let has_authorities = machine.is_this_one() && machine.path(CA_CERT).is_file();
    let authorities = if has_authorities { authority::of_proxy(variables, &server)? } else { None };
    if family == Family::Debian {
        return for_apt(changes, &server, proxy, authorities);
    }
    let variable = variable_file(&machine);
    let (line, secret) = match proxy {
        None => (None, None),
        Some(proxy) if proxy.username().is_empty() => (Some(text(proxy)?), None),
        Some(proxy) => {
            let whole = text(proxy)?;
            let (scheme, rest) = whole.split_once("://").context("a URL has a scheme")?;
            (Some(format!("{scheme}://${VARIABLE}")), Some(rest.to_owned()))
        }
    };
    let changed = replace(changes, &variable, secret.map(|rest| rest + "\n"), Attributes::SECRET)?;
    let file = authorities.map(|authorities| authorities.file);
    let definition = with_proxy(&definition, line.as_deref(), file);
    Ok(changes.write(&definition_file, &definition, Attributes::PUBLIC)? || changed)
}

/// Removes what [`put`] wrote beside the definition.
///
/// # Errors
/// A file can't be removed.
pub(super) fn remove(changes: &mut Changes, family: Family) -> Result<()> {
    if family == Family::Debian {
        changes.remove(APT)?;
        changes.remove(APT_SECRET)?;
    } else {
        changes.remove(&variable_file(&changes.machine().clone()))?;
    }
    Ok(())
}

/// A new definition with the proxy of the one before it.
pub(super) fn keep(before: &str, definition: &str) -> String {
    let value = |name: &str| {
        let mut pairs = before.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    with_proxy(definition, value(PROXY), value(PROXY_CA))
}

/// Refuses a proxy whose user or password apt cannot be given: its auth.conf separates words
/// by white space and knows neither quotes nor escapes, and its other settings are for
/// everybody to read.
///
/// # Errors
/// The proxy is such a one (2), or a variable is not the URL of a proxy.
pub(crate) fn require_usable(
    machine: &Machine,
    family: Family,
    variables: &[(String, String)],
    server: Option<&Url>,
) -> Result<()> {
    if family != Family::Debian {
        return Ok(());
    }
    let definition = untrusted_file::read_text(machine.path(Files::of(family, ID).definition));
    let known = definition.ok().as_deref().and_then(address);
    let Some(server) = known.as_ref().or(server) else { return Ok(()) };
    match ProxySelection::of(variables)?.for_url(server) {
        Some(proxy) => credentials(proxy).map(drop),
        None => Ok(()),
    }
}

/// The user and the password as apt takes them; `None` without a user.
fn credentials(proxy: &Url) -> Result<Option<(String, String)>> {
    let plain = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let pair = (plain(proxy.username()), plain(proxy.password().unwrap_or_default()));
    let cannot_stand = |text: &str| text.chars().any(|c| c.is_whitespace() || c.is_control());
    if cannot_stand(&pair.0) || cannot_stand(&pair.1) {
        return Err(Failure::Usage.because(
            "the proxy's user or password has a space or a line break in it, which apt cannot be \
             given\nGive the proxy's user another password.",
        ));
    }
    Ok(Some(pair).filter(|(user, _)| !user.is_empty()))
}

fn for_apt(
    changes: &mut Changes,
    server: &Url,
    proxy: Option<&Url>,
    authorities: Option<OfProxy>,
) -> Result<bool> {
    // An IPv6 address would be taken for two levels of apt's settings.
    let host = match server.host() {
        Some(Host::Ipv6(_)) | None => None,
        Some(host) => Some(host.to_string()),
    };
    let (mut setting, mut secret) = (None, None);
    if let (Some(host), Some(proxy)) = (host, proxy) {
        let mut bare = proxy.clone();
        let taken = bare.set_username("").and_then(|()| bare.set_password(None));
        taken.ok().context("the proxy's URL has no host")?;
        let bare = text(&bare)?;
        let scheme = server.scheme();
        let mut lines = format!("Acquire::{scheme}::Proxy::{host} \"{bare}\";\n");
        if let Some(OfProxy { host, file }) = authorities {
            lines += &format!("Acquire::https::{host}::CaInfo \"{file}\";\n");
        }
        setting = Some(lines);
        if let Some((user, password)) = credentials(proxy)? {
            // apt 1.6 looks for the machine without its scheme, newer ones with it.
            let place = bare.split_once("://").map_or(bare.as_str(), |(_, place)| place);
            secret = Some(format!(
                "machine {bare} login {user} password {password}\n\
                 machine {place} login {user} password {password}\n"
            ));
        }
    }
    let changed = replace(changes, APT_SECRET, secret, Attributes::SECRET)?;
    Ok(replace(changes, APT, setting, Attributes::PUBLIC)? || changed)
}

fn replace(
    changes: &mut Changes,
    path: &str,
    text: Option<String>,
    attributes: Attributes,
) -> Result<bool> {
    match text {
        Some(text) => changes.write(path, &text, attributes),
        None => changes.remove(path),
    }
}

/// yum 3 reads variables from the first alone, dnf 5 from the second.
fn variable_file(machine: &Machine) -> String {
    let of_yum = "/etc/yum/vars";
    let folder = if machine.path(of_yum).is_dir() { of_yum } else { "/etc/dnf/vars" };
    format!("{folder}/{VARIABLE}")
}

/// The server's address in a definition, of apt or of yum.
fn address(definition: &str) -> Option<Url> {
    let of = |line: &str| {
        let value = line.strip_prefix("baseurl=").or_else(|| line.strip_prefix("URIs: "))?;
        value.trim().parse().ok()
    };
    definition.lines().find_map(of)
}

fn with_proxy(definition: &str, proxy: Option<&str>, authorities: Option<&str>) -> String {
    let is_ours = |line: &str| {
        line.split_once('=').is_some_and(|(name, _)| [PROXY, PROXY_CA].contains(&name))
    };
    let lines = definition.lines().filter(|line| !is_ours(line));
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    for (name, value) in [(PROXY, proxy), (PROXY_CA, authorities)] {
        text.extend(value.map(|value| format!("{name}={value}\n")));
    }
    text
}

fn text(proxy: &Url) -> Result<String> {
    with_port(proxy).context("the proxy's URL names no port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_keeps_its_proxy_until_another_is_set() {
        let proxy = "proxy=https://proxy:3128\nproxy_sslcacert=/etc/scalr-agent/ca.pem\n";
        let old = &format!("[scalr-agent]\nbaseurl=https://x.example.com\n{proxy}");
        let new = "[scalr-agent]\nbaseurl=https://y.example.com\n";
        let kept = keep(old, new);
        assert_eq!(kept, format!("{new}{proxy}"));
        assert_eq!(with_proxy(&kept, None, None), new);
        assert_eq!(keep(new, new), new);
    }

    #[test]
    fn credentials_that_apt_cannot_be_given_are_refused() {
        let machine = Machine::at("/nowhere");
        let server = "https://pools.example.com".parse().unwrap();
        let refused = |family, url: &str, server: Option<&Url>| {
            let variables = [("HTTPS_PROXY".to_owned(), url.to_owned())];
            require_usable(&machine, family, &variables, server).map_err(|error| {
                assert_eq!(Failure::of(&error), Failure::Usage);
                error.to_string()
            })
        };
        for url in [
            "http://me:two%20words@proxy:1",
            "http://me:a%0ab@proxy:1",
            "http://me:a%0D%0Ab@proxy:1",
            "http://me:a%09b@proxy:1",
            "http://me:a%C2%A0b@proxy:1",
            "http://m%20e:word@proxy:1",
            "http://to%20ken@proxy:1",
            "http://me:a%00b@proxy:1",
        ] {
            let error = refused(Family::Debian, url, Some(&server)).unwrap_err();
            assert!(error.contains("space or a line break"), "{error}");
            assert!(!error.contains("two"), "{error}");
            refused(Family::RedHat, url, Some(&server)).unwrap();
            refused(Family::Debian, url, None).unwrap();
        }
        for url in ["http://me:a%23%2F%40b@proxy:1", "http://proxy:1", "http://token@proxy:1"] {
            refused(Family::Debian, url, Some(&server)).unwrap();
        }
    }

    #[test]
    fn a_definition_names_its_server() {
        for text in
            ["[x]\nbaseurl=https://y.example.com/yum\n", "URIs: https://y.example.com/apt\n"]
        {
            assert_eq!(address(text).unwrap().host_str(), Some("y.example.com"));
        }
        assert_eq!(address("[x]\nmirrorlist=https://y.example.com\n"), None);
    }
}

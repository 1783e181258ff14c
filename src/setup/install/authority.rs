//! The authorities of `--ca-cert`: kept in one place, from where the agent, apt and
//! yum trust them. The system's own stay as they are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use url::{Host, Url};

use cli::{Failure, untrusted_file};
use config::Settings;
use config::layout::CA_CERT;
use config::proxy::ProxySelection;
use host::changes::{Attributes, Changes};
use host::curl;
use host::machine::Machine;
use host::package_tool::OfProxy;

/// A file of certificate authorities, in PEM form.
pub(crate) struct Authority {
    /// Where it can be read now.
    pub(super) file: PathBuf,
    text: String,
}

impl Authority {
    /// That of the option, or the one that an earlier installation has kept.
    ///
    /// # Errors
    /// The option's file can't be read or has no certificate in it (2).
    pub(super) fn of(machine: &Machine, option: Option<&Path>) -> Result<Option<Self>> {
        if let Some(file) = option {
            let authority = Self::named(file).map_err(|error| {
                Failure::Usage.because(format!("--ca-cert {}: {error:#}", file.display()))
            });
            return authority.map(Some);
        }
        let kept = machine.path(CA_CERT);
        if !kept.is_file() {
            return Ok(None);
        }
        let text =
            untrusted_file::read_text(&kept).with_context(|| format!("cannot read {CA_CERT}"))?;
        Ok(Some(Self { file: kept, text }))
    }

    fn named(file: &Path) -> Result<Self> {
        let file = file.canonicalize()?;
        Settings { ca_cert: Some(file.clone()), ..Settings::default() }.check()?;
        let text = String::from_utf8(untrusted_file::read(&file, config::MAX_CERTIFICATES)?)?;
        Ok(Self { file, text })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn put(&self, changes: &mut Changes) -> Result<()> {
        changes.write(CA_CERT, &self.text, Attributes::PUBLIC).map(drop)
    }
}

/// apt's setting that has it trust the kept authorities for the host of `url` alone
/// (apt-transport-https(1)).
///
/// # Errors
/// The host is an IPv6 address: its colons separate the words of apt's settings (2).
pub(super) fn apt_setting(url: &Url) -> Result<String> {
    match url.host() {
        Some(Host::Ipv6(address)) => Err(Failure::Usage.because(format!(
            "apt cannot trust an authority for the IPv6 address {address} alone; give --url the \
             server's name, or add the authority to the system's"
        ))),
        host => {
            let host = host.map(|host| host.to_string()).unwrap_or_default();
            Ok(format!("Acquire::https::{host}::CaInfo \"{CA_CERT}\";\n"))
        }
    }
}

/// The kept authorities, where apt and yum need them for the proxy of `variables` to `server`:
/// it is an https proxy, and none of the system's has signed its certificate. Theirs would take
/// the place of the system's.
///
/// # Errors
/// A variable is not the URL of a proxy, or curl is missing.
pub(super) fn of_proxy(variables: &[(String, String)], server: &Url) -> Result<Option<OfProxy>> {
    let proxies = ProxySelection::of(variables)?;
    let Some(proxy) = proxies.for_url(server).filter(|proxy| proxy.scheme() == "https") else {
        return Ok(None);
    };
    let host = proxy.host_str().unwrap_or_default().to_owned();
    let is_refused = curl::get(server, variables, None)?.is_refused_proxy();
    Ok(is_refused.then_some(OfProxy { host, file: CA_CERT }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_trusts_it_for_the_server_alone() {
        let setting = |url: &str| apt_setting(&url.parse().unwrap());
        assert_eq!(
            setting("https://pools.example.com:8443").unwrap(),
            "Acquire::https::pools.example.com::CaInfo \"/etc/scalr-agent/ca.pem\";\n"
        );
        assert_eq!(Failure::of(&setting("https://[::2]").unwrap_err()), Failure::Usage);
    }
}

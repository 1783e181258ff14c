//! How calls leave this host: through which proxy, and whose certificates are trusted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{ClientBuilder, Proxy};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use cli::untrusted_file;
use config::proxy::ProxySelection;

/// The proxy and the authorities. All clients of a process share one: a usual system has some 140
/// authorities, and reading them takes time and memory.
pub struct Https {
    proxy: ProxySelection,
    tls: ClientConfig,
}

impl Https {
    /// The proxy that the variables `proxy` name, such as `HTTPS_PROXY`, and the system's
    /// authorities with those of the file `ca_cert`.
    ///
    /// # Errors
    /// A certificate or a proxy can't be used.
    pub fn new(ca_cert: Option<&Path>, proxy: &[(String, String)]) -> Result<Self> {
        let proxy = ProxySelection::of(proxy)?;
        let also = ca_cert.map(certificates).transpose()?.unwrap_or_default();
        let tls = trusting(also).with_context(|| match ca_cert {
            Some(file) => format!("cannot trust the certificates in {}", file.display()),
            None => "cannot set up HTTPS".to_owned(),
        });
        Ok(Self { proxy, tls: tls? })
    }

    /// A client that goes that way.
    pub(crate) fn client(&self) -> ClientBuilder {
        let proxy = self.proxy.clone();
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .user_agent(concat!("scalr-agent/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            // Behind some firewalls an idle connection is dead after minutes.
            .pool_idle_timeout(Duration::from_secs(60))
            .proxy(Proxy::custom(move |url| proxy.for_url(url).cloned()))
    }
}

/// TLS that trusts the system's authorities and these.
fn trusting(also: Vec<CertificateDer<'static>>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(also, Arc::clone(&provider))?;
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = untrusted_file::read_linked(file, config::MAX_CERTIFICATES)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let none = || format!("{} holds no certificates", file.display());
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.with_context(none)?;
    ensure!(!found.is_empty(), none());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, why) in [
            ("", "holds no certificates"),
            ("no certificate\n", "holds no certificates"),
            (
                "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
                "holds no certificates",
            ),
            (damaged, "cannot trust the certificates in /"),
        ] {
            std::fs::write(&file, text).unwrap();
            let Err(error) = Https::new(Some(&file), &[]) else { panic!("{text}") };
            assert!(error.to_string().contains(why), "{text}: {error:#}");
        }
    }
}

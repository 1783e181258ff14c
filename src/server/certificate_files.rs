//! A certificate and its key in files of the operator's, which change while the server runs:
//! whatever renews them sends SIGHUP, or nothing at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

use crate::{certificate, tls};
use cli::untrusted_file;

/// How often the files are read.
const CHECK: Duration = Duration::from_secs(10);

/// How often warnings are repeated.
const REMIND: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The files.
#[derive(Debug)]
pub(crate) struct CertificateFiles {
    /// The certificate with its chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The host of the server's URL.
    pub host: String,
}

/// What the files hold: certificate and key.
type Content = (Vec<u8>, Vec<u8>);

/// A certificate with its chain, and TLS with it.
type Loaded = (Vec<CertificateDer<'static>>, Arc<ServerConfig>);

impl CertificateFiles {
    /// TLS with the files as they are now, and from then on as they become: they are read
    /// again on `hangup` and when they change. Files that can't be used change nothing.
    ///
    /// # Errors
    /// They can't be read, don't belong together, or agents would refuse the certificate.
    pub(crate) fn serve(self, hangup: Signal) -> Result<RustlsConfig> {
        let content = self.read().map_err(with_options)?;
        let (chain, config) = self.load(&content).map_err(with_options)?;
        self.warn(&chain);
        let config = RustlsConfig::from_config(config);
        tokio::spawn(self.follow(content, chain, config.clone(), hangup));
        Ok(config)
    }

    async fn follow(
        self,
        content: Content,
        mut chain: Vec<CertificateDer<'static>>,
        config: RustlsConfig,
        mut hangup: Signal,
    ) {
        let mut seen = Some(content);
        let mut warned = Instant::now();
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(CHECK) => false,
            };
            let read = self.read();
            let content = read.as_ref().ok().cloned();
            if is_asked || content != seen {
                seen = content;
                match read.and_then(|content| self.load(&content)) {
                    Ok((new, tls)) => {
                        config.reload_from_config(tls);
                        info!(cert = %self.cert.display(), "certificate reloaded");
                        chain = new;
                        self.warn(&chain);
                        warned = Instant::now();
                    }
                    Err(error) => warn!("{error:#}; the server keeps the earlier certificate"),
                }
            }
            if warned.elapsed() > REMIND {
                self.warn(&chain);
                warned = Instant::now();
            }
        }
    }

    fn read(&self) -> Result<Content> {
        let read = |path: &PathBuf, what| {
            untrusted_file::read_linked(path, MAX_FILE)
                .with_context(|| format!("cannot read the {what} {}", path.display()))
        };
        Ok((read(&self.cert, "certificate")?, read(&self.key, "key")?))
    }

    fn load(&self, (cert, key): &Content) -> Result<Loaded> {
        let (cert_file, key_file) = (self.cert.display(), self.key.display());
        let chain = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("cannot read the certificate {cert_file}"))?;
        if chain.is_empty() {
            bail!("there is no certificate in {cert_file}");
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .with_context(|| format!("cannot read the key {key_file}"))?;
        let config = tls::config(chain.clone(), key).with_context(|| {
            format!("cannot use the certificate {cert_file} with the key {key_file}")
        })?;
        certificate::check(&chain)
            .with_context(|| format!("cannot use the certificate {cert_file}"))?;
        Ok((chain, config))
    }

    fn warn(&self, chain: &[CertificateDer<'_>]) {
        for warning in certificate::warnings(chain, &self.host, Timestamp::now()) {
            warn!(cert = %self.cert.display(), "{warning}");
        }
        let mode = fs::metadata(&self.key).map_or(0, |key| key.permissions().mode());
        if mode & 0o007 != 0 {
            let key = self.key.display();
            warn!("all users of this host can read the key {key}; run `chmod o= {key}`");
        }
    }
}

/// What the options are called, where the error says nothing yet on what to do.
fn with_options(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    if text.contains('\n') {
        return error;
    }
    anyhow!(
        "{text}\nSet --tls-cert (SCALR_SERVER_TLS_CERT) to the certificate with its chain and \
         --tls-key (SCALR_SERVER_TLS_KEY) to its key, PEM files that the server's user can read."
    )
}

//! The server's certificate: given, or from an authority of its own.
//!
//! The authority (`ca.pem`, `ca-key.pem`) is made once and kept, since
//! machines are told to trust it. The certificate that it signs lives in
//! memory only: a new one is made at each start and every [`RENEW`], so that
//! it always has the names asked for and never runs out.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum_server::tls_rustls::RustlsConfig;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use cli::whole_file::WholeFile;

/// How often a new certificate is made; each is good for 90 days.
pub(crate) const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// TLS with a certificate and key from PEM files.
///
/// # Errors
/// They can't be read or don't belong together.
pub(crate) fn from_files(cert: &Path, key: &Path) -> Result<RustlsConfig> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {}", cert.display()))?;
    if chain.is_empty() {
        bail!("there is no certificate in {}", cert.display());
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    let config = config(chain, private).with_context(|| {
        format!("cannot use the certificate {} with the key {}", cert.display(), key.display())
    })?;
    Ok(RustlsConfig::from_config(config))
}

/// A certificate authority of the server's own.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// The authority kept in `folder`, made if there is none.
    ///
    /// # Errors
    /// It can't be read or written.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        if !certificate.exists() {
            make(folder, &certificate, &key)
                .with_context(|| format!("cannot make an authority in {}", folder.display()))?;
        }
        let open = || {
            let pem = fs::read_to_string(&certificate)?;
            let key = KeyPair::from_pem(&fs::read_to_string(&key)?)?;
            anyhow::Ok(Self {
                issuer: Issuer::from_ca_cert_pem(&pem, key)?,
                certificate: CertificateDer::from_pem_slice(pem.as_bytes())?,
            })
        };
        open().with_context(|| {
            format!("cannot use the authority in {} and {}", certificate.display(), key.display())
        })
    }

    /// TLS with a new certificate for `names`: host names and addresses.
    ///
    /// # Errors
    /// A name can't stand in a certificate.
    pub(crate) fn config(&self, names: &[String]) -> Result<Arc<ServerConfig>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)
            .with_context(|| format!("a certificate can't be for {}", names.join(", ")))?;
        params.distinguished_name.push(DnType::CommonName, "scalr-server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, 90)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        config(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

fn make(folder: &Path, certificate: &Path, key: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Two authorities of one name would be taken for each other where both are
    // trusted, after the data folder was made anew for example.
    let name = format!("scalr-server authority {}", hex::encode(rand::random::<[u8; 4]>()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, 3650)?;
    let authority = params.self_signed(&pair)?;
    // The key first: the certificate says that the authority is there.
    WholeFile::at(key).write(pair.serialize_pem())?;
    WholeFile::at(certificate).mode(0o644).write(authority.pem())
}

/// Makes a certificate good from yesterday, for clocks that are behind, to
/// `days` from today.
fn set_validity(params: &mut CertificateParams, days: i32) -> Result<()> {
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    let (from, to) = (today.yesterday()?, today.checked_add(days.days())?);
    let [from, to] = [from, to]
        .map(|date| rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8));
    (params.not_before, params.not_after) = (from, to);
    Ok(())
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_authority_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path()).unwrap();
        let second = Authority::open(folder.path()).unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert!(first.config(&["pools.example.com".into(), "127.0.0.1".into()]).is_ok());
        let mode = fs::metadata(folder.path().join("ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

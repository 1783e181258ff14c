//! TLS, and certificates of an authority of the server's own.
//!
//! The authority (`ca.pem`, `ca-key.pem`) is made once and kept, since
//! machines are told to trust it. The certificate that it signs lives in
//! memory only: a new one is made at each start and every [`RENEW`], so that
//! it always has the names asked for and never runs out.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How often a new certificate is made; each is good for 90 days.
pub(crate) const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
    write(folder, key, &pair.serialize_pem(), 0o600)?;
    write(folder, certificate, &authority.pem(), 0o644)
}

/// Writes a file that appears whole or not at all.
fn write(folder: &Path, path: &Path, content: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
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

/// TLS with a certificate and its key.
///
/// # Errors
/// They don't belong together.
pub(crate) fn config(
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

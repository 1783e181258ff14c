//! TLS, and certificates of an authority of the server's own.
//!
//! The authority (`ca.pem`, `ca-key.pem`) is made once and kept, since hosts
//! trust it: for the server's names alone, so that its key is good for no other
//! server. The certificate that it signs lives in
//! memory only: a new one is made at each start and every [`RENEW`], so that
//! it always has the names asked for and never runs out.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{RootCertStore, ServerConfig};
use tracing::warn;
use url::Host;

use crate::certificate;
use cli::Failure;

use cli::whole_file::WholeFile;

/// How often a new certificate is made; each is good for 90 days.
pub(crate) const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A certificate authority of the server's own.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// The authority kept in `folder`; if there is none, a new one that vouches for
    /// `names` alone.
    ///
    /// # Errors
    /// It can't be read or written.
    pub(crate) fn open(folder: &Path, names: &[String]) -> Result<Self> {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        if !certificate.exists() {
            make(folder, &certificate, &key, names)
                .with_context(|| format!("cannot make an authority in {}", folder.display()))?;
        }
        let open = || {
            let pem = fs::read_to_string(&certificate)?;
            let key = KeyPair::from_pem(&fs::read_to_string(&key)?)?;
            anyhow::Ok(Self {
                issuer: Issuer::from_ca_cert_pem(&pem, key)?,
                certificate: CertificateDer::from_pem_slice(pem.as_bytes())?,
                pem,
            })
        };
        let authority = open().with_context(|| {
            format!("cannot use the authority in {} and {}", certificate.display(), key.display())
        })?;
        if !certificate::has_name_constraints(&authority.certificate)? {
            warn!(
                "the authority {} can vouch for any server, because it was made without name \
                 constraints; to have a new one made, move {} away, start again, and give the \
                 new ca.pem to the hosts",
                certificate.display(),
                folder.display()
            );
        }
        Ok(authority)
    }

    /// Its certificate, PEM, as it is in the file.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// TLS with a new certificate for `names`: host names and addresses.
    ///
    /// # Errors
    /// A name can't stand in a certificate, or the authority does not vouch for it.
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
        self.verify(certificate.der()).map_err(|error| {
            Failure::Usage.because(format!(
                "the server's own authority cannot vouch for {} ({error})\n\
                 Use the names of the server's first start, or move the folder tls of the data \
                 folder away: the next start makes a new authority, and hosts have to trust its \
                 ca.pem.",
                names.join(", ")
            ))
        })?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        config(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// Checks that whoever trusts the authority accepts `certificate`.
    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &roots,
            &[],
            UnixTime::now(),
            algorithms.all,
        )
    }
}

/// A name for a certificate, as certificates have it: a host, an address, or `*.` and a host. An
/// authority that was made for something else would vouch for nothing.
///
/// # Errors
/// It is none.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let (wildcard, host) = match text.strip_prefix("*.") {
        Some(host) => ("*.", host),
        None => ("", text),
    };
    let refused = || "it is neither a host name nor an address".to_owned();
    let host = match Host::parse(host.trim_end_matches('.')) {
        Ok(Host::Domain(host)) => host,
        _ => return Err(refused()),
    };
    match ServerName::try_from(host.as_str()) {
        Ok(ServerName::DnsName(_)) => Ok(format!("{wildcard}{host}")),
        _ => Err(refused()),
    }
}

/// The subtrees that hold `names` and nothing else. What is not restricted at all would be
/// permitted: so are the addresses in an authority for host names.
fn constraints(names: &[String]) -> NameConstraints {
    let mut permitted: Vec<GeneralSubtree> = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
            }
            Err(_) => GeneralSubtree::DnsName(name.trim_start_matches("*.").to_owned()),
        })
        .collect();
    let has = |is: fn(&GeneralSubtree) -> bool| permitted.iter().any(is);
    let has_address = has(|one| matches!(one, GeneralSubtree::IpAddress(_)));
    if !has(|one| matches!(one, GeneralSubtree::DnsName(_))) {
        // No host has this one (RFC 6761).
        permitted.push(GeneralSubtree::DnsName("invalid".to_owned()));
    }
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let all = all.map(|all| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(all, 0)));
    let excluded_subtrees = if has_address { Vec::new() } else { all.to_vec() };
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees }
}

fn make(folder: &Path, certificate: &Path, key: &Path, names: &[String]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // Two authorities of one name would be taken for each other where both are
    // trusted, after the data folder was replaced for example.
    let name = format!("scalr-server authority {}", hex::encode(rand::random::<[u8; 4]>()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.name_constraints = Some(constraints(names));
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
        let names = ["pools.example.com".to_owned(), "127.0.0.1".to_owned()];
        let first = Authority::open(folder.path(), &names).unwrap();
        let second = Authority::open(folder.path(), &[]).unwrap();
        assert_eq!(first.certificate, second.certificate);
        first.config(&names).unwrap();
        let mode = fs::metadata(folder.path().join("ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    #[test]
    fn an_authority_vouches_for_the_names_that_it_was_made_for_alone() {
        for (own, others) in [
            ("pools.example.com", ["other.example.com", "192.0.2.1", "2001:db8::1"]),
            ("192.0.2.1", ["192.0.2.2", "pools.example.com", "2001:db8::1"]),
            ("2001:db8::1", ["2001:db8::2", "pools.example.com", "192.0.2.1"]),
            ("*.example.com", ["example.org", "192.0.2.1", "2001:db8::1"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::open(folder.path(), &[own.to_owned()]).unwrap();
            authority.config(&[own.to_owned()]).unwrap();
            for other in others {
                let error = authority.config(&[own.to_owned(), other.to_owned()]).unwrap_err();
                assert_eq!(Failure::of(&error), Failure::Usage);
                assert!(error.to_string().contains("NameConstraintViolation"), "{other}: {error}");
            }
        }
    }

    #[test]
    fn names_are_written_as_certificates_have_them() {
        for (given, expected) in [
            ("Pools.Example.COM", "pools.example.com"),
            ("pools.example.com.", "pools.example.com"),
            ("*.Example.com", "*.example.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            let name = name(given).unwrap();
            assert_eq!(name, expected);
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::open(folder.path(), std::slice::from_ref(&name)).unwrap();
            authority.config(&[name]).unwrap();
        }
        for wrong in ["", "*", "*.*.example.com", "a b", "https://a.example", "a..b", "*.192.0.2.1"]
        {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_authority_without_constraints_is_used_on() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&pair).unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.path().join("ca-key.pem"), pair.serialize_pem()).unwrap();
        let names = ["pools.example.com".to_owned()];
        Authority::open(folder.path(), &names).unwrap().config(&names).unwrap();
    }
}

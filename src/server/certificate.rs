//! Whether agents accept the server's certificate. They are stricter than curl: what they
//! refuse always ends the start, and what they refuse for now, or under one name, is a
//! warning.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// How long before its end a certificate is a warning, in days.
const SOON: i64 = 14;

/// sha1WithRSAEncryption (RFC 8017) and ecdsa-with-SHA1 (RFC 3279).
const SHA1_SIGNATURES: [&str; 2] = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];

const SECONDS_A_DAY: i64 = 24 * 60 * 60;

/// Checks that agents accept the first certificate of `chain`, and each of the others where
/// only the signature is concerned.
///
/// # Errors
/// They never do, whatever the time and whatever authority they trust.
pub(crate) fn check(chain: &[CertificateDer<'_>]) -> Result<()> {
    let Some(first) = chain.first() else { bail!("it has no certificate") };
    let certificate = parse(first)?;
    if certificate.basic_constraints()?.is_some_and(|constraints| constraints.value.ca) {
        bail!(
            "it is an authority's certificate (CA:TRUE), which agents refuse as a server's\n\
             Issue a server certificate with that authority, or use --tls-self-signed."
        );
    }
    if certificate.subject_alternative_name()?.is_none() {
        bail!(
            "it has no subject alternative name, and agents don't read the common name\n\
             Have it issued again, with the server's name as a subject alternative name."
        );
    }
    if let Some(usage) = certificate.extended_key_usage()?
        && !usage.value.server_auth
        && !usage.value.any
    {
        bail!(
            "its extended key usage does not include serverAuth\n\
             Have it issued again, as a server certificate."
        );
    }
    for one in chain {
        let one = parse(one)?;
        // A root's signature of itself counts for nobody.
        let is_root = one.issuer() == one.subject() && chain.len() > 1;
        let algorithm = one.signature_algorithm.algorithm.to_id_string();
        if !is_root && SHA1_SIGNATURES.contains(&algorithm.as_str()) {
            bail!(
                "the certificate of {} has a SHA-1 signature, which agents refuse\n\
                 Have it issued again, with SHA-256.",
                one.subject()
            );
        }
    }
    ParsedCertificate::try_from(first).context("agents cannot read it")?;
    Ok(())
}

/// What an operator has to do something about, at `now`; `host` is that of the server's URL.
pub(crate) fn warnings(chain: &[CertificateDer<'_>], host: &str, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for one in chain {
        let Ok(one) = parse(one) else { continue };
        let (from, to) =
            (one.validity().not_before.timestamp(), one.validity().not_after.timestamp());
        let (name, now) = (one.subject(), now.as_second());
        let days = (to - now) / SECONDS_A_DAY;
        if now > to {
            warnings.push(format!("the certificate of {name} has expired: agents refuse it"));
        } else if now < from {
            warnings.push(format!("the certificate of {name} is not valid yet: agents refuse it"));
        } else if days < SOON {
            warnings.push(format!("the certificate of {name} expires in {days} days"));
        }
    }
    if let (Some(first), Ok(name)) = (chain.first(), ServerName::try_from(host)) {
        let parsed = ParsedCertificate::try_from(first);
        if parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_err()) {
            warnings.push(format!(
                "the certificate is not for {host}, the host of --url: agents refuse it there"
            ));
        }
    }
    warnings
}

/// Whether an authority vouches for certain names alone.
///
/// # Errors
/// It is no certificate.
pub(crate) fn has_name_constraints(authority: &CertificateDer<'_>) -> Result<bool> {
    Ok(parse(authority)?.name_constraints()?.is_some())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    let (_, certificate) = X509Certificate::from_der(der).context("cannot parse a certificate")?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::new(["pools.example.com".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 3, 1);
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        vec![certificate.der().clone()]
    }

    fn refusal(change: impl FnOnce(&mut CertificateParams)) -> String {
        check(&certificate(change)).unwrap_err().to_string()
    }

    #[test]
    fn certificates_that_agents_always_refuse_are_errors() {
        check(&certificate(|_| {})).unwrap();
        let ca = refusal(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(ca.contains("CA:TRUE"), "{ca}");
        let no_name = refusal(|params| params.subject_alt_names.clear());
        assert!(no_name.contains("no subject alternative name"), "{no_name}");
        let client = refusal(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        assert!(client.contains("serverAuth"), "{client}");
    }

    #[test]
    fn sha1_signatures_are_errors() {
        // openssl req -x509 -newkey rsa:2048 -sha1 -days 3650 -nodes -subj /CN=pools.example.com
        //   -addext subjectAltName=DNS:pools.example.com -addext basicConstraints=CA:FALSE
        let pem = include_bytes!("tests/fixtures/sha1.pem");
        let der = <CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(pem);
        let error = check(&[der.unwrap()]).unwrap_err().to_string();
        assert!(error.contains("SHA-1 signature"), "{error}");
    }

    #[test]
    fn dates_and_names_are_warnings() {
        let chain = certificate(|_| {});
        let at = |date: &str, host| warnings(&chain, host, date.parse().unwrap()).join("; ");
        assert_eq!(at("2026-02-01T00:00:00Z", "pools.example.com"), "");
        assert!(at("2026-02-20T00:00:00Z", "pools.example.com").ends_with("expires in 9 days"));
        assert!(at("2026-03-02T00:00:00Z", "pools.example.com").contains("has expired"));
        assert!(at("2025-12-31T00:00:00Z", "pools.example.com").contains("not valid yet"));
        assert!(at("2026-02-01T00:00:00Z", "192.0.2.1").contains("not for 192.0.2.1"));
    }
}

//! `scalr-agent probe`: whether the agent reaches a server. `scalr-agent-setup check` asks:
//! it has no TLS of its own, and curl accepts certificates that the agent refuses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use url::Url;

use crate::client::in_one_line;
use crate::https::Https;
use crate::proxy_variables;

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server
    url: Url,
    /// A file of authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// Asks the server for its health. Each answer of HTTP is good.
///
/// # Errors
/// There is none, and why.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(&args.url, args.ca_cert.as_deref(), &proxy_variables::of_agent()))
}

async fn ask(url: &Url, ca_cert: Option<&Path>, proxy: &[(String, String)]) -> Result<()> {
    let http = Https::new(ca_cert, proxy)?.client().timeout(TIMEOUT);
    let http = http.build().context("cannot set up HTTPS")?;
    http.get(url.join("/healthz")?).send().await.map_err(in_one_line)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use axum::Router;
    use axum_server::tls_rustls::RustlsConfig;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// What the agent says of a server whose certificate `change` has changed.
    async fn said(change: impl FnOnce(&mut CertificateParams)) -> String {
        with_server(change, async |url, ca| ask(&url, Some(&ca), &[]).await).await
    }

    /// What `asks` says with the address of a server and the file of its authority.
    async fn with_server(
        change: impl FnOnce(&mut CertificateParams),
        asks: impl AsyncFnOnce(Url, PathBuf) -> Result<()>,
    ) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, &pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let tls = RustlsConfig::from_pem(pem.into(), key.serialize_pem().into()).await.unwrap();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        let server = tokio::spawn(server.serve(Router::new().into_make_service()));
        let asked = asks(url, ca).await;
        server.abort();
        asked.map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
    }

    fn expire(params: &mut CertificateParams) {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }

    #[tokio::test]
    async fn an_https_proxy_is_trusted_by_the_same_authorities_and_named_where_it_is_not() {
        let through = async |is_trusted: bool| {
            let asks = async |proxy: Url, ca: PathBuf| {
                let server = "https://pools.test".parse().unwrap();
                let proxy = [("HTTPS_PROXY".to_owned(), proxy.to_string())];
                ask(&server, is_trusted.then_some(ca.as_path()), &proxy).await
            };
            with_server(|_| {}, asks).await
        };
        let unknown = through(false).await;
        assert!(unknown.starts_with("the proxy's certificate is not accepted"), "{unknown}");
        let expired = with_server(expire, async |proxy, ca| {
            let proxy = [("HTTPS_PROXY".to_owned(), proxy.to_string())];
            ask(&"https://pools.test".parse().unwrap(), Some(&ca), &proxy).await
        });
        let expired = expired.await;
        assert!(expired.starts_with("the proxy's certificate is not valid now"), "{expired}");
        // It is no proxy, and answers CONNECT with 404.
        let known = through(true).await;
        assert!(known.starts_with("the proxy does not connect to pools.test"), "{known}");
    }

    #[tokio::test]
    async fn it_says_which_certificates_the_agent_refuses_and_why() {
        assert_eq!(said(|_| {}).await, "accepted");
        let ca = said(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).await;
        assert!(ca.contains("(CA:TRUE)"), "{ca}");
        let common_name = said(|params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        });
        let common_name = common_name.await;
        assert!(common_name.contains("subject alternative name"), "{common_name}");
        let other = CertificateParams::new(["192.0.2.1".to_owned()]).unwrap();
        let other = said(|params| params.subject_alt_names = other.subject_alt_names).await;
        assert!(other.contains("192.0.2.1"), "{other}");
        let expired = said(expire).await;
        assert!(expired.contains("this host's clock"), "{expired}");
    }
}

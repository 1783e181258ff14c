//! Certificates that are given to the server, and change while it runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use reqwest::{Certificate, Client, StatusCode};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Server, events, program};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate and its key, in files.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Writes a new certificate and its key; the certificate.
    fn renew(&self, change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let cert = params.self_signed(&key).unwrap().pem();
        fs::write(self.cert(), &cert).unwrap();
        fs::write(self.key(), key.serialize_pem()).unwrap();
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
        cert
    }

    async fn start(&self, cert: &str) -> Server {
        let (file, key) = (self.cert(), self.key());
        let options = ["--tls-cert", file.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        Server::start_bare(&options, Some(cert.as_bytes())).await
    }
}

/// Whether a new client that trusts this certificate alone gets an answer.
async fn serves(server: &Server, cert: &str) -> bool {
    let cert = Certificate::from_pem(cert.as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([cert]).no_proxy().build().unwrap();
    client.get(format!("{}/healthz", server.url)).send().await.is_ok()
}

#[tokio::test]
async fn sighup_loads_a_renewed_certificate_and_ends_no_poll() {
    let files = Files::new();
    let first = files.renew(|_| {});
    let mut server = files.start(&first).await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let polling = server.hold_poll(&agent, Vec::new()).await;
    let second = files.renew(|_| {});
    server.signal(Signal::SIGHUP);
    server.wait_for_log("certificate reloaded").await;
    assert!(serves(&server, &second).await);
    assert!(!serves(&server, &first).await);
    server.stop().await;
    assert_eq!(events(polling.await.unwrap()), []);
}

#[tokio::test]
async fn a_changed_certificate_is_loaded_without_a_signal() {
    let files = Files::new();
    let server = files.start(&files.renew(|_| {})).await;
    let second = files.renew(|_| {});
    server.wait_for_log("certificate reloaded").await;
    assert!(serves(&server, &second).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_earlier_certificate() {
    let files = Files::new();
    let first = files.renew(|_| {});
    let server = files.start(&first).await;
    let second = files.renew(|_| {});
    let half = &second[..second.len() / 2];
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    for (cert, key) in [(half, None), (second.as_str(), Some(&other_key)), ("", None)] {
        fs::write(files.cert(), cert).unwrap();
        if let Some(key) = key {
            fs::write(files.key(), key).unwrap();
        }
        stays(&server, &first).await;
    }
    fs::remove_file(files.cert()).unwrap();
    stays(&server, &first).await;
    assert!(server.log().contains("cannot read the certificate"), "{}", server.log());
}

/// What would hold up whoever opens it, or has no end.
#[tokio::test]
async fn what_is_no_regular_file_leaves_the_earlier_certificate_and_holds_nothing_up() {
    let files = Files::new();
    let first = files.renew(|_| {});
    let server = files.start(&first).await;
    for file in [files.cert(), files.key()] {
        let kept = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        stays(&server, &first).await;
        fs::remove_file(&file).unwrap();
        symlink("/dev/zero", &file).unwrap();
        stays(&server, &first).await;
        fs::remove_file(&file).unwrap();
        fs::File::create(&file).unwrap().set_len(10 << 30).unwrap();
        stays(&server, &first).await;
        fs::write(&file, kept).unwrap();
    }
    let second = files.renew(|_| {});
    server.signal(Signal::SIGHUP);
    let renewed = async {
        while !serves(&server, &second).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the new certificate is not served");
}

/// Has the server read its files again, and expects a warning and the earlier certificate.
async fn stays(server: &Server, earlier: &str) {
    let warnings = || server.log().matches("keeps the earlier certificate").count();
    let before = warnings();
    server.signal(Signal::SIGHUP);
    let warned = async {
        while warnings() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, warned).await.expect("no warning");
    assert!(serves(server, earlier).await);
}

/// As certbot renews: new files, and then one link after the other leads to them.
#[tokio::test]
async fn links_that_change_one_after_the_other_are_followed() {
    let files = Files::new();
    let first = files.renew(|_| {});
    for file in [files.cert(), files.key()] {
        let earlier = file.with_extension("1.pem");
        fs::rename(&file, &earlier).unwrap();
        symlink(&earlier, &file).unwrap();
    }
    let server = files.start(&first).await;
    let renewed = Files::new();
    let second = renewed.renew(|_| {});
    let lead = |link: &Path, to: &Path| {
        let new = link.with_extension("new");
        symlink(to, &new).unwrap();
        fs::rename(new, link).unwrap();
    };
    lead(&files.cert(), &renewed.cert());
    server.signal(Signal::SIGHUP);
    server.wait_for_log("keeps the earlier certificate").await;
    assert!(serves(&server, &first).await);
    lead(&files.key(), &renewed.key());
    server.wait_for_log("certificate reloaded").await;
    assert!(serves(&server, &second).await);
}

#[tokio::test]
async fn sighup_renews_the_certificate_of_the_servers_own_authority() {
    let server = Server::start().await;
    server.signal(Signal::SIGHUP);
    server.wait_for_log("certificate renewed").await;
    server.get("/environments").await;
}

#[tokio::test]
async fn the_servers_own_authority_can_be_fetched_and_compared() {
    let server = Server::start().await;
    let file = fs::read(server.data.join("tls/ca.pem")).unwrap();
    let answer = server.http.get(format!("{}/ca.pem", server.url)).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), file);
    let sha256 = hex::encode(Sha256::digest(&file));
    assert!(server.log().contains(&sha256), "{}", server.log());

    let plain = Server::start_bare(&["--insecure-http"], None).await;
    let none = plain.http.get(format!("{}/ca.pem", plain.url)).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_name_that_the_own_authority_does_not_permit_ends_the_start() {
    let mut server = Server::start().await;
    server.stop().await;
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--tls-self-signed", "--data"]);
    serve.arg(&server.data).args(["--url", "https://pools.example.com"]);
    let output = tokio::time::timeout(PATIENCE, serve.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot vouch for pools.example.com"), "{error}");
    assert!(error.contains("move the folder tls"), "{error}");
}

#[tokio::test]
async fn an_authoritys_certificate_is_refused_at_the_start() {
    let files = Files::new();
    files.renew(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(files.folder.path().join("x"));
    serve.arg("--tls-cert").arg(files.cert()).arg("--tls-key").arg(files.key());
    let output = tokio::time::timeout(PATIENCE, serve.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("it is an authority's certificate (CA:TRUE)"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_and_an_open_key_are_warnings() {
    let files = Files::new();
    let cert = files.renew(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    fs::set_permissions(files.key(), fs::Permissions::from_mode(0o644)).unwrap();
    let server = files.start(&cert).await;
    assert!(server.log().contains("has expired: agents refuse it"), "{}", server.log());
    assert!(server.log().contains("can read the key"), "{}", server.log());
}

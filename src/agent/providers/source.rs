//! Where the agent gets providers from: their registries, or a mirror.
//!
//! The protocols are Terraform's provider registry protocol and provider network
//! mirror protocol (its documentation, «Internals»).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use url::Url;

use super::provider::Provider;

/// How long an answer may take, and later the next piece of it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a package may take.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The largest document, in bytes.
const LARGEST_DOCUMENT: usize = 1024 * 1024;

/// Where providers are got from.
#[derive(Debug)]
pub(super) struct Source {
    http: reqwest::Client,
    origin: Origin,
}

/// Who is asked.
#[derive(Debug)]
pub(super) enum Origin {
    /// A provider's own registry, if it is one of these.
    Registries(Vec<String>),
    /// A mirror of all, whose address ends with `/`.
    Mirror(Url),
}

/// A provider's package, as the source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    url: Url,
    /// Any of these is right: `zh:` and the SHA-256 of the package, `h1:` and that
    /// of what is in it. None of a mirror that tells none.
    hashes: Vec<String>,
}

impl Package {
    /// Whether a downloaded package is the one that was meant, as far as its own
    /// hash tells.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn check_packed(&self, zh: &str) -> Result<()> {
        self.check("zh:", zh)
    }

    /// The same of what is in it: some mirrors tell this hash alone.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn check_unpacked(&self, h1: &str) -> Result<()> {
        if self.hashes.iter().any(|hash| hash.starts_with("zh:")) {
            return Ok(());
        }
        self.check("h1:", h1)
    }

    fn check(&self, scheme: &str, hash: &str) -> Result<()> {
        let mut known = self.hashes.iter().filter(|hash| hash.starts_with(scheme)).peekable();
        if known.peek().is_some() && known.all(|known| known != hash) {
            bail!("{} is another package than the one that was announced", shown(&self.url));
        }
        Ok(())
    }
}

impl Source {
    /// Providers from there; `http` has the proxy and the authorities to trust.
    ///
    /// # Errors
    /// HTTPS can't be set up.
    pub(super) fn new(http: reqwest::ClientBuilder, origin: Origin) -> Result<Self> {
        let http = http.https_only(true).read_timeout(TIMEOUT).build();
        Ok(Self { http: http.context("cannot set up HTTPS")?, origin })
    }

    /// Whether this source may be asked for `provider`.
    pub(super) fn serves(&self, provider: &Provider) -> bool {
        match &self.origin {
            Origin::Registries(hosts) => hosts.contains(&provider.host),
            Origin::Mirror(_) => true,
        }
    }

    /// Asks for the package of `provider` for `platform` (`linux_amd64`).
    ///
    /// # Errors
    /// The source can't be reached, does not have it or does not speak the
    /// protocol.
    pub(super) async fn find(&self, provider: &Provider, platform: &str) -> Result<Package> {
        match &self.origin {
            Origin::Registries(_) => self.in_registry(provider, platform).await,
            Origin::Mirror(mirror) => self.in_mirror(mirror, provider, platform).await,
        }
    }

    /// Downloads a package of at most `largest` bytes to a file in `folder`, and
    /// gives its hash, too: `zh:…`.
    ///
    /// # Errors
    /// It can't be got, is too large, or the disk is full. Nothing is left then.
    pub(super) async fn download(
        &self,
        package: &Package,
        folder: &Path,
        largest: u64,
    ) -> Result<(NamedTempFile, String)> {
        let cannot = || format!("cannot download {}", shown(&package.url));
        let request = self.http.get(package.url.clone()).timeout(DOWNLOAD_TIMEOUT);
        let mut response = send(request).await.with_context(cannot)?;
        let file = NamedTempFile::new_in(folder).with_context(cannot)?;
        let mut writing = tokio::fs::File::from_std(file.reopen().with_context(cannot)?);
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) =
            response.chunk().await.map_err(reqwest::Error::without_url).with_context(cannot)?
        {
            bytes += chunk.len() as u64;
            if bytes > largest {
                bail!("{}: it has more than {largest} bytes", cannot());
            }
            hash.update(&chunk);
            writing.write_all(&chunk).await.with_context(cannot)?;
        }
        writing.flush().await.with_context(cannot)?;
        Ok((file, format!("zh:{}", hex::encode(hash.finalize()))))
    }

    async fn in_registry(&self, provider: &Provider, platform: &str) -> Result<Package> {
        let host = &provider.host;
        let discovery = Url::parse(&format!("https://{host}/.well-known/terraform.json"))
            .with_context(|| format!("{host} is not the name of a host"))?;
        let (services, discovery): (Services, _) = self.document(discovery).await?;
        let base = services.providers.with_context(|| format!("{host} has no providers"))?;
        let (os, architecture) = platform.split_once('_').context("a platform has two parts")?;
        let path = format!(
            "{}/{}/{}/{}/download/{os}/{architecture}",
            base.trim_end_matches('/'),
            provider.namespace,
            provider.name,
            provider.version
        );
        let (found, asked): (Download, _) = self.document(join(&discovery, &path)?).await?;
        let hashes = vec![format!("zh:{}", found.shasum.to_ascii_lowercase())];
        Ok(Package { url: join(&asked, &found.download_url)?, hashes })
    }

    async fn in_mirror(
        &self,
        mirror: &Url,
        provider: &Provider,
        platform: &str,
    ) -> Result<Package> {
        let path = format!("{}/{}.json", provider.address(), provider.version);
        // Not `join`, which takes a host with a port for a scheme.
        let mut url = mirror.clone();
        url.set_path(&format!("{}{path}", mirror.path()));
        let (mut version, asked): (Version, _) = self.document(url).await?;
        let archive = version.archives.remove(platform);
        let archive =
            archive.with_context(|| format!("the mirror has no package for {platform}"))?;
        Ok(Package { url: join(&asked, &archive.url)?, hashes: archive.hashes })
    }

    /// A document, and the address that it came from after all redirections.
    async fn document<T: DeserializeOwned>(&self, url: Url) -> Result<(T, Url)> {
        let cannot = || format!("cannot get {}", shown(&url));
        let request = self.http.get(url.clone()).timeout(TIMEOUT);
        let mut response = send(request).await.with_context(cannot)?;
        let mut text = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(reqwest::Error::without_url).with_context(cannot)?
        {
            text.extend_from_slice(&chunk);
            if text.len() > LARGEST_DOCUMENT {
                bail!("{}: it has more than {LARGEST_DOCUMENT} bytes", cannot());
            }
        }
        let document = serde_json::from_slice(&text)
            .with_context(|| format!("{} does not speak the protocol of providers", shown(&url)))?;
        Ok((document, response.url().clone()))
    }
}

#[derive(Deserialize)]
struct Services {
    #[serde(rename = "providers.v1")]
    providers: Option<String>,
}

#[derive(Deserialize)]
struct Download {
    download_url: String,
    shasum: String,
}

#[derive(Deserialize)]
struct Version {
    archives: BTreeMap<String, ArchiveOf>,
}

#[derive(Deserialize)]
struct ArchiveOf {
    url: String,
    #[serde(default)]
    hashes: Vec<String>,
}

async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    let response = request.send().await.and_then(Response::error_for_status);
    response.map_err(reqwest::Error::without_url)
}

/// An address for a log: what stands behind `?` may be as good as a password.
fn shown(url: &Url) -> &str {
    &url[..url::Position::AfterPath]
}

fn join(base: &Url, path: &str) -> Result<Url> {
    base.join(path).with_context(|| format!("`{path}` of {} is not an address", shown(base)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;
    use axum_server::tls_rustls::RustlsConfig;
    use serde_json::json;
    use tower_http::services::ServeDir;

    use super::*;
    use crate::providers::package::{self, tests::package};

    const PLATFORM: &str = "linux_amd64";

    /// Something that is a registry, a mirror (below `/mirror/`) and a place for
    /// packages (`/files/`).
    struct Site {
        folder: tempfile::TempDir,
        host: String,
        certificate: reqwest::Certificate,
        server: tokio::task::JoinHandle<()>,
    }

    impl Site {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = reqwest::Certificate::from_pem(key.cert.pem().as_bytes()).unwrap();
            let _ = rustls::crypto::ring::default_provider().install_default();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let host = format!("localhost:{}", listener.local_addr().unwrap().port());
            let moved = || async { Redirect::to("/files/package.zip") };
            let files = Router::new()
                .route("/moved.zip", get(moved))
                .fallback_service(ServeDir::new(folder.path()));
            let (pem, key) = (key.cert.pem(), key.signing_key.serialize_pem());
            let tls = RustlsConfig::from_pem(pem.into(), key.into()).await.unwrap();
            let server = tokio::spawn(async move {
                let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
                server.serve(files.into_make_service()).await.unwrap();
            });
            Self { folder, host, certificate, server }
        }

        fn put(&self, path: &str, content: impl AsRef<[u8]>) {
            let file = self.folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }

        /// The registry's answers about null 3.2.1.
        fn put_registry(&self, download_url: &str, shasum: &str) {
            let services = json!({"providers.v1": "/v1/providers/"});
            self.put(".well-known/terraform.json", services.to_string());
            let download = json!({
                "protocols": ["5.0"], "os": "linux", "arch": "amd64",
                "filename": "package.zip", "download_url": download_url, "shasum": shasum,
            });
            let path = "v1/providers/hashicorp/null/3.2.1/download/linux/amd64";
            self.put(path, download.to_string());
        }

        fn put_mirror(&self, hashes: &[&str]) {
            let archive = json!({"url": "../../../../files/package.zip", "hashes": hashes});
            let version = json!({"archives": {PLATFORM: archive}});
            let path = format!("mirror/{}/3.2.1.json", self.provider().address());
            self.put(&path, version.to_string());
        }

        fn provider(&self) -> Provider {
            Provider::new(&format!("{}/hashicorp/null", self.host), "3.2.1").unwrap()
        }

        fn source(&self, origin: Origin) -> Source {
            let http =
                reqwest::Client::builder().no_proxy().tls_certs_only([self.certificate.clone()]);
            Source::new(http, origin).unwrap()
        }

        fn registry(&self) -> Source {
            self.source(Origin::Registries(vec![self.host.clone()]))
        }

        fn mirror(&self) -> Source {
            let url = format!("https://{}/mirror/", self.host);
            self.source(Origin::Mirror(url.parse().unwrap()))
        }

        /// What the agent does with a provider, as far as the engine's door.
        async fn get(&self, source: &Source, largest: u64) -> Result<Vec<u8>> {
            let provider = self.provider();
            let found = source.find(&provider, PLATFORM).await?;
            let folder = tempfile::tempdir().unwrap();
            let got = source.download(&found, folder.path(), largest).await;
            let left = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, usize::from(got.is_ok()), "a part is left");
            let (zip, zh) = got?;
            found.check_packed(&zh)?;
            let mut tar = Vec::new();
            let written = package::pack(zip.path(), &mut tar, &provider, PLATFORM)?;
            found.check_unpacked(&written.h1)?;
            Ok(tar)
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    fn zip() -> Vec<u8> {
        fs::read(package(&[("terraform-provider-null_v3.2.1", "program"), ("LICENSE", "text")]))
            .unwrap()
    }

    fn sum(content: &[u8]) -> String {
        hex::encode(Sha256::digest(content))
    }

    #[tokio::test]
    async fn a_registry_gives_what_it_announced() {
        let site = Site::start().await;
        site.put("files/package.zip", zip());
        for url in ["/files/package.zip", &format!("https://{}/moved.zip", site.host)] {
            site.put_registry(url, &sum(&zip()));
            let tar = site.get(&site.registry(), 1_000_000).await.unwrap();
            assert!(!tar.is_empty());
        }
    }

    #[tokio::test]
    async fn another_package_is_refused() {
        let site = Site::start().await;
        site.put("files/package.zip", zip());
        site.put_registry("/files/package.zip", &sum(b"another"));
        let error = site.get(&site.registry(), 1_000_000).await.unwrap_err().to_string();
        assert!(error.contains("another package than the one that was announced"), "{error}");
    }

    #[tokio::test]
    async fn what_is_too_large_or_not_encrypted_is_not_downloaded() {
        let site = Site::start().await;
        site.put("files/package.zip", zip());
        site.put_registry("/files/package.zip", &sum(&zip()));
        let error = site.get(&site.registry(), 100).await.unwrap_err().to_string();
        assert!(error.contains("it has more than 100 bytes"), "{error}");
        site.put_registry(&format!("http://{}/files/package.zip", site.host), &sum(&zip()));
        let error = format!("{:#}", site.get(&site.registry(), 1_000_000).await.unwrap_err());
        assert!(error.contains("cannot download http://"), "{error}");
    }

    #[tokio::test]
    async fn a_mirror_gives_it_by_whichever_hash_it_tells() {
        let site = Site::start().await;
        site.put("files/package.zip", zip());
        let zh = format!("zh:{}", sum(&zip()));
        // Of the same two files, by terraform 1.11.4.
        let h1 = "h1:Vypzp17fzsUPpwLADkkzLL/+WpbUYBRtRDe366Q5Q8w=";
        for hashes in [&[zh.as_str(), "h1:other"][..], &[h1], &["h1:other", h1], &[]] {
            site.put_mirror(hashes);
            site.get(&site.mirror(), 1_000_000).await.unwrap_or_else(|error| {
                panic!("{hashes:?}: {error:#}");
            });
        }
        for hashes in [&["zh:other", h1][..], &["h1:other"]] {
            site.put_mirror(hashes);
            site.get(&site.mirror(), 1_000_000).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_source_is_asked_for_what_it_serves_alone() {
        let site = Site::start().await;
        let registries = |host: &str| site.source(Origin::Registries(vec![host.to_owned()]));
        assert!(registries(&site.host).serves(&site.provider()));
        assert!(!registries("registry.terraform.io").serves(&site.provider()));
        assert!(site.mirror().serves(&site.provider()));
    }
}

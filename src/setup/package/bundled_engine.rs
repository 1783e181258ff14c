//! The container engines in the packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::stage::Stage;
use super::symbols::Processor;
use super::{progress, sha256};
use host::curl;

/// Systems whose packages bring the same engine along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Family {
    /// All but the other.
    Newer,
    /// Enterprise Linux 7 and its relatives, with systemd 219: newer engines are
    /// not made for them.
    El7,
}

impl Family {
    /// Each, in the order in which packages are made.
    pub(super) const ALL: [Self; 2] = [Self::Newer, Self::El7];

    /// Its name, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Newer => "newer systems",
            Self::El7 => "Enterprise Linux 7",
        }
    }
}

/// `pkg/engine.toml`: which engines the packages bring along.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    name: String,
    license: String,
    /// The files that are taken from an archive.
    pub programs: Vec<String>,
    newer: Bundle,
    el7: Bundle,
}

/// The engine of one family, with an archive for each processor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    version: String,
    archive: BTreeMap<String, Archive>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    url: String,
    sha256: String,
}

/// A package's description of its engine, in /usr/lib/scalr-agent/engine.toml.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    /// Whether it is the pinned one.
    pub pinned: bool,
    /// Its name and version; the archive's name if it is another than the pinned.
    pub source: String,
    /// The SPDX expression of its licence, if it is the pinned one.
    pub license: Option<String>,
    /// The SHA-256 of its archive, in hex.
    pub sha256: String,
}

impl Pin {
    /// Reads `pkg/engine.toml`.
    ///
    /// # Errors
    /// It can't be read or understood.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
    }

    /// Puts the engine's programs of a family into `stage`, from `archive` or else
    /// from the pinned one. Another family's are replaced: they have the same names.
    ///
    /// # Errors
    /// The archive can't be downloaded, is not the pinned one, or lacks a program.
    pub(super) fn stage(
        &self,
        family: Family,
        archive: Option<&Path>,
        processor: Processor,
        stage: &Stage,
    ) -> Result<Record> {
        let bundle = match family {
            Family::Newer => &self.newer,
            Family::El7 => &self.el7,
        };
        let pinned = bundle.archive.get(processor.name()).with_context(|| {
            format!("no engine is pinned for {} on {}", family.name(), processor.name())
        })?;
        let file = match archive {
            Some(file) => file.to_owned(),
            None => {
                let name = format!("{}-{}-{}.tgz", self.name, bundle.version, processor.name());
                pinned.download(&name, &cache()?, None)?
            }
        };
        let sum = sha256(&file)?;
        progress(&format!("Unpacking {}", file.display()));
        self.unpack(&file, &stage.path("usr/lib/scalr-agent/engine"))
            .with_context(|| format!("cannot unpack {}", file.display()))?;

        let record = if sum == pinned.sha256 {
            Record {
                pinned: true,
                source: format!("{} {}", self.name, bundle.version),
                license: Some(self.license.clone()),
                sha256: sum,
            }
        } else {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Record { pinned: false, source: name, license: None, sha256: sum }
        };
        stage.write("usr/lib/scalr-agent/engine.toml", toml::to_string(&record)?)?;
        Ok(record)
    }

    /// Takes our programs, by name, out of an archive; nothing else gets written.
    fn unpack(&self, archive: &Path, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut missing: BTreeSet<&str> = self.programs.iter().map(String::as_str).collect();
        let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(archive)?));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if entry.header().entry_type().is_file() && missing.remove(name) {
                entry.unpack(folder.join(name))?;
            }
        }
        if !missing.is_empty() {
            let missing: Vec<&str> = missing.into_iter().collect();
            bail!("it lacks {}", missing.join(", "));
        }
        Ok(())
    }
}

impl Archive {
    /// The archive, from the cache `folder` if it is there under `name` and whole.
    /// Resumes an interrupted download.
    fn download(&self, name: &str, folder: &Path, ca_cert: Option<&Path>) -> Result<PathBuf> {
        let file = folder.join(name);
        if file.is_file() && sha256(&file)? == self.sha256 {
            return Ok(file);
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{name}.part"));
        let part = fs::File::options().append(true).create(true).open(&path);
        let part = part.with_context(|| format!("cannot write {}", path.display()))?;
        // Two at once would write into each other's.
        part.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        if sha256(&path)? != self.sha256 {
            progress(&format!("Downloading {}", self.url));
            curl::download(&self.url, &path, ca_cert, std::io::stderr().is_terminal()).context(
                "cannot download the engine; run this again to go on with it, take an archive \
                 from disk with --engine-archive, or leave it out with --engine none",
            )?;
        }
        let sum = sha256(&path)?;
        if sum != self.sha256 {
            // Going on with it would never make it right.
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            bail!(
                "{} is not what pkg/engine.toml says: its SHA-256 is {sum}, not {}",
                self.url,
                self.sha256
            );
        }
        fs::rename(&path, &file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

impl Record {
    /// The warning about an engine that is not the one pinned for `family`.
    pub(super) fn warning(&self, family: Family) -> Option<String> {
        (!self.pinned).then(|| {
            format!(
                "the engine for {} is {} (SHA-256 {}), not the one that pkg/engine.toml pins",
                family.name(),
                self.source,
                self.sha256
            )
        })
    }
}

fn cache() -> Result<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("scalr-agent/engine"))
        .context("neither XDG_CACHE_HOME nor HOME is set: there is no folder for downloads")
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pin() -> Pin {
        toml::from_str(include_str!("../../../pkg/engine.toml")).unwrap()
    }

    fn archive(names: &[&str]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar =
            tar::Builder::new(GzEncoder::new(file.reopen().unwrap(), Compression::fast()));
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, b"hi".as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        file
    }

    #[test]
    fn just_the_programs_are_taken() {
        let pin = pin();
        let mut names: Vec<String> =
            pin.programs.iter().map(|program| format!("docker/{program}")).collect();
        names.push("docker/surprise".into());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let folder = tempfile::tempdir().unwrap();
        pin.unpack(archive(&names).path(), folder.path()).unwrap();
        let mut found: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let mut wanted = pin.programs.clone();
        wanted.sort();
        assert_eq!(found, wanted);
    }

    #[test]
    fn each_family_has_its_engine_for_each_processor() {
        let pin = pin();
        assert_eq!(pin.el7.version, "26.1.4", "the last that Docker made for it");
        for bundle in [&pin.newer, &pin.el7] {
            for processor in [Processor::X86_64, Processor::Aarch64] {
                let archive = &bundle.archive[processor.name()];
                let end = format!("/{}/docker-{}.tgz", processor.name(), bundle.version);
                assert!(archive.url.ends_with(&end), "{}", archive.url);
                assert_eq!(archive.sha256.len(), 64, "{}", archive.url);
            }
        }
    }

    #[test]
    fn an_engine_takes_the_others_place_and_says_which_it_is() {
        let mut pin = pin();
        let names: Vec<String> = pin.programs.iter().map(|name| format!("docker/{name}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let file = archive(&names);
        let sum = sha256(file.path()).unwrap();
        pin.el7.archive.get_mut("x86_64").unwrap().sha256.clone_from(&sum);
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::empty(&folder.path().join("root")).unwrap();
        let dockerd = stage.path("usr/lib/scalr-agent/engine/dockerd");
        for (family, source) in [
            (Family::El7, "docker 26.1.4".to_owned()),
            // For the others it is not the pinned one.
            (Family::Newer, file.path().file_name().unwrap().to_string_lossy().into_owned()),
        ] {
            let record = pin.stage(family, Some(file.path()), Processor::X86_64, &stage).unwrap();
            assert_eq!((record.source, record.sha256), (source.clone(), sum.clone()));
            let recorded =
                fs::read_to_string(stage.path("usr/lib/scalr-agent/engine.toml")).unwrap();
            assert!(recorded.contains(&format!("source = \"{source}\"")), "{recorded}");
            assert_eq!(fs::read(&dockerd).unwrap(), b"hi");
            fs::write(&dockerd, "another").unwrap();
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["docker/dockerd", "docker/docker", "docker/runc", "docker/containerd"];
        let error = pin().unpack(archive(&names).path(), folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it lacks containerd-shim-runc-v2, ctr, docker-init, docker-proxy"
        );
    }
}

#[cfg(test)]
mod downloads {
    use std::sync::{Arc, Mutex};

    use axum::extract::Request;
    use axum::middleware::Next;
    use axum_server::tls_rustls::RustlsConfig;
    use tower_http::services::ServeDir;

    use super::*;

    /// A web server with one file, and what parts of it were asked for.
    struct Site {
        folder: tempfile::TempDir,
        port: u16,
        ranges: Arc<Mutex<Vec<String>>>,
        _runtime: tokio::runtime::Runtime,
    }

    impl Site {
        fn with(content: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("engine.tgz"), content).unwrap();
            let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(folder.path().join("ca.pem"), key.cert.pem()).unwrap();
            let _ = rustls::crypto::ring::default_provider().install_default();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            let ranges = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&ranges);
            let watch = move |request: Request, next: Next| {
                let range = request.headers().get("range").and_then(|range| range.to_str().ok());
                seen.lock().unwrap().push(range.unwrap_or("all").to_owned());
                next.run(request)
            };
            let files = axum::Router::new()
                .fallback_service(ServeDir::new(folder.path()))
                .layer(axum::middleware::from_fn(watch));
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.spawn(async move {
                let (certificate, key) = (key.cert.pem(), key.signing_key.serialize_pem());
                let tls = RustlsConfig::from_pem(certificate.into(), key.into()).await.unwrap();
                let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
                server.serve(files.into_make_service()).await.unwrap();
            });
            Self { folder, port, ranges, _runtime: runtime }
        }

        fn download(&self, cache: &Path, sha256: String) -> Result<PathBuf> {
            let url = format!("https://localhost:{}/engine.tgz", self.port);
            let ca = self.folder.path().join("ca.pem");
            Archive { url, sha256 }.download("engine.tgz", cache, Some(&ca))
        }

        fn ranges(&self) -> Vec<String> {
            self.ranges.lock().unwrap().clone()
        }
    }

    fn sum(content: &[u8]) -> String {
        use sha2::Digest as _;
        hex::encode(sha2::Sha256::digest(content))
    }

    #[test]
    fn what_is_there_is_not_downloaded_again() {
        let site = Site::with(b"an engine");
        let cache = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let file = site.download(cache.path(), sum(b"an engine")).unwrap();
            assert_eq!(fs::read(file).unwrap(), b"an engine");
        }
        assert_eq!(site.ranges(), ["all"]);
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "no part is left");
    }

    #[test]
    fn what_was_interrupted_is_gone_on_with() {
        let site = Site::with(b"an engine");
        let cache = tempfile::tempdir().unwrap();
        let file = site.download(cache.path(), sum(b"an engine")).unwrap();
        let part = PathBuf::from(format!("{}.part", file.display()));
        fs::remove_file(&file).unwrap();
        fs::write(&part, "an ").unwrap();
        assert_eq!(site.download(cache.path(), sum(b"an engine")).unwrap(), file);
        assert_eq!(fs::read(file).unwrap(), b"an engine");
        assert_eq!(site.ranges(), ["all", "bytes=3-"]);
    }

    #[test]
    fn another_file_than_the_pinned_one_is_refused_and_not_kept() {
        let site = Site::with(b"another");
        let cache = tempfile::tempdir().unwrap();
        let error = site.download(cache.path(), sum(b"an engine")).unwrap_err().to_string();
        assert!(error.contains(&sum(b"another")) && error.contains("engine.toml"), "{error}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }
}

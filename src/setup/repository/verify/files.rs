//! Where the files of a repository come from: a folder, or a server.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::TempDir;
use url::Url;

use super::super::KEY;
use cli::Failure;
use config::proxy;
use host::curl;

/// A repository's files.
pub(super) enum Files {
    /// In this folder.
    Folder(PathBuf),
    /// On a server, fetched when they are asked for.
    Server(Server),
}

/// A server that has a repository.
pub(super) struct Server {
    base: Url,
    /// The files that were fetched.
    cache: TempDir,
    proxy: Vec<(String, String)>,
    ca_cert: Option<PathBuf>,
}

impl Files {
    /// The repository in `folder`.
    ///
    /// # Errors
    /// The folder is not a repository.
    pub(super) fn of_folder(folder: &Path) -> Result<Self> {
        if !folder.join(KEY).is_file() {
            return Err(Failure::Usage.because(format!(
                "{} is not a repository made by scalr-agent-setup: it has no {KEY}",
                folder.display()
            )));
        }
        Ok(Self::Folder(folder.to_owned()))
    }

    /// The repository at `url`, or below its `/packages`; fetched with the proxy of
    /// our own environment.
    ///
    /// # Errors
    /// The server has no repository, or can't be reached.
    pub(super) fn of_server(url: &Url, ca_cert: Option<&Path>) -> Result<Self> {
        let mut server = Server {
            base: url.clone(),
            cache: tempfile::tempdir().context("cannot make a temporary folder")?,
            proxy: proxy::of_environment(),
            ca_cert: ca_cert.map(Path::to_owned),
        };
        let packages = server.url("packages");
        for base in [url.clone(), packages] {
            server.base = base;
            let found = server
                .find(KEY)
                .map_err(|error| Failure::DownloadFailed.because(format!("{error:#}")))?;
            if found.is_some() {
                return Ok(Self::Server(server));
            }
        }
        Err(Failure::Usage.because(format!(
            "no repository made by scalr-agent-setup at {url}: it has neither {KEY} nor packages/{KEY}"
        )))
    }

    /// The file at `path`, `None` if it isn't there.
    ///
    /// # Errors
    /// The path leads elsewhere, or the server doesn't tell.
    pub(super) fn find(&self, path: &str) -> Result<Option<PathBuf>> {
        if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("its path leads out of the repository");
        }
        match self {
            Self::Folder(folder) => Ok(Some(folder.join(path)).filter(|file| file.is_file())),
            Self::Server(server) => server.find(path),
        }
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// As [`Self::find`], and it isn't there.
    pub(super) fn get(&self, path: &str) -> Result<PathBuf> {
        self.find(path)?.ok_or_else(|| anyhow!("it is not there"))
    }

    /// Forgets a file that was fetched: packages are large.
    pub(super) fn done(&self, file: &Path) {
        if let Self::Server(_) = self {
            drop(fs::remove_file(file));
        }
    }

    /// Whether the repository has the part `part`, which these files belong to.
    ///
    /// # Errors
    /// The server doesn't tell.
    pub(super) fn has(&self, part: &str, files: &[&str]) -> Result<bool> {
        if let Self::Folder(folder) = self {
            return Ok(folder.join(part).is_dir());
        }
        for file in files {
            if self.find(&format!("{part}/{file}"))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Server {
    fn find(&self, path: &str) -> Result<Option<PathBuf>> {
        let file = self.cache.path().join(path);
        if file.is_file() {
            return Ok(Some(file));
        }
        fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        let url = self.url(path);
        // What the server says of an error is not the file.
        let part = file.with_added_extension("part");
        match curl::save(&url, &part, &self.proxy, self.ca_cert.as_deref())? {
            200 => {
                fs::rename(&part, &file)?;
                Ok(Some(file))
            }
            404 | 410 => Ok(None),
            status => bail!("the server answers {status} to {url}"),
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        // It is https:// or http://, which have paths.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY), "").unwrap();
        let files = Files::of_folder(folder.path()).unwrap();
        for path in ["../secret", "/etc/passwd", "a/../../b"] {
            let error = files.find(path).unwrap_err();
            assert_eq!(error.to_string(), "its path leads out of the repository", "{path}");
        }
        assert!(files.get(KEY).is_ok());
        assert_eq!(files.get("apt").unwrap_err().to_string(), "it is not there");
    }

    #[test]
    fn a_path_is_put_to_the_address() {
        for base in ["https://pools.example.com/a", "https://pools.example.com/a/"] {
            let server = Server {
                base: base.parse().unwrap(),
                cache: tempfile::tempdir().unwrap(),
                proxy: Vec::new(),
                ca_cert: None,
            };
            let url = server.url("apt/a 1~rc%2.deb");
            assert_eq!(url.as_str(), "https://pools.example.com/a/apt/a%201~rc%252.deb");
        }
    }
}

//! The sources that the packages are made of.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::product::Product;
use cli::Failure;
use host::command::CommandExt as _;

/// A source checkout.
pub(super) struct Checkout {
    root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// The version in Cargo.toml, as dpkg and rpm order them: `1.0.0~rc.1`
    /// comes before `1.0.0`.
    pub version: String,
}

impl Checkout {
    /// The one we stand in.
    ///
    /// # Errors
    /// This is not a checkout, or cargo is missing.
    pub(super) fn find() -> Result<Self> {
        let text = Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .read()
            .context("packages are made in a source checkout of scalr-agent")?;
        let metadata: Metadata =
            serde_json::from_str(&text).context("cannot understand `cargo metadata`")?;
        let has_the_agent = |package: &Package| {
            package.targets.iter().any(|target| target.name == Product::Agent.name())
        };
        let package = metadata.packages.into_iter().find(has_the_agent).ok_or_else(|| {
            Failure::Usage.because("this is not a source checkout of scalr-agent")
        })?;
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            version: package.version.replacen('-', "~", 1),
        })
    }

    /// A file of the sources.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of the sources.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The time, in seconds, that whatever is made of these sources is from:
    /// `SOURCE_DATE_EPOCH`, else that of the last commit, else that of the changelog.
    /// <https://reproducible-builds.org/specs/source-date-epoch/>
    ///
    /// # Errors
    /// The variable is no number; the changelog can't be read.
    pub(super) fn source_date(&self) -> Result<i64> {
        if let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") {
            return seconds.parse().map_err(|_| {
                Failure::Usage.because(format!("SOURCE_DATE_EPOCH is no number: {seconds}"))
            });
        }
        let commit = Command::new("git")
            .current_dir(&self.root)
            .args(["log", "-1", "--format=%ct"])
            .read()
            .ok();
        if let Some(seconds) = commit.and_then(|seconds| seconds.trim().parse().ok()) {
            return Ok(seconds);
        }
        let file = self.file("CHANGELOG.md");
        let metadata =
            fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(metadata.mtime())
    }

    /// Where the packages' files are put; the manifests name this folder.
    pub(super) fn stage(&self) -> PathBuf {
        self.file("target/package/root")
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    version: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

//! cargo-deb and cargo-generate-rpm, which make the packages out of the stage as
//! the manifests' `[package.metadata]` says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive_size;
use super::checkout::Checkout;
use super::product::Product;
use super::symbols::Processor;
use super::{DebCompression, Type};
use cli::Failure;
use host::command::CommandExt as _;

/// Checks that the programs which make these packages are there, before anything
/// takes time.
///
/// # Errors
/// One is missing; the message has the command that installs it.
pub(super) fn require_tools(types: &[Type]) -> Result<()> {
    for kind in types {
        let tool = tool(*kind);
        if which::which(tool).is_err() {
            return Err(Failure::NotInstalled.because(format!(
                "{tool} makes the {} and is not on PATH; install it: cargo install --locked {tool}",
                kind.name()
            )));
        }
    }
    Ok(())
}

/// The content of a package, for every format.
pub(super) struct Package<'a> {
    /// The sources, with the stage in them.
    pub checkout: &'a Checkout,
    /// Of what it is.
    pub product: Product,
    /// The part of the version that counts packagings of one and the same source.
    pub release: u32,
    /// What it is for.
    pub processor: Processor,
    /// Whether it has an engine.
    pub bundled: bool,
    /// How its deb is compressed.
    pub deb_compression: DebCompression,
    /// The time, in seconds, that its files and it itself are from.
    pub source_date: i64,
}

impl Package<'_> {
    /// Makes one package in `folder` and gives its path.
    ///
    /// # Errors
    /// The tool fails.
    pub(super) fn make(&self, kind: Type, folder: &Path) -> Result<PathBuf> {
        let (mut command, file) = match kind {
            Type::Deb => self.deb(folder),
            Type::Rpm => self.rpm(folder, &self.release.to_string()),
            Type::RpmEl7 => self.rpm(folder, &format!("{}.el7", self.release)),
        };
        if let Some(variant) = self.variant(kind) {
            command.args(["--variant", variant]);
        }
        // Both tools take the time of the package and of its files from it.
        command.env("SOURCE_DATE_EPOCH", self.source_date.to_string());
        command.arg("--output").arg(&file).current_dir(self.checkout.root());
        command.run().with_context(|| format!("cannot make the {}", kind.name()))?;
        if kind != Type::Deb {
            archive_size::add(&file)?;
        }
        Ok(file)
    }

    fn deb(&self, folder: &Path) -> (Command, PathBuf) {
        let version = format!("{}-{}", self.checkout.version, self.release);
        let mut command = Command::new("cargo");
        // Fast: the last percent of size takes minutes with an engine in it.
        command.args(["deb", "--package", self.product.crates()[0], "--no-build", "--no-strip"]);
        command.arg("--fast").args(self.deb_compression.options());
        command.args(["--target", self.processor.triple(), "--deb-version", &version]);
        let (name, processor) = (self.product.name(), self.processor.debian());
        (command, folder.join(format!("{name}_{version}_{processor}.deb")))
    }

    fn rpm(&self, folder: &Path, release: &str) -> (Command, PathBuf) {
        let version = &self.checkout.version;
        let mut command = Command::new("cargo");
        command.args(["generate-rpm", "--package", &format!("src/{}", self.product.crates()[0])]);
        // Their defaults, zstd and the builder's own libraries, are nothing that an
        // old host can install.
        command.args(["--payload-compress", "gzip", "--auto-req", "no"]);
        command.args(["--target", self.processor.triple(), "--arch", self.processor.name()]);
        command.args(["--set-metadata", &format!("version = {version:?}\nrelease = {release:?}")]);
        let (name, processor) = (self.product.name(), self.processor.name());
        (command, folder.join(format!("{name}-{version}-{release}.{processor}.rpm")))
    }

    /// Its variant in the manifest.
    fn variant(&self, kind: Type) -> Option<&'static str> {
        match (self.product, self.bundled, kind) {
            (Product::Server, ..) => None,
            (Product::Agent, false, _) => Some("no-engine"),
            (Product::Agent, true, Type::RpmEl7) => Some("el7"),
            (Product::Agent, true, _) => None,
        }
    }
}

impl DebCompression {
    /// cargo-deb's options for it, whose own gzip takes minutes for the last percent of size.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Xz => &["--compress-type", "xz"],
            Self::Gzip => &["--compress-type", "gz", "--compress-system"],
        }
    }
}

fn tool(kind: Type) -> &'static str {
    match kind {
        Type::Deb => "cargo-deb",
        Type::Rpm | Type::RpmEl7 => "cargo-generate-rpm",
    }
}

//! cargo-deb and cargo-generate-rpm, which make the packages out of the stage as
//! Cargo.toml's `[package.metadata]` says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Type;
use super::checkout::Checkout;
use super::symbols::Processor;
use crate::exit::Failure;
use crate::host::command::CommandExt as _;

/// The part of the version that counts packagings of one and the same source.
const RELEASE: &str = "1";

/// Checks that the programs which make these packages are there, before anything
/// takes time.
///
/// # Errors
/// One is missing; the message has the command that installs it.
pub fn require_tools(types: &[Type]) -> Result<()> {
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

/// Makes one package in `folder` and gives its path.
///
/// # Errors
/// The tool fails.
pub fn make(
    kind: Type,
    checkout: &Checkout,
    processor: Processor,
    bundled: bool,
    folder: &Path,
) -> Result<PathBuf> {
    let version = &checkout.version;
    let mut command = Command::new("cargo");
    command.current_dir(checkout.root());
    let file = match kind {
        Type::Deb => {
            let version = format!("{version}-{RELEASE}");
            let file = folder.join(format!("scalr-agent_{version}_{}.deb", processor.debian()));
            // Fast: the last percent of size takes minutes with an engine in it.
            command.args(["deb", "--no-build", "--no-strip", "--fast", "--compress-type", "xz"]);
            command.args(["--target", processor.triple(), "--deb-version", &version]);
            file
        }
        Type::Rpm => {
            let file =
                folder.join(format!("scalr-agent-{version}-{RELEASE}.{}.rpm", processor.name()));
            // Their defaults, zstd and the builder's own libraries, are nothing
            // that an old host can install.
            command.args(["generate-rpm", "--payload-compress", "gzip", "--auto-req", "no"]);
            command.args(["--target", processor.triple(), "--arch", processor.name()]);
            command
                .args(["--set-metadata", &format!("version = {version:?}\nrelease = {RELEASE:?}")]);
            file
        }
    };
    if !bundled {
        command.args(["--variant", "no-engine"]);
    }
    command.arg("--output").arg(&file);
    command.run().with_context(|| format!("cannot make the {}", kind.name()))?;
    Ok(file)
}

fn tool(kind: Type) -> &'static str {
    match kind {
        Type::Deb => "cargo-deb",
        Type::Rpm => "cargo-generate-rpm",
    }
}

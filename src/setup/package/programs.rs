//! The programs in the packages.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::checkout::Checkout;
use super::product::Product;
use super::progress;
use super::symbols::Processor;
use cli::Failure;
use host::command::CommandExt as _;

/// The programs of `product` in the folder of `first`, its first program.
///
/// # Errors
/// One of them is not there.
pub(super) fn beside(product: Product, first: &Path) -> Result<Vec<PathBuf>> {
    let folder = match first.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let names = product.programs();
    if first.file_name() != Some(names[0].as_ref()) {
        let beside = match names {
            [_, other] => format!(" with {other} beside it,"),
            _ => String::new(),
        };
        return Err(Failure::Usage.because(format!(
            "a file {} is needed,{beside} not {}",
            names[0],
            first.display()
        )));
    }
    let programs: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    for program in &programs {
        if !program.is_file() {
            return Err(Failure::Usage.because(format!("there is no {}", program.display())));
        }
    }
    Ok(programs)
}

/// Builds the programs for glibc 2.17, whatever this machine's is, and so that
/// they are the same wherever and whenever the same sources are built by the same
/// tools. zig has to be in the same folder, too: the start files that it compiles
/// name it in their debug lines, and the build id is of these as well.
///
/// # Errors
/// cargo-zigbuild or zig is missing, or building fails.
pub(super) fn build(
    checkout: &Checkout,
    product: Product,
    processor: Processor,
    source_date: i64,
) -> Result<Vec<PathBuf>> {
    if which::which("cargo-zigbuild").is_err() {
        return Err(Failure::NotInstalled.because(
            "cargo-zigbuild links the programs for old hosts and is not on PATH; install it \
             with zig: pip install cargo-zigbuild ziglang (in a venv whose bin is on PATH)",
        ));
    }
    let names = product.programs();
    progress(&format!("Building {} for glibc 2.17 (some minutes)", names.join(" and ")));
    let paths = folders_and_their_names(checkout)?;
    let rust: Vec<String> =
        paths.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c: Vec<String> =
        paths.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let triple = processor.triple();

    let mut command = Command::new("cargo");
    command.args(["zigbuild", "--profile", product.profile(), "--locked"]);
    for name in product.crates() {
        command.args(["--package", name]);
    }
    for name in names {
        command.args(["--bin", name]);
    }
    command
        .args(["--target", &format!("{triple}.2.17")])
        .arg("--config")
        .arg(format!("target.{triple}.rustflags = {}", toml::Value::from(rust)))
        .env(format!("CFLAGS_{}", triple.replace('-', "_")), c.join(" "))
        .env("SOURCE_DATE_EPOCH", source_date.to_string())
        // They would take precedence over the above.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(checkout.root());
    // cargo's own progress is better than any of ours.
    let status = command.status().with_context(|| format!("cannot run `{}`", command.line()))?;
    anyhow::ensure!(status.success(), "`{}` failed; see the lines above", command.line());
    let folder = checkout.target.join(triple).join(product.profile());
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// The folders of this machine whose names compilers write into programs, and what
/// stands there instead; of two that fit a file, the later one counts.
fn folders_and_their_names(checkout: &Checkout) -> Result<Vec<(String, String)>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let cargo = match env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let library = Command::new("rustc").args(["--print", "sysroot"]).read()?;
    let library = Path::new(library.trim()).join("lib/rustlib/src/rust");
    let version = Command::new("rustc").arg("-vV").read()?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("rustc does not say of which commit it is")?;
    Ok(vec![
        (text(&cargo)?, "/usr/src/cargo".to_owned()),
        (text(checkout.root())?, "/usr/src/scalr-agent".to_owned()),
        (text(&checkout.target)?, "/usr/src/scalr-agent/target".to_owned()),
        // As the library itself was built.
        (text(&library)?, format!("/rustc/{commit}")),
    ])
}

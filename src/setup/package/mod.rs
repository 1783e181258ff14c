//! `package`: makes the deb and the rpm of the agent from a source checkout.
//!
//! | file | does |
//! |---|---|
//! | [`checkout`] | finds the sources: their folder, version and build folder |
//! | [`programs`] | builds the two programs, or takes them from disk |
//! | [`symbols`] | which glibc and processor a program is for |
//! | [`engine`] | fetches the pinned engine, or takes an archive from disk |
//! | [`units`] | renders the units |
//! | [`formats`] | calls cargo-deb and cargo-generate-rpm |

mod checkout;
mod engine;
mod formats;
mod programs;
mod symbols;
mod units;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::checkout::Checkout;
use self::symbols::Processor;
use super::{Context, Format};

/// Make the agent's deb and rpm; run it in a source checkout
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  Build the programs for glibc 2.17 and package them with the pinned engine:
    scalr-agent-setup package
  Package programs that are built already, and an engine from disk:
    scalr-agent-setup package --agent ./scalr-agent --engine-archive docker.tgz")]
pub struct Args {
    /// Which packages to make
    #[arg(
        long = "type",
        value_name = "TYPES",
        value_enum,
        value_delimiter = ',',
        default_value = "deb,rpm"
    )]
    types: Vec<Type>,
    /// Whether a container engine comes along; without, the host's Docker is used
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// Take the engine from this archive instead of downloading the pinned one
    #[arg(long, value_name = "FILE")]
    engine_archive: Option<PathBuf>,
    /// Package this agent, and the scalr-agent-setup beside it, instead of
    /// building them
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// The processor to make packages for
    #[arg(long, value_name = "TRIPLE", value_enum, default_value_t)]
    target: Processor,
    /// Which packaging of this version it is: a higher one is an upgrade
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    release: u32,
    /// Put the packages into this directory
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    output: PathBuf,
}

/// A kind of package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Type {
    /// For dpkg and apt.
    Deb,
    /// For rpm, yum and dnf.
    Rpm,
}

/// Whether a container engine comes along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// In /usr/lib/scalr-agent/engine.
    #[default]
    Bundled,
    /// No.
    None,
}

/// What was made. Its JSON is the command's output.
#[derive(Debug, Serialize)]
struct Made {
    version: String,
    architecture: &'static str,
    engine: Option<engine::Record>,
    files: Vec<File>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct File {
    path: PathBuf,
    size: u64,
    sha256: String,
}

/// Runs `package`.
///
/// # Errors
/// This is no source checkout; a tool is missing; building fails; a program needs
/// a newer glibc than 2.17 or is for another processor; the engine can't be had.
pub fn run(context: &Context, args: &Args) -> Result<()> {
    let checkout = Checkout::find()?;
    formats::require_tools(&args.types)?;
    let stage = Stage::empty(&checkout.stage())?;
    let mut warnings = Vec::new();

    let programs = match &args.agent {
        Some(agent) => programs::beside(agent)?,
        None => programs::build(&checkout, args.target)?,
    };
    symbols::require_all(programs.both(), args.target)
        .context("link the programs with `cargo zigbuild`, as this command does without --agent")?;
    for program in programs.both() {
        stage.add(program, "usr/bin", 0o755)?;
    }
    stage.add(&checkout.file("pkg/usr/lib/scalr-agent/maintain"), "usr/lib/scalr-agent", 0o755)?;

    let engine = match args.engine {
        Engine::None => None,
        Engine::Bundled => {
            let settings = checkout.file("pkg/usr/lib/scalr-agent/containerd.toml");
            stage.add(&settings, "usr/lib/scalr-agent", 0o644)?;
            let pin = engine::Pin::read(&checkout.file("pkg/engine.toml"))?;
            let record = pin.stage(args.engine_archive.as_deref(), args.target, &stage)?;
            warnings.extend(record.warning());
            let programs = pin.programs.iter();
            let programs = programs.map(|name| stage.path("usr/lib/scalr-agent/engine").join(name));
            match symbols::require_all(programs, args.target) {
                Err(error) if !record.pinned => warnings.push(format!("{error:#}")),
                result => result?,
            }
            Some(record)
        }
    };
    for (name, text) in units::render(engine.is_some())? {
        stage.write(&format!("usr/lib/systemd/system/{name}"), &text)?;
    }

    fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make {}", args.output.display()))?;
    let output = fs::canonicalize(&args.output)?;
    // Made beside where they go, so that each appears there whole.
    let work = tempfile::tempdir_in(&output)
        .with_context(|| format!("cannot write to {}", output.display()))?;
    let mut paths = Vec::new();
    for kind in &args.types {
        progress(&format!("Making the {}", kind.name()));
        let package = formats::Package {
            checkout: &checkout,
            release: args.release,
            processor: args.target,
            bundled: engine.is_some(),
        };
        let made = package.make(*kind, work.path())?;
        paths.push(publish(&made, &output)?);
    }
    let setup = work.path().join(format!("scalr-agent-setup-{}", args.target.name()));
    fs::copy(&programs.setup, &setup).context("cannot copy scalr-agent-setup")?;
    fs::set_permissions(&setup, fs::Permissions::from_mode(0o755))?;
    paths.push(publish(&setup, &output)?);

    let made = Made {
        version: checkout.version.clone(),
        architecture: args.target.name(),
        engine,
        files: paths.iter().map(|path| File::of(path)).collect::<Result<_>>()?,
        warnings,
    };
    made.print(context.format)
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Deb => "deb",
            Type::Rpm => "rpm",
        }
    }
}

impl File {
    fn of(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), size: fs::metadata(path)?.len(), sha256: sha256(path)? })
    }
}

impl Made {
    fn print(&self, format: Format) -> Result<()> {
        match format {
            Format::Json => println!("{}", serde_json::to_string_pretty(self)?),
            Format::Text => {
                for warning in &self.warnings {
                    eprintln!("warning: {warning}");
                }
                for file in &self.files {
                    println!("{}  {}", file.path.display(), megabytes(file.size));
                }
            }
        }
        Ok(())
    }
}

/// The folder that stands for `/` in the packages.
struct Stage {
    root: PathBuf,
}

impl Stage {
    /// `root`, with nothing in it.
    fn empty(root: &Path) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("cannot clear {}", root.display()))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Copies `file` into the folder `directory` of the packages.
    fn add(&self, file: &Path, directory: &str, mode: u32) -> Result<()> {
        let name = file.file_name().context("a file without a name")?;
        let target = self.path(directory).join(name);
        fs::create_dir_all(self.path(directory))?;
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Writes a file of the packages.
    fn write(&self, path: &str, text: &str) -> Result<()> {
        let target = self.path(path);
        fs::create_dir_all(target.parent().context("a path without a folder")?)?;
        fs::write(&target, text).with_context(|| format!("cannot write {}", target.display()))
    }
}

fn publish(file: &Path, directory: &Path) -> Result<PathBuf> {
    let target = directory.join(file.file_name().context("a file without a name")?);
    fs::rename(file, &target).with_context(|| format!("cannot write {}", target.display()))?;
    Ok(target)
}

/// The SHA-256 of a file, as hex digits.
pub(super) fn sha256(file: &Path) -> Result<String> {
    let data = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(hex::encode(Sha256::digest(data)))
}

/// Says what is going on, where it is out of the way of the result.
pub(super) fn progress(message: &str) {
    eprintln!("==> {message}");
}

/// `bytes` for people.
pub(super) fn megabytes(bytes: u64) -> String {
    // The precision that is lost is far beyond the one that is shown.
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}

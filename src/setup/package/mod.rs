//! `package`: makes the deb and the rpm of the agent, or those of the server, from
//! a source checkout. The same sources produce the same packages, byte for byte.
//!
//! | file | does |
//! |---|---|
//! | [`product`] | what there are packages of |
//! | [`checkout`] | finds the sources: their folder, version, date and build folder |
//! | [`programs`] | builds the programs, or takes them from disk |
//! | [`symbols`] | which glibc and processor a program is for |
//! | [`bundled_engine`] | fetches the engine pinned for a family of systems, or takes an archive from disk |
//! | [`unit_files`] | renders the units |
//! | [`documents`] | has the programs write their manual pages and completions |
//! | [`debug`] | strips the programs; their debug symbols go into an archive |
//! | [`crates`] | lists the crates that are in the programs |
//! | [`licenses`], [`changelog`], [`sbom`] | write what every package says of itself |
//! | [`stage`] | the folder that stands for `/` in a package |
//! | [`formats`] | calls cargo-deb and cargo-generate-rpm |
//! | [`archive_size`] | adds the tag to an rpm that old rpms draw their progress by |

mod archive_size;
mod bundled_engine;
mod changelog;
mod checkout;
mod crates;
mod debug;
mod documents;
mod formats;
mod licenses;
mod product;
mod programs;
mod sbom;
mod stage;
mod symbols;
mod unit_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::bundled_engine::Family;
use self::checkout::Checkout;
use self::product::Product;
use self::stage::Stage;
use self::symbols::Processor;
use crate::context::Context;
use crate::document;
use crate::output::Format;
use cli::Failure;
use cli::eprintln;

/// Make the deb and rpm of the agent or the server; run it in a source checkout
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  Build the programs for glibc 2.17 and package them with the pinned engines:
    scalr-agent-setup package
  Package programs that are built already, and an engine from disk:
    scalr-agent-setup package --agent ./scalr-agent --engine-archive docker.tgz
  Package the server:
    scalr-agent-setup package --package server

Enterprise Linux 7 and its relatives (Amazon Linux 2) have a separate rpm with
the last engine for them. Without an engine, and for the server, one rpm is for
all systems.

Beside the packages it puts their bills of materials (CycloneDX) and an archive
of debug symbols, to be unpacked in /. The same sources produce the same packages;
SOURCE_DATE_EPOCH, else the last commit, is their date.")]
pub(crate) struct Args {
    /// Which packages to make [default: all]
    #[arg(long = "type", value_name = "TYPES", value_enum, value_delimiter = ',')]
    types: Vec<Type>,
    /// What to package
    #[arg(long, value_enum, default_value_t)]
    package: Product,
    /// Whether a container engine comes along; without, the host's Docker is used
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// Take the engine of every package from this archive instead of downloading
    /// the pinned ones
    #[arg(long, value_name = "FILE")]
    engine_archive: Option<PathBuf>,
    /// Package this agent, and the scalr-agent-setup beside it, instead of
    /// building them
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Package this server instead of building it
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    server: Option<PathBuf>,
    /// The processor to make packages for
    #[arg(long, value_name = "TRIPLE", value_enum, default_value_t)]
    target: Processor,
    /// Which packaging of this version it is: a higher one is an upgrade
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    release: u32,
    /// How the deb is compressed
    #[arg(long, value_enum, default_value_t)]
    deb_compression: DebCompression,
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
    /// For those of Enterprise Linux 7 and its relatives.
    RpmEl7,
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

/// How a deb is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DebCompression {
    /// Small.
    #[default]
    Xz,
    /// A third larger, and unpacked in a third of the time.
    Gzip,
}

/// The new packages. Their JSON is the command's output.
#[derive(Debug, Serialize)]
struct Made {
    version: String,
    architecture: &'static str,
    /// By the systems that get them; none if the packages have no engine.
    engines: BTreeMap<Family, bundled_engine::Record>,
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
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    let checkout = Checkout::find()?;
    let product = args.product()?;
    let types = args.types(product)?;
    formats::require_tools(&types)?;
    let source_date = checkout.source_date()?;
    let built = match args.agent.as_ref().or(args.server.as_ref()) {
        Some(first) => programs::beside(product, first)?,
        None => programs::build(&checkout, product, args.target, source_date)?,
    };
    symbols::require_all(&built, args.target)
        .context("link the programs with `cargo zigbuild`, as this command does without --agent")?;

    fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make {}", args.output.display()))?;
    let output = fs::canonicalize(&args.output)?;
    // Made beside where they go, so that each appears there whole.
    let work = tempfile::tempdir_in(&output)
        .with_context(|| format!("cannot write to {}", output.display()))?;
    let stage = Stage::empty(&checkout.stage())?;
    let mut warnings = Vec::new();
    let mut made = Vec::new();
    let mut engines = BTreeMap::new();

    let bundled = args.has_engine(product);
    let name = product.name();
    let package = formats::Package {
        checkout: &checkout,
        product,
        release: args.release,
        processor: args.target,
        bundled,
        deb_compression: args.deb_compression,
        source_date,
    };
    let archive = format!("{name}-debug-{}-{}.tar.gz", checkout.version, args.target.name());
    let archive = work.path().join(archive);
    let families = by_family(&types);
    thread::scope(|scope| {
        // What takes one processor goes on beside what takes another.
        let mut listing = Some(scope.spawn(|| crates::of(&checkout, product, args.target)));
        let mut crates = Vec::new();
        let first = families.first().filter(|_| bundled).map(|(family, _)| *family);
        let mut unpacking = first.map(|family| {
            scope.spawn({
                let (checkout, stage) = (&checkout, &stage);
                move || stage_engine(family, args, checkout, stage)
            })
        });
        let symbols = stage_programs(&built, args.target, &stage, work.path(), &mut warnings)?;
        let symbols = scope.spawn({
            let archive = &archive;
            move || debug::pack(&symbols, archive, source_date.unsigned_abs())
        });
        match product {
            Product::Agent => stage_agent(&checkout, &stage, bundled)?,
            Product::Server => stage_server(&checkout, &stage)?,
        }
        // What names the engine is staged for each family, the rest just once.
        for (family, types) in families {
            if bundled {
                let (record, found) = match unpacking.take() {
                    Some(unpacking) => unpacking.join().expect("unpacking does not panic")?,
                    None => stage_engine(family, args, &checkout, &stage)?,
                };
                for warning in found {
                    // An archive from disk is every family's.
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
                engines.insert(family, record);
            }
            let engine = engines.get(&family);
            if let Some(listing) = listing.take() {
                crates = listing.join().expect("listing the crates does not panic")?;
            }
            stage_papers(product, args.release, &checkout, &stage, &crates, engine, source_date)?;
            let bill = sbom::document(name, &checkout.version, &crates, engine, source_date)?;
            stage.write(&format!("usr/share/doc/{name}/sbom.cdx.json"), &bill)?;
            for kind in types {
                progress(&format!("Making the {}", kind.name()));
                let file = package.make(kind, work.path())?;
                fs::write(format!("{}.cdx.json", file.display()), &bill)?;
                made.push(file.with_file_name(format!("{}.cdx.json", file_name(&file)?)));
                made.push(file);
            }
        }
        symbols.join().expect("packing does not panic")
    })?;
    if archive.exists() {
        made.push(archive);
    }
    if product == Product::Agent {
        let setup = work.path().join(format!("scalr-agent-setup-{}", args.target.name()));
        fs::copy(stage.path("usr/bin/scalr-agent-setup"), &setup)
            .context("cannot copy scalr-agent-setup")?;
        made.push(setup);
    }

    let paths = made.iter().map(|file| publish(file, &output)).collect::<Result<Vec<_>>>()?;
    let made = Made {
        version: checkout.version.clone(),
        architecture: args.target.name(),
        engines,
        files: paths.iter().map(|path| File::of(path)).collect::<Result<_>>()?,
        warnings,
    };
    made.print(context.format)
}

/// The types, by the systems that they are for.
fn by_family(types: &[Type]) -> Vec<(Family, Vec<Type>)> {
    let of = |family| types.iter().copied().filter(|kind| kind.family() == family).collect();
    let families = Family::ALL.map(|family| (family, of(family)));
    families.into_iter().filter(|(_, types): &(_, Vec<_>)| !types.is_empty()).collect()
}

/// Puts the programs, stripped, and their documents into the stage; gives their
/// debug symbols, which are put into `work`.
fn stage_programs(
    built: &[PathBuf],
    processor: Processor,
    stage: &Stage,
    work: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<debug::Symbols>> {
    let mut found = Vec::new();
    for program in built {
        stage.add(program, "usr/bin", 0o755)?;
        let name = file_name(program)?;
        let staged = stage.path("usr/bin").join(name);
        match debug::split(&staged, processor, work)? {
            Some(symbols) => found.push(symbols),
            None => warnings.push(format!("{name} has no debug symbols")),
        }
        documents::add(&staged, stage)?;
    }
    Ok(found)
}

/// The files of the agent's packages besides programs, for every engine.
fn stage_agent(checkout: &Checkout, stage: &Stage, bundled: bool) -> Result<()> {
    stage.add(&checkout.file("pkg/usr/lib/scalr-agent/maintain"), "usr/lib/scalr-agent", 0o755)?;
    let conf = "etc/needrestart/conf.d";
    stage.add(&checkout.file(&format!("pkg/{conf}/scalr-agent.conf")), conf, 0o644)?;
    if bundled {
        let settings = checkout.file("pkg/usr/lib/scalr-agent/containerd.toml");
        stage.add(&settings, "usr/lib/scalr-agent", 0o644)?;
    }
    for (name, text) in unit_files::render(bundled)? {
        stage.write(&format!("usr/lib/systemd/system/{name}"), &text)?;
    }
    Ok(())
}

/// The engine of the packages for a family, and warnings about it.
fn stage_engine(
    family: Family,
    args: &Args,
    checkout: &Checkout,
    stage: &Stage,
) -> Result<(bundled_engine::Record, Vec<String>)> {
    let pin = bundled_engine::Pin::read(&checkout.file("pkg/engine.toml"))?;
    let record = pin.stage(family, args.engine_archive.as_deref(), args.target, stage)?;
    let mut warnings = Vec::from_iter(record.warning(family));
    let programs = pin.programs.iter();
    let programs = programs.map(|name| stage.path("usr/lib/scalr-agent/engine").join(name));
    match symbols::require_all(programs, args.target) {
        Err(error) if !record.pinned => warnings.push(format!("{error:#}")),
        result => result?,
    }
    Ok((record, warnings))
}

/// The files of the server's packages besides its program.
fn stage_server(checkout: &Checkout, stage: &Stage) -> Result<()> {
    for (file, mode) in [
        ("etc/scalr-server/server.env", 0o644),
        ("usr/lib/scalr-server/maintain", 0o755),
        ("usr/lib/scalr-server/hardening-237.conf", 0o644),
        ("usr/lib/scalr-server/hardening-247.conf", 0o644),
        ("usr/lib/scalr-server/until-230.conf", 0o644),
        ("usr/lib/systemd/system/scalr-server.service", 0o644),
    ] {
        let folder = Path::new(file).parent().and_then(Path::to_str).context("no folder")?;
        stage.add(&checkout.file(&format!("pkg/server/{file}")), folder, mode)?;
    }
    // What reads its metrics.
    for file in ["prometheus/alerts.yml", "prometheus/scrape.yml", "grafana/scalr-server.json"] {
        let file = Path::new(file);
        let folder = file.parent().and_then(Path::to_str).context("no folder")?;
        let folder = format!("usr/share/scalr-server/{folder}");
        stage.add(&checkout.file(&format!("pkg/{}", file.display())), &folder, 0o644)?;
    }
    Ok(())
}

/// Changelog, copyright and licences, where dpkg's and rpm's people look for them;
/// Cargo.toml says which of them goes where.
fn stage_papers(
    product: Product,
    release: u32,
    checkout: &Checkout,
    stage: &Stage,
    crates: &[crates::Crate],
    engine: Option<&bundled_engine::Record>,
    source_date: i64,
) -> Result<()> {
    let name = product.name();
    let doc = format!("usr/share/doc/{name}");
    let changelog =
        fs::read_to_string(checkout.file("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
    let debian = changelog::debian(&changelog, name, release, source_date)?;
    stage.write_compressed(&format!("{doc}/changelog.Debian.gz"), debian)?;
    stage.write(&format!("{doc}/CHANGELOG.md"), changelog)?;
    stage.write(&format!("{doc}/copyright"), licenses::debian_copyright(name, engine))?;
    let others = licenses::third_party(name, crates, engine)?;
    stage.write_compressed(&format!("{doc}/third-party.txt.gz"), others)?;
    stage.add(&checkout.file("LICENSE"), &format!("usr/share/licenses/{name}"), 0o644)?;
    // The linter's known findings, each explained there.
    let known = fs::read(checkout.file(&format!("pkg/lintian/{name}")))
        .with_context(|| format!("cannot read pkg/lintian/{name}"))?;
    stage.write(&format!("usr/share/lintian/overrides/{name}"), known)
}

impl Args {
    /// The products to package.
    fn product(&self) -> Result<Product> {
        let product = match &self.server {
            Some(_) => Product::Server,
            None => self.package,
        };
        if product == Product::Server && (self.agent.is_some() || self.engine_archive.is_some()) {
            return Err(Failure::Usage.because("the server's packages have no agent and no engine"));
        }
        Ok(product)
    }

    /// Whether an engine is in its packages.
    fn has_engine(&self, product: Product) -> bool {
        product == Product::Agent && self.engine == Engine::Bundled
    }

    /// Which kinds of packages to make of it.
    fn types(&self, product: Product) -> Result<Vec<Type>> {
        let has_engine = self.has_engine(product);
        if !has_engine && self.types.contains(&Type::RpmEl7) {
            return Err(Failure::Usage.because(
                "there is an rpm-el7 only with an engine: without one, and for the server, the rpm \
                 is for Enterprise Linux 7, too (--type rpm)",
            ));
        }
        Ok(match self.types.as_slice() {
            [] if has_engine => vec![Type::Deb, Type::Rpm, Type::RpmEl7],
            [] => vec![Type::Deb, Type::Rpm],
            named => named.to_vec(),
        })
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Deb => "deb",
            Type::Rpm => "rpm",
            Type::RpmEl7 => "rpm for Enterprise Linux 7",
        }
    }

    /// The systems that it is for.
    fn family(self) -> Family {
        match self {
            Type::Deb | Type::Rpm => Family::Newer,
            Type::RpmEl7 => Family::El7,
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
            Format::Json => document::write(&serde_json::to_string_pretty(self)?)?,
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

fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a file without a name")
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn types(line: &str) -> Result<Vec<Type>> {
        let args = Cli::parse_from(["package"].into_iter().chain(line.split_whitespace())).args;
        args.types(args.product()?)
    }

    #[test]
    fn an_rpm_for_enterprise_linux_7_is_made_where_it_differs() {
        use Type::{Deb, Rpm, RpmEl7};
        for (line, made) in [
            ("", vec![Deb, Rpm, RpmEl7]),
            ("--type rpm-el7,deb", vec![RpmEl7, Deb]),
            ("--engine none", vec![Deb, Rpm]),
            ("--package server", vec![Deb, Rpm]),
            ("--server ./scalr-server --type rpm", vec![Rpm]),
        ] {
            assert_eq!(types(line).unwrap(), made, "{line}");
        }
        for line in ["--engine none --type rpm-el7", "--package server --type deb,rpm-el7"] {
            let error = types(line).unwrap_err();
            assert_eq!(Failure::of(&error), Failure::Usage);
            assert!(error.to_string().contains("--type rpm)"), "{error}");
        }
    }
}

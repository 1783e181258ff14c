//! `repository`: makes signed apt and yum repositories of the packages.
//!
//! ```text
//! OUTPUT/
//!   apt/                        suite `stable`, component `main`
//!   yum/
//!   yum-el7/                    what Enterprise Linux 7 takes
//!   scalr-agent.asc             the public keys, as apt and yum read them
//!   scalr-agent-setup-ARCH      the setup program alone, for the install script
//!   scalr-agent-setup-ARCH.sha256
//!   scalr-agent-setup-ARCH.asc  its signature
//!   .retired.json               files that no index names any more
//! ```

mod apt;
mod keys;
mod publication;
mod retired;
pub(crate) mod verify;
mod versions;
mod yum;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use self::keys::Keys;
use self::publication::Publication;
use self::versions::Package;
use crate::context::Context;
use crate::document;
use crate::output::Format;
use crate::package::sha256;
use cli::Failure;
use cli::eprintln;

/// The public keys' file.
const KEY: &str = "scalr-agent.asc";

/// How the names of setup programs begin.
const PROGRAM: &str = "scalr-agent-setup-";

/// Where `package` puts what it makes.
const PACKAGES: &str = "target/packages";

/// How long before it expires a key gets a warning.
const NOTICE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Make signed apt and yum repositories of packages
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
With newer packages, it keeps the older ones, so that a host can keep a version
or go back to it. Files that no index names any more stay for
another week: a client that has read an older index still finds them. A package
that is published is never replaced by another one of the same version.

The key must be an RSA key of your GnuPG keyring (Enterprise Linux 7 supports no
other kind). To make one:
    gpg --quick-generate-key 'Our packages <packages@example.com>' rsa4096 sign

Examples:
  Make the repositories of the packages that `scalr-agent-setup package` made:
    scalr-agent-setup repository --key packages@example.com
  Serve them:
    scalr-server serve … --packages target/repository
  Change to another key, with both for a while:
    scalr-agent-setup repository --key OLD --key NEW
  Check that every file in the indexes exists, is whole and is signed:
    scalr-agent-setup repository verify target/repository"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Take the packages from this directory [default: target/packages, if it is
    /// there]
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Put the repositories into this directory; an older one is replaced when
    /// the new one is complete
    #[arg(long, value_name = "DIR", default_value = "target/repository")]
    output: PathBuf,
    /// Sign with this key of your GnuPG keyring: an address, id or fingerprint;
    /// given twice, with both, and the packages with the first
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
    #[command(flatten)]
    terms: Terms,
}

/// What holds for the repositories.
#[derive(Debug, clap::Args)]
struct Terms {
    /// How many versions of each package and architecture to keep
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Let apt refuse an index older than this, so that an attacker cannot offer
    /// it for longer; build it again before
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    valid_days: Option<u16>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(verify::Args),
}

/// The new repository. Its JSON is the command's output.
#[derive(Debug, Serialize)]
struct Made {
    output: PathBuf,
    /// The files that are published for the first time.
    packages: Vec<String>,
    /// Those that stay.
    kept: Vec<String>,
    /// Those that no index names any more.
    left_out: Vec<String>,
    /// Fingerprints; the first signs the packages.
    keys: Vec<String>,
}

/// Runs `repository`.
///
/// # Errors
/// There are no packages; a tool is missing; a key can't sign or is of a kind
/// that old hosts don't know, or none of them is one that the repository was signed
/// with before; a package is published already with another content. The output is
/// then as it was. With `verify`: something is wrong with the repository.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    if let Some(Command::Verify(args)) = &args.command {
        return verify::run(context.format, args);
    }
    require_tools()?;
    let keys = Keys::find(&args.key)?;
    keys.require_trusted(&args.output.join(KEY))?;
    let new = New::find(args)?;
    say_which_end(&keys);
    let made = make(args, &keys, &new)?;
    match context.format {
        Format::Json => document::write(&serde_json::to_string_pretty(&made)?)?,
        Format::Text => made.print(),
    }
    Ok(())
}

/// Where a key ends, nothing more is installed.
fn say_which_end(keys: &Keys) {
    for key in keys.all() {
        let Some(end) = key.expires() else { continue };
        if end.duration_since(Timestamp::now()) < NOTICE {
            eprintln!(
                "note: the key {} expires on {}, and hosts install nothing after that; change to \
                 another one before, with both for a while: --key {0} --key NEW",
                key.fingerprint(),
                end.strftime("%Y-%m-%d")
            );
        }
    }
}

/// The packages to publish.
struct New {
    debs: Vec<PathBuf>,
    rpms: Vec<PathBuf>,
    programs: Vec<PathBuf>,
}

impl New {
    fn find(args: &Args) -> Result<Self> {
        let folder = match &args.packages {
            Some(folder) => folder.as_path(),
            None => Path::new(PACKAGES),
        };
        let mut new = Self { debs: Vec::new(), rpms: Vec::new(), programs: Vec::new() };
        // Signing again takes no new packages.
        if args.packages.is_some() || folder.is_dir() {
            new.debs = files(folder, |name| name.ends_with(".deb"))?;
            new.rpms = files(folder, |name| name.ends_with(".rpm") && !name.ends_with(".src.rpm"))?;
            new.programs = files(folder, is_program)?;
        }
        if new.debs.is_empty() && new.rpms.is_empty() && !args.output.join(KEY).is_file() {
            return Err(Failure::Usage.because(format!(
                "there are no packages in {}; make some with `scalr-agent-setup package`",
                folder.display()
            )));
        }
        Ok(new)
    }
}

fn make(args: &Args, keys: &Keys, new: &New) -> Result<Made> {
    let publication = Publication::begin(&args.output)?;
    let mut choices = vec![("", apt::make(&publication, &new.debs, keys, &args.terms)?)];
    let mut parts = vec![apt::PART];
    for part in yum::Part::ALL {
        let whose = if part == yum::Part::El7 { ", for Enterprise Linux 7" } else { "" };
        choices.push((whose, yum::make(part, &publication, &new.rpms, keys, &args.terms)?));
        parts.push(part.folder());
    }
    fs::write(publication.folder().join(KEY), keys.public()?).context("cannot write the key")?;
    publish_programs(&publication, &new.programs, keys)?;
    publication.keep_retired(&parts, Timestamp::now())?;
    eprintln!("Verifying");
    verify::inspect(publication.folder())?.require_sound()?;
    publication.publish()?;

    let mut made = Made {
        output: args.output.clone(),
        packages: Vec::new(),
        kept: Vec::new(),
        left_out: Vec::new(),
        keys: keys.fingerprints(),
    };
    for (whose, choice) in &choices {
        let described = |package: &Package| format!("{}{whose}", package.describe());
        let (published, first): (Vec<&Package>, Vec<&Package>) =
            choice.kept.iter().partition(|package| package.published.is_some());
        made.packages.extend(first.into_iter().map(described));
        made.kept.extend(published.into_iter().map(described));
        made.left_out.extend(choice.left_out.iter().map(described));
    }
    for program in &new.programs {
        made.packages.push(name(program)?);
    }
    Ok(made)
}

impl Made {
    fn print(&self) {
        println!("{}: signed with {}", self.output.display(), self.keys.join(" and "));
        for (what, packages) in
            [("new", &self.packages), ("kept", &self.kept), ("left out", &self.left_out)]
        {
            packages.iter().for_each(|package| println!("  {what:8}  {package}"));
        }
    }
}

/// Looks for the tools that this calls.
///
/// # Errors
/// One is missing; the error names the Debian package that has it.
fn require_tools() -> Result<()> {
    require(&[
        ("apt-ftparchive", "apt-utils"),
        ("createrepo_c", "createrepo-c"),
        ("dpkg-deb", "dpkg"),
        ("rpmsign", "rpm"),
    ])?;
    verify::require_tools()
}

fn require(tools: &[(&str, &str)]) -> Result<()> {
    for (tool, package) in tools {
        if which::which(tool).is_err() {
            return Err(Failure::NotInstalled.because(format!(
                "{tool} is needed for repositories; install it: apt-get install {package}"
            )));
        }
    }
    Ok(())
}

/// The files of a directory whose names are meant, in order.
fn files(directory: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_file() && is_meant(&name(&path)?) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name(file: &Path) -> Result<String> {
    let name = file.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("{} has a strange name", file.display()))?.to_owned())
}

/// The setup programs, each with its checksum as `sha256sum` writes it, and its
/// signature; those of other architectures stay.
fn publish_programs(publication: &Publication, programs: &[PathBuf], keys: &Keys) -> Result<()> {
    for program in programs {
        publication.copy(program, &name(program)?)?;
    }
    for program in files(publication.output(), is_program)? {
        let name = name(&program)?;
        if !publication.folder().join(&name).exists() {
            publication.link(&program, &name)?;
        }
    }
    for program in files(publication.folder(), is_program)? {
        let line = format!("{}  {}\n", sha256(&program)?, name(&program)?);
        fs::write(program.with_added_extension("sha256"), line)
            .context("cannot write a checksum")?;
        keys.sign(&program, &program.with_added_extension("asc"))?;
    }
    Ok(())
}

/// Whether this is a setup program, not what belongs to one.
fn is_program(name: &str) -> bool {
    name.starts_with(PROGRAM) && !name.ends_with(".sha256") && !name.ends_with(".asc")
}

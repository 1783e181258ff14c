//! `repository`: makes signed apt and yum repositories of the packages.
//!
//! ```text
//! OUTPUT/
//!   apt/                        suite `stable`, component `main`
//!   yum/
//!   scalr-agent.asc             the public key, as apt and yum read it
//!   scalr-agent-setup-ARCH      the setup program alone, for the install script
//!   scalr-agent-setup-ARCH.sha256
//! ```

mod apt;
mod keys;
pub mod verify;
mod yum;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::keys::Key;
use super::{Context, Format};
use crate::exit::Failure;

/// The public key's file.
const KEY: &str = "scalr-agent.asc";

/// How the names of setup programs begin.
const PROGRAM: &str = "scalr-agent-setup-";

/// Make signed apt and yum repositories of packages
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The key has to be an RSA key of your GnuPG keyring (Enterprise Linux 7 knows no
other kind). To make one:
    gpg --quick-generate-key 'Our packages <packages@example.com>' rsa4096 sign

Examples:
  Make the repositories of the packages that `scalr-agent-setup package` made:
    scalr-agent-setup repository --key packages@example.com
  Serve them:
    scalr-server serve … --packages target/repository
  See that all that their indexes name is there, whole and signed:
    scalr-agent-setup repository verify target/repository"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Take the packages from this directory
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    packages: PathBuf,
    /// Put the repositories into this directory; what is there is replaced at
    /// once, when all is ready
    #[arg(long, value_name = "DIR", default_value = "target/repository")]
    output: PathBuf,
    /// Sign with this key of your GnuPG keyring: an address, id or fingerprint
    #[arg(long, value_name = "KEY", required = true)]
    key: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check that all that the indexes name is there, whole and signed
    Verify {
        /// The directory that `repository` made
        directory: PathBuf,
    },
}

/// What was made. Its JSON is the command's output.
#[derive(Debug, Serialize)]
struct Made {
    output: PathBuf,
    packages: Vec<String>,
    key: String,
}

/// Runs `repository`.
///
/// # Errors
/// There are no packages; a tool is missing; the key can't sign or is of a kind
/// that old hosts don't know, or another one than the repository was signed with
/// before. The output is then as it was. With `verify`:
/// something is wrong with the repository.
pub fn run(context: &Context, args: &Args) -> Result<()> {
    require_tools()?;
    if let Some(Command::Verify { directory }) = &args.command {
        return verify::run(context.format, directory);
    }
    let key = Key::find(args.key.as_deref().context("no --key")?)?;
    key.require_same_as(&args.output.join(KEY))?;
    let debs = files(&args.packages, |name| name.ends_with(".deb"))?;
    let rpms = files(&args.packages, |name| name.ends_with(".rpm"))?;
    if debs.is_empty() && rpms.is_empty() {
        return Err(Failure::Usage.because(format!(
            "there are no packages in {}; make some with `scalr-agent-setup package`",
            args.packages.display()
        )));
    }
    let programs = files(&args.packages, |name| name.starts_with(PROGRAM))?;

    let parent = match args.output.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // Beside the output, so that it can take its place in one step.
    let new = tempfile::Builder::new()
        .prefix(".repository.")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    let root = new.path();

    if !debs.is_empty() {
        eprintln!("Making the apt repository");
        apt::make(&root.join("apt"), &debs, &key)?;
    }
    if !rpms.is_empty() {
        eprintln!("Making the yum repository");
        yum::make(&root.join("yum"), &rpms, &key)?;
    }
    fs::write(root.join(KEY), key.public()?).context("cannot write the key")?;
    for program in &programs {
        publish_program(program, root)?;
    }
    eprintln!("Verifying");
    verify::inspect(root)?.require_sound()?;
    readable(root)?;
    take_the_place_of(root, &args.output)?;

    let mut packages = Vec::new();
    for file in debs.iter().chain(&rpms).chain(&programs) {
        packages.push(name(file)?);
    }
    let made = Made { output: args.output.clone(), packages, key: key.fingerprint().to_owned() };
    match context.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&made)?),
        Format::Text => {
            println!("{}: signed with {}", made.output.display(), made.key);
            made.packages.iter().for_each(|package| println!("  {package}"));
        }
    }
    Ok(())
}

/// Looks for the tools that this calls.
///
/// # Errors
/// One is missing; the error names the Debian package that has it.
pub fn require_tools() -> Result<()> {
    for (tool, package) in [
        ("gpg", "gnupg"),
        ("gpgv", "gpgv"),
        ("apt-ftparchive", "apt-utils"),
        ("createrepo_c", "createrepo-c"),
        ("rpmsign", "rpm"),
        ("rpmkeys", "rpm"),
    ] {
        if which::which(tool).is_err() {
            return Err(Failure::NotInstalled.because(format!(
                "{tool} is needed to make repositories; install it: apt-get install {package}"
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

fn copy_into(directory: &Path, file: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let copy = directory.join(name(file)?);
    fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(copy)
}

/// The setup program with its checksum, as `sha256sum` writes it.
fn publish_program(program: &Path, root: &Path) -> Result<()> {
    let copy = copy_into(root, program)?;
    let content = fs::read(&copy).with_context(|| format!("cannot read {}", copy.display()))?;
    let name = name(program)?;
    let line = format!("{}  {name}\n", hex::encode(Sha256::digest(content)));
    fs::write(root.join(format!("{name}.sha256")), line).context("cannot write a checksum")
}

/// A web server reads it as another user; a temporary directory is private.
fn readable(root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            }
        }
    }
    Ok(())
}

/// Puts `new` where `output` is, in one step: no client ever sees half of it.
/// What was there is then at `new`, to be removed with it.
fn take_the_place_of(new: &Path, output: &Path) -> Result<()> {
    let describe = || format!("cannot replace {}", output.display());
    if output.exists() {
        if !output.join(KEY).is_file() && fs::read_dir(output)?.next().is_some() {
            bail!("{} is not a repository of ours, so it is not replaced", output.display());
        }
        return renameat_with(CWD, new, CWD, output, RenameFlags::EXCHANGE).with_context(describe);
    }
    fs::rename(new, output).with_context(describe)
}

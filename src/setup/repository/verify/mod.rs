//! `repository verify`: everything that an index names is there, whole and signed.

mod apt;
mod entry;
mod files;
mod yum;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use url::Url;

use self::files::Files;
use super::keys::{Verifier, require_strong_hashes};
use super::yum::Part;
use super::{KEY, PROGRAM, require};
use crate::document;
use crate::output::Format;
use crate::package::sha256;
use cli::{Failure, answer, eprintln};

/// The architectures of setup programs, as `uname -m` has them.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

/// Check that all that the indexes name is there, whole and signed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
From a server, everything is fetched, by the proxy that the environment names:
HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY (or in small letters).

Examples:
  scalr-agent-setup repository verify target/repository
  scalr-agent-setup repository verify https://pools.example.com

Exit codes: 0 all in order, 2 that is no repository, 3 something is not in
order, 6 a tool is missing, 8 the server can't be reached.")]
pub(crate) struct Args {
    /// The directory that `repository` made, or the address where it is served:
    /// a server's, or that of the directory itself
    #[arg(value_name = "DIR|URL")]
    repository: String,
    /// Trust these authorities instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

/// The result of a verification. Its JSON is the command's output.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// How many files were looked at.
    pub files: usize,
    problems: Vec<String>,
}

/// Runs `repository verify`.
///
/// # Errors
/// Something is wrong with the repository, or it can't be looked at.
pub(crate) fn run(format: Format, args: &Args) -> Result<()> {
    require_tools()?;
    let files = if args.repository.contains("://") {
        let url: Url = args.repository.parse().map_err(|error| {
            Failure::Usage.because(format!("{} is not a valid URL: {error}", args.repository))
        })?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(Failure::Usage.because(format!("{url} is neither https:// nor http://")));
        }
        eprintln!("Fetching everything from {url}");
        Files::of_server(&url, args.ca_cert.as_deref())?
    } else {
        Files::of_folder(Path::new(&args.repository))?
    };
    let mut findings = inspect_files(&files)?;
    if let Files::Folder(folder) = &files
        && let Err(error) = require_readable(folder)
    {
        findings.problems.push(format!("{error:#}"));
    }
    if format == Format::Json {
        document::write(&serde_json::to_string_pretty(&findings)?)?;
        return if findings.problems.is_empty() {
            Ok(())
        } else {
            Err(Failure::CheckFailed.into())
        };
    }
    findings.require_sound()?;
    answer!("{}: {} files, all there, whole and signed", args.repository, findings.files);
    Ok(())
}

/// Looks for the tools that this calls.
///
/// # Errors
/// One is missing; the error names the Debian package that has it.
pub(crate) fn require_tools() -> Result<()> {
    require(&[("gpg", "gnupg"), ("gpgv", "gpgv"), ("rpmkeys", "rpm")])
}

/// Looks at everything in the repository in `folder`.
///
/// # Errors
/// It is no repository, or a tool is missing.
pub(crate) fn inspect(folder: &Path) -> Result<Findings> {
    inspect_files(&Files::of_folder(folder)?)
}

fn inspect_files(files: &Files) -> Result<Findings> {
    let key = files.get(KEY)?;
    let mut findings = Findings::default();
    if findings.note(KEY, require_public(&key)).is_none() {
        return Ok(findings);
    }
    let signatures = Verifier::trusting(&key)?;
    let mut found = false;
    if files.has("apt", &["dists/stable/InRelease", "dists/stable/Release"])? {
        found = true;
        apt::inspect(files, &signatures, &mut findings);
    }
    for part in Part::ALL.map(Part::folder) {
        if files.has(part, &["repodata/repomd.xml", "repodata/repomd.xml.asc"])? {
            found = true;
            let rpms = super::yum::Verifier::trusting(&key)?;
            yum::inspect(part, files, &signatures, &rpms, &mut findings);
        }
    }
    if !found {
        findings.problems.push("there is neither apt nor yum".into());
    }
    for machine in MACHINES {
        let name = format!("{PROGRAM}{machine}");
        let sum = format!("{name}.sha256");
        if files.find(&name)?.is_some() || files.find(&sum)?.is_some() {
            findings.note(&name, require_program(files, &name, &sum, &signatures));
        }
    }
    Ok(findings)
}

impl Findings {
    /// Fails if something was wrong, and says what.
    ///
    /// # Errors
    /// Something was wrong.
    pub(crate) fn require_sound(&self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Failure::CheckFailed
            .because(format!("the repository is not in order:\n  {}", self.problems.join("\n  "))))
    }

    /// Counts a file, and notes what is wrong with it.
    fn note<T>(&mut self, name: &str, result: Result<T>) -> Option<T> {
        self.files += 1;
        result.map_err(|error| self.problems.push(format!("{name}: {error:#}"))).ok()
    }
}

/// Refuses a folder with something in it that a web server, as another user, cannot read;
/// names the first. What begins with a dot is not served.
fn require_readable(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let needed = if metadata.is_dir() { 0o005 } else { 0o004 };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & needed != needed {
        bail!(
            "{} has the mode {mode:04o}, so a web server cannot read it; run `chmod -R a+rX` on \
             the repository",
            path.display()
        );
    }
    if !metadata.is_dir() {
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    entries
        .iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .try_for_each(|entry| require_readable(&entry.path()))
}

/// Refuses a file that has a secret key in it, or one that hosts would refuse.
fn require_public(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    if text.contains("PRIVATE KEY") || !text.contains("BEGIN PGP PUBLIC KEY BLOCK") {
        bail!("it is not just a public key in ASCII");
    }
    require_strong_hashes(file)
}

/// The setup program is what the install script accepts, by its checksum and by its
/// signature.
fn require_program(files: &Files, name: &str, sum: &str, signatures: &Verifier) -> Result<()> {
    let program = files.get(name)?;
    let expected = files.get(sum).with_context(|| sum.to_owned())?;
    let expected = fs::read_to_string(expected)?;
    let found = sha256(&program)?;
    if expected.split_whitespace().next() != Some(&found) {
        bail!("its SHA-256 is {found}, which is not the one in {sum}");
    }
    let signature = format!("{name}.asc");
    let signed = files.get(&signature).and_then(|file| signatures.verify(&file, &program));
    files.done(&program);
    signed.context(signature)
}

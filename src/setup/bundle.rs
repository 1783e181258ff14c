//! `bundle`: all that a host without network is installed from, as one archive.
//!
//! ```text
//! scalr-agent-bundle/
//!   install.sh
//!   repository/      what `scalr-agent-setup repository` made
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tar::{Builder, Header, HeaderMode};

use crate::context::Context;
use crate::document;
use crate::output::Format;
use crate::package::sha256;
use crate::repository::verify;
use cli::eprintln;
use cli::whole_file::{WholeFile, folder_of};

/// The script that installs, the same that a server hands out.
const INSTALL: &str = include_str!("../../scripts/install.sh");

/// The folder that the archive unpacks to.
const FOLDER: &str = "scalr-agent-bundle";

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup bundle
  scalr-agent-setup bundle --repository /srv/repository --output /media/usb/agent.tar

Then, on the host:
  tar -xf agent.tar
  sudo sh scalr-agent-bundle/install.sh --offline scalr-agent-bundle \\
      --url https://pools.example.com --token-file FILE

The packages' own dependencies must be installed there already, or be in the
host's own repositories.";

/// Make one archive to install hosts without network from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The repositories that `scalr-agent-setup repository` made
    #[arg(long, value_name = "DIR", default_value = "target/repository")]
    repository: PathBuf,
    /// The archive; an older one is replaced when the new one is complete
    #[arg(long, value_name = "FILE", default_value = "target/scalr-agent-bundle.tar")]
    output: PathBuf,
}

/// The new bundle. Its JSON is the command's output.
#[derive(Debug, Serialize)]
struct Made {
    output: PathBuf,
    /// Of the archive, in hexadecimal.
    sha256: String,
    /// In bytes.
    size: u64,
}

/// Runs `bundle`.
///
/// # Errors
/// Something is wrong with the repository, a tool that verifies it is missing, or
/// the archive can't be written; then what was there stays.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    verify::require_tools()?;
    eprintln!("Verifying {}", args.repository.display());
    verify::inspect(&args.repository)?.require_sound()?;
    eprintln!("Packing");
    let made =
        make(args).with_context(|| format!("cannot make the bundle {}", args.output.display()))?;
    match context.format {
        Format::Json => document::write(&serde_json::to_string_pretty(&made)?)?,
        Format::Text => println!(
            "{}: {} MB, SHA-256 {}",
            made.output.display(),
            made.size / 1_000_000,
            made.sha256
        ),
    }
    Ok(())
}

fn make(args: &Args) -> Result<Made> {
    fs::create_dir_all(folder_of(&args.output))?;
    WholeFile::at(&args.output).mode(0o644).fill(|file| {
        let mut archive = Builder::new(file);
        // The same content makes the same archive, whoever packs it and when.
        archive.mode(HeaderMode::Deterministic);
        add_text(&mut archive, "install.sh", INSTALL)?;
        add_directory(&mut archive, &args.repository, &Path::new(FOLDER).join("repository"))?;
        archive.finish()?;
        Ok(())
    })?;
    Ok(Made {
        sha256: sha256(&args.output)?,
        size: fs::metadata(&args.output)?.len(),
        output: args.output.clone(),
    })
}

fn add_text<W: std::io::Write>(archive: &mut Builder<W>, name: &str, text: &str) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o755);
    Ok(archive.append_data(&mut header, Path::new(FOLDER).join(name), text.as_bytes())?)
}

/// Sorted, so that the order is not the file system's.
fn add_directory<W: std::io::Write>(
    archive: &mut Builder<W>,
    directory: &Path,
    name: &Path,
) -> Result<()> {
    archive.append_dir(name, directory)?;
    let mut entries = fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = name.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            add_directory(archive, &entry.path(), &name)?;
        } else {
            archive.append_path_with_name(entry.path(), name)?;
        }
    }
    Ok(())
}

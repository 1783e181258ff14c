//! The programs without their debug symbols, and these in an archive of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use object::{Object as _, ObjectSection as _};

use super::symbols::Processor;
use cli::Failure;
use host::command::CommandExt as _;

/// A program's debug symbols.
pub(super) struct Symbols {
    file: PathBuf,
    /// Where debuggers look for it, relative to `/`.
    path: String,
}

/// Takes the symbols out of `program` into a file in `folder`; none if it has none.
///
/// # Errors
/// There is no objcopy, or it fails; the program has no build id.
pub(super) fn split(
    program: &Path,
    processor: Processor,
    folder: &Path,
) -> Result<Option<Symbols>> {
    let name = program.file_name().context("a program without a name")?.to_string_lossy();
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let elf = object::File::parse(&*data)
        .with_context(|| format!("{} is no program", program.display()))?;
    let objcopy = objcopy(processor)?;
    let symbols = if elf.section_by_name(".debug_info").is_some_and(|section| section.size() > 0) {
        let id = elf.build_id()?.with_context(|| {
            format!("{name} has no build id, by which a debugger finds its symbols")
        })?;
        let id = hex::encode(id);
        let file = folder.join(format!("{name}.debug"));
        // Named by what it is of, not by where it is made.
        Command::new(&objcopy)
            .current_dir(folder)
            .arg("--only-keep-debug")
            .arg(fs::canonicalize(program)?)
            .arg(&file)
            .run()
            .with_context(|| format!("cannot take the debug symbols out of {name}"))?;
        let path = format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
        Some(Symbols { file, path })
    } else {
        None
    };
    Command::new(&objcopy)
        .arg("--strip-all")
        .arg(program)
        .run()
        .with_context(|| format!("cannot strip {name}"))?;
    Ok(symbols)
}

/// Writes an archive to be unpacked in `/`, the same for the same symbols; none if there are none.
///
/// # Errors
/// It can't be written.
pub(super) fn pack(symbols: &[Symbols], archive: &Path, source_date: u64) -> Result<()> {
    if symbols.is_empty() {
        return Ok(());
    }
    let file =
        fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    // As with the packages, the last percent of size takes most of the time.
    let gzip = GzBuilder::new().mtime(0).write(file, Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for one in symbols {
        let data = fs::read(&one.file)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(source_date);
        tar.append_data(&mut header, &one.path, data.as_slice())?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

/// binutils' objcopy, which is wherever a compiler is but knows this machine's
/// processor only; else LLVM's.
fn objcopy(processor: Processor) -> Result<PathBuf> {
    let (name, package) = match processor.name() == std::env::consts::ARCH {
        true => ("objcopy", "binutils"),
        false => ("llvm-objcopy", "llvm"),
    };
    which::which(name).map_err(|_| {
        Failure::NotInstalled.because(format!(
            "{name} takes the debug symbols out of the programs and is not on PATH; install {package}"
        ))
    })
}

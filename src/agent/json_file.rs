//! The small JSON files in the data folder: read whole, and replaced whole or not
//! at all.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// What is in `file`; none if there is no such file.
///
/// # Errors
/// The file can't be read, or is not such a value.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("cannot read {}", file.display()))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .with_context(|| format!("cannot understand {}", file.display()))
}

/// Replaces `file`. After a power cut it may be the old one.
///
/// # Errors
/// The folder can't be written to.
pub(crate) fn write<T: Serialize>(file: &Path, value: &T) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    replacement(file, value).and_then(|new| Ok(new.persist(file)?)).with_context(cannot)?;
    Ok(())
}

/// Replaces `file`, also for the time after a power cut.
///
/// # Errors
/// The folder can't be written to.
pub(crate) fn write_durably<T: Serialize>(file: &Path, value: &T) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let new = replacement(file, value).with_context(cannot)?;
    new.as_file().sync_all().with_context(cannot)?;
    new.persist(file).with_context(cannot)?;
    Ok(())
}

fn replacement<T: Serialize>(file: &Path, value: &T) -> Result<NamedTempFile> {
    let folder = file.parent().context("a file is in a folder")?;
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec(value)?)?;
    Ok(new)
}

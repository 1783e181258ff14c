//! The small JSON files in the data folder: read whole, and replaced whole or not
//! at all.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use cli::untrusted_file;
use cli::whole_file::WholeFile;

/// The largest file that is read, in bytes. Root reads the agent's, for `status`.
pub(crate) const LARGEST: u64 = 16 * 1024 * 1024;

/// What is in `file`; none if there is no such file.
///
/// # Errors
/// The file can't be read, or is not such a value.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match untrusted_file::read(file, LARGEST) {
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
    WholeFile::at(file).unsynced().write(serde_json::to_vec(value)?)
}

/// Replaces `file`, also for the time after a power cut.
///
/// # Errors
/// The folder can't be written to.
pub(crate) fn write_durably<T: Serialize>(file: &Path, value: &T) -> Result<()> {
    WholeFile::at(file).write(serde_json::to_vec(value)?)
}

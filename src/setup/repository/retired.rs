//! Files that no index names any more.
//!
//! They stay for a while: a client that has read an index still finds what that
//! names. Which ones, and since when, is written beside the repositories.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The record's file.
const FILE: &str = ".retired.json";

/// How long they stay. dnf believes an index for two days (`metadata_expire` in
/// dnf.conf(5)), yum for six hours, apt until the next update.
pub(super) const STAY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Since when each of them has been named by no index, by its path.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retired(BTreeMap<String, Timestamp>);

impl Retired {
    /// As the repository `root` has it.
    ///
    /// # Errors
    /// It can't be read or understood.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let file = root.join(FILE);
        match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("cannot understand {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Whether this one is retired.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Since when no index names `path`: `now` for one that is not recorded yet,
    /// `None` for one that has been kept for [`STAY`].
    pub(super) fn since(&self, path: &str, now: Timestamp) -> Option<Timestamp> {
        let since = self.0.get(path).copied().unwrap_or(now);
        (now.duration_since(since) < STAY).then_some(since)
    }

    pub(super) fn add(&mut self, path: String, since: Timestamp) {
        self.0.insert(path, since);
    }

    /// Writes the record into the repository `root`.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(root.join(FILE), text).context("cannot write the record of old files")
    }
}

/// The files of a part of `root`, as paths relative to `root`, in order; none if it
/// has no such part.
///
/// # Errors
/// A folder can't be read.
pub(super) fn files(root: &Path, part: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![part.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot read {folder}"))?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().ok();
            let path = format!("{folder}/{}", name.context("a file has a strange name")?);
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

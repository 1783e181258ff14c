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

use super::stage::Stage;

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
}

/// Takes over what the old repository has and the new one no longer names, for as
/// long as it stays, and records it.
///
/// # Errors
/// A file can't be linked or written.
pub(super) fn take_over(stage: &Stage, parts: &[&str], now: Timestamp) -> Result<()> {
    let mut retired = Retired::default();
    for part in parts {
        for path in files(stage.output(), part)? {
            let since = stage.retired.0.get(&path).copied().unwrap_or(now);
            if stage.folder().join(&path).exists() || now.duration_since(since) >= STAY {
                continue;
            }
            stage.link(&stage.output().join(&path), &path)?;
            retired.0.insert(path, since);
        }
    }
    let text = serde_json::to_string_pretty(&retired)? + "\n";
    fs::write(stage.folder().join(FILE), text).context("cannot write the record of old files")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_longer_named_stays_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("scalr-agent.asc"), "").unwrap();
        fs::create_dir_all(root.join("yum/packages")).unwrap();
        fs::write(root.join("yum/packages/a.rpm"), "a").unwrap();
        let publish = |now: Timestamp| {
            let stage = Stage::begin(root).unwrap();
            fs::create_dir(stage.folder().join("yum")).unwrap();
            take_over(&stage, &["yum"], now).unwrap();
            stage.publish().unwrap();
            files(root, "yum").unwrap()
        };
        let start = Timestamp::now();
        assert_eq!(publish(start), ["yum/packages/a.rpm"]);
        // Its term does not begin anew.
        assert_eq!(publish(start + SignedDuration::from_hours(100)), ["yum/packages/a.rpm"]);
        assert_eq!(Retired::read(root).unwrap().0["yum/packages/a.rpm"], start);
        assert!(publish(start + STAY).is_empty());
        assert_eq!(Retired::read(root).unwrap(), Retired::default());
    }
}

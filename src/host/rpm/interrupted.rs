//! What an interrupted rpm leaves of a package's files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::installed;
use crate::command::CommandExt as _;

/// Whether files of the package were written and it was not recorded, or recorded files are
/// missing or of another version. Changed settings and modes are an administrator's.
///
/// # Errors
/// rpm is missing, or its database can't be read.
pub(crate) fn is_incomplete(package: &str, own_paths: &[String]) -> Result<bool> {
    if installed(package)?.is_none() {
        return Ok(own_paths.iter().any(|path| is_begun(Path::new(path))));
    }
    // It fails where anything differs.
    let output = Command::new("rpm")
        .args(["--verify", "--nodeps", "--noscripts", package])
        .env("LC_ALL", "C")
        .probe()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(shows_another_file))
}

/// Removes what an interrupted rpm has unpacked beside the package's files.
///
/// # Errors
/// rpm is missing; one can't be removed.
pub(crate) fn remove_temporary_files(package: &str) -> Result<()> {
    if installed(package)?.is_none() {
        return Ok(());
    }
    let text = Command::new("rpm").args(["--query", "--list", package]).read()?;
    let files: BTreeSet<&Path> = text.lines().map(Path::new).collect();
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    for temporary in folders.into_iter().flat_map(temporary_files) {
        if files.contains(temporary.file.as_path()) {
            let path = temporary.path;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether there is a file at or below the path, or one that was to become it.
fn is_begun(path: &Path) -> bool {
    let has_entries = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    let is_unpacked = |folder| temporary_files(folder).any(|temporary| temporary.file == path);
    if path.is_dir() {
        has_entries()
    } else {
        path.exists() || path.parent().is_some_and(is_unpacked)
    }
}

/// A line such as `S.5....T.  c /etc/a.conf` or `missing     /usr/bin/a`.
fn shows_another_file(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (result, attribute) = (words.next().unwrap_or_default(), words.next());
    attribute != Some("c") && (result == "missing" || result.contains('5'))
}

/// What rpm unpacks a file as, before it renames it.
struct Temporary {
    path: PathBuf,
    file: PathBuf,
}

fn temporary_files(folder: &Path) -> impl Iterator<Item = Temporary> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let path = entry.path();
        let file = path.with_file_name(final_name(path.file_name()?.to_str()?)?);
        Some(Temporary { path, file })
    })
}

/// `dockerd;6b0b3d1c` becomes `dockerd`; the number is that of the transaction.
fn final_name(name: &str) -> Option<&str> {
    let (file, number) = name.rsplit_once(';')?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (number.len() == 8 && number.bytes().all(is_hex)).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_names_are_temporary() {
        assert_eq!(final_name("dockerd;6b0b3d1c"), Some("dockerd"));
        assert_eq!(final_name("a;b;6b0b3d1c"), Some("a;b"));
        for name in ["dockerd", "dockerd;", "dockerd;6b0b3d1", "dockerd;notes.md"] {
            assert_eq!(final_name(name), None, "{name}");
        }
    }

    #[test]
    fn settings_and_modes_may_differ_and_content_may_not() {
        assert!(shows_another_file("S.5....T.    /usr/bin/scalr-agent"));
        assert!(shows_another_file("missing     /usr/bin/scalr-agent"));
        for line in ["S.5....T.  c /etc/a.conf", ".M.......    /usr/bin/scalr-agent", ""] {
            assert!(!shows_another_file(line), "{line}");
        }
    }

    #[test]
    fn an_unpacked_file_is_a_begun_installation() {
        let tree = tempfile::tempdir().unwrap();
        let (program, library) = (tree.path().join("agent"), tree.path().join("library"));
        fs::create_dir(&library).unwrap();
        assert!(!is_begun(&program) && !is_begun(&library));
        fs::write(tree.path().join("agent;6b0b3d1c"), "").unwrap();
        assert!(is_begun(&program));
        fs::write(library.join("engine;6b0b3d1c"), "").unwrap();
        assert!(is_begun(&library));
    }
}

//! A configuration as the archive that is uploaded.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::Builder;
use walkdir::{DirEntry, WalkDir};

use cli::Failure;
use configuration::is_left_out;

/// The archive at `path`, or one of the folder there.
///
/// # Errors
/// There is nothing, or no configuration; it can't be read.
pub(super) fn open(path: &Path) -> Result<File> {
    let cannot = || format!("cannot read the configuration {}", path.display());
    let metadata = fs::metadata(path)
        .map_err(|error| Failure::Usage.because(format!("{}: {error}", cannot())))?;
    if !metadata.is_dir() {
        return File::open(path).with_context(cannot);
    }
    pack(path).with_context(|| format!("cannot pack the configuration {}", path.display()))
}

fn pack(folder: &Path) -> Result<File> {
    let file = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut archive = Builder::new(GzEncoder::new(BufWriter::new(file), Compression::fast()));
    archive.follow_symlinks(false);
    let mut has_configuration = false;
    let entries = WalkDir::new(folder).min_depth(1).sort_by_file_name().into_iter();
    for entry in entries.filter_entry(|entry| is_packed(folder, entry)) {
        let entry = entry?;
        let name = entry.path().strip_prefix(folder)?;
        archive.append_path_with_name(entry.path(), name)?;
        has_configuration |= is_terraform(name);
    }
    if !has_configuration {
        let text = format!("there is no .tf file in {} or below it", folder.display());
        return Err(Failure::Usage.because(text));
    }
    let mut content = archive.into_inner()?.finish()?;
    content.flush()?;
    Ok(content.into_inner().map_err(std::io::IntoInnerError::into_error)?)
}

/// What no run needs stays here: the history, and what Terraform wrote.
fn is_packed(folder: &Path, entry: &DirEntry) -> bool {
    let Ok(name) = entry.path().strip_prefix(folder) else { return true };
    entry.file_name() != ".git" && is_left_out(name, None).is_none()
}

fn is_terraform(name: &Path) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".tf") || name.ends_with(".tf.json")
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::os::unix::fs::symlink;

    use flate2::read::GzDecoder;
    use tar::Archive;

    use super::*;

    #[test]
    fn a_folder_is_packed_without_history_and_providers_and_links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["modules/net", ".git/objects", ".terraform/providers"] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("file.tf"), "").unwrap();
        }
        fs::write(root.join("main.tf"), "").unwrap();
        symlink("main.tf", root.join("link.tf")).unwrap();
        let mut file = open(root).unwrap();
        file.rewind().unwrap();
        let mut archive = Archive::new(GzDecoder::new(file));
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
            (name, entry.header().entry_type().is_symlink())
        });
        let expected = [
            ("link.tf", true),
            ("main.tf", false),
            ("modules", false),
            ("modules/net", false),
            ("modules/net/file.tf", false),
        ];
        assert_eq!(
            entries.collect::<Vec<_>>(),
            expected.map(|(name, is_link)| (name.to_owned(), is_link))
        );
    }

    #[test]
    fn a_folder_without_a_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("README.md"), "").unwrap();
        let error = open(folder.path()).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
        assert!(format!("{error:#}").contains("there is no .tf file"), "{error:#}");
        let error = open(&folder.path().join("nowhere")).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
    }
}

//! Files of an operator's choice, written whole or not at all.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    /// It stays, and the new one is not written.
    Keep,
}

/// Makes `file` hold what `fill` writes.
///
/// # Errors
/// Those of `fill`; the file can't be written, or is there and has to stay.
pub(crate) fn write(
    file: &Path,
    mode: u32,
    existing: Existing,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let new = tempfile::NamedTempFile::new_in(directory_of(file)).with_context(cannot)?;
    let (new, path) = new.into_parts();
    let mut new = BufWriter::new(new);
    fill(&mut new).with_context(cannot)?;
    new.flush().with_context(cannot)?;
    let new = new.get_ref();
    new.set_permissions(Permissions::from_mode(mode)).with_context(cannot)?;
    new.sync_all().with_context(cannot)?;
    match existing {
        Existing::Replace => path.persist(file),
        Existing::Keep => path.persist_noclobber(file),
    }
    .with_context(cannot)
}

/// The directory that a file is in.
pub(crate) fn directory_of(file: &Path) -> &Path {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let text = |text: &'static str| move |new: &mut BufWriter<File>| Ok(write!(new, "{text}")?);
        write(&file, 0o640, Existing::Replace, text("one")).unwrap();
        let failing = |new: &mut BufWriter<File>| {
            write!(new, "half")?;
            bail!("no more")
        };
        write(&file, 0o600, Existing::Replace, failing).unwrap_err();
        write(&file, 0o600, Existing::Keep, text("two")).unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        write(&file, 0o644, Existing::Replace, text("two")).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
    }
}

//! The files that go into a task's container, as one tar archive: on disk, since a
//! configuration and its plan may be larger than the agent is to be.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

use crate::context::RunUser;
use configuration::{Kind, Reader};

/// The most that is given of a file of the configuration, in bytes.
const MAX_WANTED: u64 = 1024 * 1024;

/// An archive whose files all belong to the run's user.
pub(super) struct Archive {
    builder: Builder<File>,
    root: &'static str,
    user: RunUser,
}

impl Archive {
    /// An empty archive for files of `user`, to be unpacked at `root`; the paths
    /// of its files are absolute all the same. It is a file in `directory` that has no
    /// name, and so is gone when nobody has it open any more.
    ///
    /// # Errors
    /// The file can't be made.
    pub(super) fn new(directory: &Path, root: &'static str, user: RunUser) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .with_context(|| format!("cannot write in {}", directory.display()))?;
        Ok(Self { builder: Builder::new(file), root, user })
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// The path does not fit.
    pub(super) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.add(EntryType::Directory, Path::new(path), mode, 0, io::empty())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The path does not fit, or the disk is full.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(EntryType::Regular, Path::new(path), mode, content.len() as u64, content)
    }

    /// Adds a file that may be large, from where it is read next.
    ///
    /// # Errors
    /// As [`Archive::file`], or it can't be read.
    pub(super) fn large_file(&mut self, path: &str, mode: u32, mut content: &File) -> Result<()> {
        let size = content.metadata()?.len() - content.stream_position()?;
        self.add(EntryType::Regular, Path::new(path), mode, size, content)
    }

    /// Adds the files of `configuration` below `directory`, and gives what the file has
    /// that comes to be at `wanted`, unless that is large.
    ///
    /// # Errors
    /// It is no configuration, or the disk is full.
    pub(super) fn configuration(
        &mut self,
        directory: &str,
        configuration: &mut Reader<impl Read>,
        wanted: &Path,
    ) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        while let Some(entry) = configuration.next()? {
            let path = Path::new(directory).join(&entry.path);
            // What the run's user can't read or write is of no use to the run.
            match entry.kind {
                Kind::Directory => {
                    let mode = entry.mode | 0o700;
                    self.add(EntryType::Directory, &path, mode, 0, io::empty())?;
                }
                Kind::File { size } => {
                    let (kind, mode) = (EntryType::Regular, entry.mode | 0o600);
                    if path == wanted && size <= MAX_WANTED {
                        let mut content = Vec::new();
                        configuration.read_to_end(&mut content)?;
                        self.add(kind, &path, mode, size, content.as_slice())?;
                        found = Some(content);
                    } else {
                        self.add(kind, &path, mode, size, &mut *configuration)?;
                    }
                }
                Kind::HardLink { target } => {
                    let target = Path::new(directory).join(target);
                    self.link(EntryType::Link, &path, self.relative(&target)?)?;
                }
                Kind::Symlink { target } => self.link(EntryType::Symlink, &path, &target)?,
            }
        }
        Ok(found)
    }

    /// The archive, to be read from its start.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn finish(self) -> Result<File> {
        let mut file = self.builder.into_inner().context("cannot end the archive")?;
        file.rewind().context("cannot end the archive")?;
        Ok(file)
    }

    fn add(
        &mut self,
        kind: EntryType,
        path: &Path,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<()> {
        let mut header = self.header(kind, mode);
        header.set_size(size);
        let path = self.relative(path)?;
        self.builder
            .append_data(&mut header, path, content)
            .with_context(|| format!("cannot pack {}", path.display()))
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.user.uid.into());
        header.set_gid(self.user.gid.into());
        header.set_mtime(0);
        header
    }

    fn link(&mut self, kind: EntryType, path: &Path, target: &Path) -> Result<()> {
        let mut header = self.header(kind, 0o777);
        header.set_size(0);
        let path = self.relative(path)?;
        self.builder
            .append_link(&mut header, path, target)
            .with_context(|| format!("cannot pack {}", path.display()))
    }

    /// A path in an archive is relative to where that is unpacked.
    fn relative<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        path.strip_prefix(self.root)
            .with_context(|| format!("{} is not in {}", path.display(), self.root))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn archive(user: RunUser) -> Archive {
        Archive::new(&std::env::temp_dir(), "/scalr", user).unwrap()
    }

    /// A configuration of entries that have no content but their own name.
    fn packed(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, kind, target) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4444);
            if kind.is_file() {
                header.set_size(name.len() as u64);
                builder.append_data(&mut header, name, name.as_bytes()).unwrap();
            } else {
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn everything_goes_below_the_directory_and_belongs_to_the_user() {
        let mut archive = archive(RunUser { uid: 990, gid: 991 });
        let (file, link, hard) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
        let configuration = packed(&[
            ("main.tf", file, ""),
            ("modules/net/x.tf", file, ""),
            ("modules/link", link, "../main.tf"),
            ("hard", hard, "modules/net/x.tf"),
        ]);
        let mut reader = Reader::new(configuration.as_slice(), None).unwrap();
        let wanted = Path::new("/scalr/work/main.tf");
        let found = archive.configuration("/scalr/work", &mut reader, wanted).unwrap();
        assert_eq!(found, Some(b"main.tf".to_vec()));
        let mut unpacked = tar::Archive::new(archive.finish().unwrap());
        let mut found = BTreeMap::new();
        for entry in unpacked.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (990, 991));
            let target = entry.link_name().unwrap().map(|target| target.display().to_string());
            let what = (header.entry_type(), header.mode().unwrap(), target);
            found.insert(entry.path().unwrap().display().to_string(), what);
        }
        let expected = [
            ("work/hard", (hard, 0o777, Some("work/modules/net/x.tf"))),
            ("work/main.tf", (file, 0o644, None)),
            ("work/modules", (EntryType::Directory, 0o755, None)),
            ("work/modules/link", (link, 0o777, Some("../main.tf"))),
            ("work/modules/net", (EntryType::Directory, 0o755, None)),
            ("work/modules/net/x.tf", (file, 0o644, None)),
        ]
        .map(|(path, (kind, mode, target))| {
            (path.to_owned(), (kind, mode, target.map(str::to_owned)))
        });
        assert_eq!(found, BTreeMap::from(expected));
    }
}

//! The files that go into a task's container, as one tar archive: on disk, since a
//! configuration and its plan may be larger than the agent is to be.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use tar::{Builder, EntryType, Header};

use crate::context::RunUser;

/// The most that a configuration may unpack to, in bytes.
const MAX_CONFIGURATION: u64 = 256 * 1024 * 1024;

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

    /// Adds what is in `configuration` (a tar.gz) below `directory`, and gives what
    /// the file has that comes to be at `wanted`, unless that is large.
    ///
    /// # Errors
    /// It is no tar.gz, unpacks to too much, has something else in it than
    /// files, directories and symbolic links, or has a path that leads out; the disk is
    /// full.
    pub(super) fn configuration(
        &mut self,
        directory: &str,
        configuration: impl Read,
        wanted: &Path,
    ) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        let configuration = GzDecoder::new(BufReader::new(configuration));
        let mut unpacked = tar::Archive::new(configuration);
        let mut size = 0;
        let broken = "the configuration is not a tar.gz archive";
        for entry in unpacked.entries().context(broken)? {
            let mut entry = entry.context(broken)?;
            let name = entry.path().context(broken)?.into_owned();
            let path = Path::new(directory).join(inside(&name)?);
            let mode = entry.header().mode().unwrap_or(0o644);
            size += entry.size();
            if size > MAX_CONFIGURATION {
                bail!("the configuration unpacks to more than {MAX_CONFIGURATION} bytes");
            }
            match entry.header().entry_type() {
                EntryType::Directory => {
                    self.add(EntryType::Directory, &path, mode | 0o700, 0, io::empty())?;
                }
                EntryType::Regular | EntryType::Continuous => {
                    let (kind, mode, size) = (EntryType::Regular, mode | 0o600, entry.size());
                    if path == wanted && size <= MAX_WANTED {
                        let mut content = Vec::new();
                        entry.read_to_end(&mut content).context(broken)?;
                        self.add(kind, &path, mode, size, content.as_slice())?;
                        found = Some(content);
                    } else {
                        self.add(kind, &path, mode, size, entry)?;
                    }
                }
                EntryType::Symlink => {
                    let target = entry.link_name().context(broken)?.context(broken)?.into_owned();
                    let target = self.target(&path, target);
                    let mut header = self.header(EntryType::Symlink, 0o777);
                    self.builder.append_link(&mut header, self.relative(&path)?, &target)?;
                }
                // What some tools write of the archive itself.
                EntryType::XGlobalHeader => {}
                _ => bail!("the configuration has `{}`, which is no file", name.display()),
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

    /// The target of a link at `path`. One that leads out of the archive's root is
    /// made absolute: the engine refuses the whole archive for a relative one.
    fn target(&self, path: &Path, target: PathBuf) -> PathBuf {
        let mut whole = path.to_owned();
        whole.pop();
        for component in target.components() {
            match component {
                Component::Normal(name) => whole.push(name),
                Component::ParentDir => drop(whole.pop()),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return target,
            }
        }
        if whole.starts_with(self.root) { target } else { whole }
    }

    /// A path in an archive is relative to where that is unpacked.
    fn relative<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        path.strip_prefix(self.root)
            .with_context(|| format!("{} is not in {}", path.display(), self.root))
    }
}

/// `path` without what is superfluous in it, if it stays inside.
///
/// # Errors
/// It is absolute, or has `..` in it.
pub(super) fn inside(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => bail!("`{}` leads out of the configuration", path.display()),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const ROOT: RunUser = RunUser { uid: 0, gid: 0 };

    fn archive(user: RunUser) -> Archive {
        Archive::new(&std::env::temp_dir(), "/scalr", user).unwrap()
    }

    fn packed(entries: &[(&[u8], EntryType)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, kind) in entries {
            let mut header = Header::new_gnu();
            // Not by append_data, which refuses what is to be refused here.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(0o444);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn files_go_below_the_directory_and_belong_to_the_user() {
        let mut archive = archive(RunUser { uid: 990, gid: 991 });
        let entries: [(&[u8], _); 2] =
            [(b"./", EntryType::Directory), (b"./main.tf", EntryType::Regular)];
        let wanted = Path::new("/scalr/work/main.tf");
        let found =
            archive.configuration("/scalr/work", packed(&entries).as_slice(), wanted).unwrap();
        assert_eq!(found, Some(Vec::new()));
        let mut unpacked = tar::Archive::new(archive.finish().unwrap());
        let found: Vec<_> = unpacked
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap())
            })
            .collect();
        assert_eq!(
            found,
            [("work".to_owned(), 990, 991, 0o744), ("work/main.tf".to_owned(), 990, 991, 0o644)]
        );
    }

    #[test]
    fn a_link_that_leads_out_is_absolute() {
        let archive = archive(ROOT);
        let target = |target: &str| archive.target(Path::new("/scalr/work/a/link"), target.into());
        for kept in ["b", "./../b", "../../run/plan", "/etc/passwd", ""] {
            assert_eq!(target(kept), Path::new(kept));
        }
        assert_eq!(target("../../../etc/x"), Path::new("/etc/x"));
        assert_eq!(target("../../../../../etc"), Path::new("/etc"));
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused() {
        let refused: [(&[u8], _); 4] = [
            (b"../etc/passwd", EntryType::Regular),
            (b"/etc/passwd", EntryType::Regular),
            (b"a/../../b", EntryType::Regular),
            (b"null", EntryType::Char),
        ];
        for entry in refused {
            let configuration = packed(&[entry]);
            let mut archive = archive(ROOT);
            let error =
                archive.configuration("/scalr/work", configuration.as_slice(), Path::new(""));
            assert!(error.is_err(), "{}", String::from_utf8_lossy(entry.0));
        }
    }

    #[test]
    fn something_else_is_no_configuration() {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(b"not a tar").unwrap();
        for wrong in [zip.finish().unwrap(), b"PK".to_vec()] {
            let mut archive = archive(ROOT);
            let error =
                archive.configuration("/scalr/work", wrong.as_slice(), Path::new("")).unwrap_err();
            assert_eq!(error.to_string(), "the configuration is not a tar.gz archive");
        }
    }
}

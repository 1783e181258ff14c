//! The files that go into a task's container, as one tar archive.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use tar::{Builder, EntryType, Header};

use crate::agent::context::RunUser;

/// The most that a configuration may unpack to, in bytes.
const MAX_CONFIGURATION: u64 = 256 * 1024 * 1024;

/// An archive whose files all belong to the run's user.
pub struct Archive {
    builder: Builder<Vec<u8>>,
    root: &'static str,
    user: RunUser,
}

impl Archive {
    /// An empty archive for files of `user`, to be unpacked at `root`; the paths
    /// of its files are absolute all the same.
    pub fn new(root: &'static str, user: RunUser) -> Self {
        Self { builder: Builder::new(Vec::new()), root, user }
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// The path does not fit.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.add(EntryType::Directory, Path::new(path), mode, &[])
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The path does not fit.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(EntryType::Regular, Path::new(path), mode, content)
    }

    /// Adds what is in `configuration` (a tar.gz) below `directory`, and gives what
    /// the file has that comes to be at `wanted`.
    ///
    /// # Errors
    /// It is no tar.gz, unpacks to too much, has something else in it than
    /// files, directories and symbolic links, or has a path that leads out.
    pub fn configuration(
        &mut self,
        directory: &str,
        configuration: &[u8],
        wanted: &Path,
    ) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        let mut unpacked = tar::Archive::new(GzDecoder::new(configuration));
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
                    self.add(EntryType::Directory, &path, mode | 0o700, &[])?;
                }
                EntryType::Regular | EntryType::Continuous => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).context(broken)?;
                    self.add(EntryType::Regular, &path, mode | 0o600, &content)?;
                    if path == wanted {
                        found = Some(content);
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

    /// The archive's bytes.
    ///
    /// # Errors
    /// Memory is all that is written to, so there are none.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context("cannot end the archive")
    }

    fn add(&mut self, kind: EntryType, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = self.header(kind, mode);
        header.set_size(content.len() as u64);
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
pub fn inside(path: &Path) -> Result<PathBuf> {
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
        let mut archive = Archive::new("/scalr", RunUser { uid: 990, gid: 991 });
        let entries: [(&[u8], _); 2] =
            [(b"./", EntryType::Directory), (b"./main.tf", EntryType::Regular)];
        let wanted = Path::new("/scalr/work/main.tf");
        let found = archive.configuration("/scalr/work", &packed(&entries), wanted).unwrap();
        assert_eq!(found, Some(Vec::new()));
        let bytes = archive.finish().unwrap();
        let mut unpacked = tar::Archive::new(bytes.as_slice());
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
        let archive = Archive::new("/scalr", ROOT);
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
            let mut archive = Archive::new("/scalr", ROOT);
            let error = archive.configuration("/scalr/work", &configuration, Path::new(""));
            assert!(error.is_err(), "{}", String::from_utf8_lossy(entry.0));
        }
    }

    #[test]
    fn something_else_is_no_configuration() {
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(b"not a tar").unwrap();
        for wrong in [zip.finish().unwrap(), b"PK".to_vec()] {
            let mut archive = Archive::new("/scalr", ROOT);
            let error = archive.configuration("/scalr/work", &wrong, Path::new("")).unwrap_err();
            assert_eq!(error.to_string(), "the configuration is not a tar.gz archive");
        }
    }
}

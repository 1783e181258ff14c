//! Files that another user can put where we, maybe as root, read them: a pipe, a link to
//! a secret, or a file without an end must not hold us up or be taken for the real one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, major, minor, open, openat};

/// A pipe without a writer would hold up the opening itself.
const FOLLOWED: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const FLAGS: OFlags = FOLLOWED.union(OFlags::NOFOLLOW);

/// The largest file of settings that is read, in bytes.
const LARGEST_TEXT: u64 = 16 * 1024 * 1024;

/// `/dev/null`, which systemd takes for an empty file.
const NULL: (u32, u32) = (1, 3);

/// The content of the regular file at `path`, of at most `limit` bytes; no link is
/// followed.
///
/// # Errors
/// It can't be read, is not a regular file, or is larger.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    content(open(path, FLAGS, Mode::empty())?, limit)
}

/// As [`read`], but links are followed: the settings of a host may be links to files, or to
/// `/dev/null`, which is empty.
///
/// # Errors
/// As [`read`].
pub fn read_linked(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, FOLLOWED, Mode::empty())?;
    let found = fstat(&file)?;
    let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    if is_device && (major(found.st_rdev), minor(found.st_rdev)) == NULL {
        return Ok(Vec::new());
    }
    content(file, limit)
}

/// A file of settings as text; links are followed.
///
/// # Errors
/// As [`read`]; it is larger than 16 MiB, or not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read_linked(path.as_ref(), LARGEST_TEXT)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// A folder whose entries another user can replace while they are read: they are opened below
/// it, and none is followed as a link.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// The folder at `path`, which is no link itself.
    ///
    /// # Errors
    /// It can't be opened; a link is `NotADirectory`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FLAGS | OFlags::DIRECTORY, Mode::empty())?))
    }

    /// The folder of that name in it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn folder(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(openat(&self.0, name, FLAGS | OFlags::DIRECTORY, Mode::empty())?))
    }

    /// The names of what is in it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The content of the regular file of that name in it, as [`read`].
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        content(openat(&self.0, name, FLAGS, Mode::empty())?, limit)
    }
}

fn content(file: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let too_large = || io::Error::other(format!("it is larger than {limit} bytes"));
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut content = Vec::new();
    // It may have grown since.
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit { Err(too_large()) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_regular_file_up_to_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert!(read(&file, 4).unwrap_err().to_string().contains("larger than 4 bytes"));
        let missing = read(&folder.path().join("missing"), 5).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_pipes_folders_devices_and_sparse_files_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "secret").unwrap();
        symlink("secret", at("link")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        fs::create_dir(at("folder")).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        for name in ["link", "pipe", "folder", "sparse"] {
            read(&at(name), 1024).expect_err(name);
        }
        read(Path::new("/dev/zero"), 1024).expect_err("a device");
    }

    #[test]
    fn a_link_is_followed_to_a_regular_file_and_to_nothing_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        fs::create_dir(at("folder")).unwrap();
        File::create(at("sparse")).unwrap().set_len(10 << 30).unwrap();
        for target in ["file", "pipe", "folder", "sparse", "/dev/zero", "/dev/null", "missing"] {
            let link = at("link");
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            match target {
                "file" => assert_eq!(read_text(&link).unwrap(), "text"),
                "/dev/null" => assert_eq!(read_text(&link).unwrap(), ""),
                "missing" => {
                    assert_eq!(read_text(&link).unwrap_err().kind(), io::ErrorKind::NotFound);
                }
                _ => drop(read_text(&link).expect_err(target)),
            }
        }
    }

    #[test]
    fn a_folder_gives_its_own_files_and_no_others() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "secret").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("own")).unwrap();
        fs::write(root.path().join("own/file"), "own").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!(names, ["link", "own"]);
        let own = folder.folder(OsStr::new("own")).unwrap();
        assert_eq!(own.read("file", 10).unwrap(), b"own");
        for refused in [folder.folder(OsStr::new("link")), Folder::open(&root.path().join("link"))]
        {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotADirectory);
        }
        fs::remove_file(root.path().join("own/file")).unwrap();
        symlink(outside.path().join("file"), root.path().join("own/file")).unwrap();
        own.read("file", 10).unwrap_err();
    }
}

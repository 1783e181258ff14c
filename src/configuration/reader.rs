//! The entries of an archive, each checked.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use crate::error::{Error, printable};
use crate::left_out::is_left_out;
use crate::members::{Member, Members};
use crate::tree::{Node, Tree};
use crate::{MAX_ENTRIES, MAX_NAMES, MAX_PATH, MAX_UNPACKED};

/// The longest name that Linux's file systems take, in bytes.
const MAX_NAME: usize = 255;

/// The longest target of a symbolic link, in bytes.
const MAX_TARGET: usize = 1024;

/// An entry that a configuration may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Relative, without `.` and `..`; empty for the configuration's own directory. An
    /// entry for each of its parents came before it.
    pub path: PathBuf,
    /// The permissions alone.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file, whose content the reader gives next.
    File {
        /// In bytes.
        size: u64,
    },
    /// One more name of an earlier entry, which is a file.
    HardLink {
        /// That entry's path.
        target: PathBuf,
    },
    /// A symbolic link that stays inside of the configuration.
    Symlink {
        /// Relative to the link's directory.
        target: PathBuf,
    },
}

/// Reads an archive from its beginning to its end.
///
/// An entry that comes twice counts as it comes last, as it does for tar.
pub struct Reader<R> {
    members: Members<R>,
    tree: Tree,
    /// Entries that are to be given next; the last one is the current member.
    pending: VecDeque<Entry>,
    directory: Option<PathBuf>,
    left_out: BTreeSet<PathBuf>,
    entries: usize,
    names: usize,
    unpacked: u64,
    has_files: bool,
    is_done: bool,
}

/// Checks a whole archive.
///
/// # Errors
/// See [`Error`].
pub fn check(archive: impl Read) -> Result<(), Error> {
    let mut reader = Reader::new(archive, None)?;
    while reader.next()?.is_some() {}
    if reader.has_files { Ok(()) } else { Err(Error::Empty) }
}

impl<R: Read> Reader<R> {
    /// A reader of `archive`, a tar.gz. `directory` is where Terraform is to be started:
    /// see [`is_left_out`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(archive: R, directory: Option<&Path>) -> Result<Self, Error> {
        Ok(Self {
            members: Members::new(archive)?,
            tree: Tree::new(),
            pending: VecDeque::new(),
            directory: directory.map(Path::to_owned),
            left_out: BTreeSet::new(),
            entries: 0,
            names: 0,
            unpacked: 0,
            has_files: false,
            is_done: false,
        })
    }

    /// The next entry; none when the whole archive was read and is as it is to be.
    ///
    /// # Errors
    /// See [`Error`].
    #[expect(clippy::should_implement_trait, reason = "an entry's content is read between")]
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        while self.pending.is_empty() && !self.is_done {
            match self.members.next()? {
                Some(member) => self.take(&member)?,
                None => self.finish()?,
            }
        }
        Ok(self.pending.pop_front())
    }

    /// What was left out so far: the outermost path of each.
    pub fn left_out(&self) -> &BTreeSet<PathBuf> {
        &self.left_out
    }

    /// Checks a member, and makes it an entry.
    fn take(&mut self, member: &Member) -> Result<(), Error> {
        let refused = |why: String| Error::refused(&member.name, why);
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(refused(format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        let path = path_of(&member.name).map_err(refused)?;
        self.names += path.iter().count() + names_of(&member.target);
        if self.names > MAX_NAMES {
            return Err(refused(format!("the archive's paths have more than {MAX_NAMES} names")));
        }
        if let Some(left_out) = is_left_out(&path, self.directory.as_deref()) {
            self.left_out.insert(left_out);
            return Ok(());
        }
        let Some(kind) = self.kind_of(member, &path).map_err(refused)? else { return Ok(()) };
        let node = match &kind {
            Kind::Directory => Node::Directory,
            Kind::File { .. } | Kind::HardLink { .. } => Node::File,
            Kind::Symlink { target } => Node::Link(target.clone()),
        };
        if let Kind::File { size } = kind {
            self.has_files = true;
            self.unpacked = self.unpacked.saturating_add(size);
            if self.unpacked > MAX_UNPACKED {
                let limit = MAX_UNPACKED >> 20;
                let why =
                    format!("with its {size} bytes the archive unpacks to more than {limit} MiB");
                return Err(refused(why));
            }
        }
        let parents = self.tree.insert(&path, node).map_err(refused)?;
        let parent = |path| Entry { path, mode: 0o755, kind: Kind::Directory };
        self.pending.extend(parents.into_iter().map(parent));
        self.pending.push_back(Entry { path, mode: member.mode & 0o777, kind });
        Ok(())
    }

    /// What a member is; none if it says nothing new.
    fn kind_of(&self, member: &Member, path: &Path) -> Result<Option<Kind>, String> {
        // Before there was a kind for them, directories were empty files named so.
        let is_named_as_directory = member.name.ends_with(b"/");
        let kind = match member.kind {
            EntryType::Regular if is_named_as_directory => EntryType::Directory,
            EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
            kind => kind,
        };
        let name = match kind {
            EntryType::Regular => "a file",
            EntryType::Directory => "a directory",
            EntryType::Symlink => "a symbolic link",
            EntryType::Link => "a hard link",
            _ => return Err(foreign(kind)),
        };
        if kind != EntryType::Directory && path.as_os_str().is_empty() {
            return Err(format!("it is {name} without a name"));
        }
        if kind != EntryType::Regular && member.size > 0 {
            return Err(format!("it is {name} with a content"));
        }
        Ok(Some(match kind {
            EntryType::Regular => Kind::File { size: member.size },
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target: target_of(&member.target, path)? },
            _ => {
                let target = path_of(&member.target).map_err(|why| {
                    format!("it is a hard link to `{}`: {why}", printable(&member.target))
                })?;
                match self.tree.get(&target) {
                    // GNU tar writes it of a file that it is given twice.
                    Some(Node::File | Node::Link(_)) if target == path => return Ok(None),
                    Some(Node::File) => Kind::HardLink { target },
                    Some(Node::Link(to)) => {
                        Kind::Symlink { target: target_of(to.as_os_str().as_bytes(), path)? }
                    }
                    Some(Node::Directory) | None => {
                        let target = printable(&member.target);
                        return Err(format!(
                            "it is a hard link to `{target}`, and that is no file before it"
                        ));
                    }
                }
            }
        }))
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.is_done = true;
        self.members.finish()?;
        if let Some(link) = self.tree.misleading_link() {
            let why = "it is a symbolic link that goes up (`..`) from where another one leads";
            return Err(Error::refused(link.as_os_str().as_bytes(), why));
        }
        Ok(())
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.pending.is_empty() || self.is_done {
            return Ok(0);
        }
        self.members
            .read(buffer)
            .map_err(|error| io::Error::new(error.kind(), self.members.broken(&error)))
    }
}

/// `path` without what is superfluous in it, if it is relative and has no `..`.
pub fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// How many names a path has at most.
fn names_of(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').count()
}

/// The path of an entry that is named so, or why there is none.
fn path_of(name: &[u8]) -> Result<PathBuf, String> {
    if name.contains(&0) {
        return Err("its name has a zero byte".to_owned());
    }
    if name.len() > MAX_PATH {
        return Err(format!("its path has more than {MAX_PATH} bytes"));
    }
    let path =
        inside(Path::new(OsStr::from_bytes(name))).ok_or("it is outside of the configuration")?;
    if path.iter().any(|name| name.len() > MAX_NAME) {
        return Err(format!("a name in its path has more than {MAX_NAME} bytes"));
    }
    Ok(path)
}

/// The target of a symbolic link at `path`, or why there is none.
fn target_of(target: &[u8], path: &Path) -> Result<PathBuf, String> {
    let link = || format!("it is a symbolic link to `{}`", printable(target));
    if target.is_empty() || target.contains(&0) {
        return Err(format!("{}, which is no path", link()));
    }
    if target.len() > MAX_TARGET {
        return Err(format!("{}, which has more than {MAX_TARGET} bytes", link()));
    }
    let target = PathBuf::from(OsStr::from_bytes(target));
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        let next = match component {
            Component::Normal(_) => Some(depth + 1),
            Component::ParentDir => depth.checked_sub(1),
            Component::CurDir => Some(depth),
            Component::RootDir | Component::Prefix(_) => None,
        };
        depth = next.ok_or_else(|| format!("{}, outside of the configuration", link()))?;
    }
    Ok(target)
}

/// Whether a symbolic link at `path`, a path in the configuration, may be in one.
pub fn stays_inside(path: &Path, target: &Path) -> bool {
    target_of(target.as_os_str().as_bytes(), path).is_ok()
}

fn foreign(kind: EntryType) -> String {
    let name = match kind {
        EntryType::Char => "a character device".to_owned(),
        EntryType::Block => "a block device".to_owned(),
        EntryType::Fifo => "a named pipe".to_owned(),
        kind => format!("an entry of the kind `{}`", printable(&[kind.as_byte()])),
    };
    format!("it is {name}; only files, directories and links are taken")
}

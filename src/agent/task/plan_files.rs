//! What a plan made in its working directory, `builds/fn.zip` of an `archive_file` for
//! example: its apply needs that too, and has a container of its own.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, Entry, EntryType, Header};
use tempfile::NamedTempFile;

use super::paths;
use super::prepare::some_names;
use crate::engine::SMALL_FILE;
use configuration::{Kind, MAX_ENTRIES, MAX_PACKED, MAX_UNPACKED, Reader};
use configuration::{is_left_out, stays_inside};

/// The most that is read of a working directory, in bytes: a run may have made a file
/// of any size in it.
const MAX_READ: u64 = 8 * 1024 * 1024 * 1024;

/// The most entries that are looked at, for they are kept in memory: five times what an
/// apply may have.
const MAX_SEEN: usize = 5 * MAX_ENTRIES;

const NOT_PACKED: &str = "cannot pack what the plan made";

/// What a configuration has at a path; the modes are those in the container.
#[derive(Clone, PartialEq)]
enum Known {
    Directory,
    File { mode: u32, size: u64, sha256: Vec<u8> },
    Symlink(PathBuf),
}

/// What the plan's container had in its working directory before the plan.
pub(super) struct Before(HashMap<PathBuf, Known>);

impl Before {
    /// # Errors
    /// The configuration can't be read.
    pub(super) fn read(mut configuration: Reader<impl Read>) -> Result<Self> {
        let mut known = HashMap::new();
        while let Some(entry) = configuration.next()? {
            let what = match entry.kind {
                Kind::Directory => Known::Directory,
                Kind::File { size } => {
                    let mut sum = Sum(Sha256::new());
                    io::copy(&mut configuration, &mut sum)?;
                    let sha256 = sum.0.finalize().to_vec();
                    Known::File { mode: entry.mode | 0o600, size, sha256 }
                }
                Kind::HardLink { target } => {
                    known.get(&target).cloned().context("a hard link is to no earlier file")?
                }
                Kind::Symlink { target } => Known::Symlink(target),
            };
            known.insert(entry.path, what);
        }
        Ok(Self(known))
    }
}

/// What was packed.
pub(super) struct Packed {
    /// Whether there is anything to upload.
    pub(super) has_entries: bool,
    /// What the run's log says of what is not handed over.
    pub(super) note: Option<String>,
}

/// Packs what `work`, a tar archive of the configuration's folder, has and had not
/// `before` into `to`, an empty file, as tar.gz. `directory` is where Terraform was
/// started; `scratch` is a folder for temporary files. `lock_file` gets a copy of that file
/// of `directory`, if it comes by and is a regular one of at most [`SMALL_FILE`] bytes.
///
/// # Errors
/// `work` can't be read, or the disk is full.
pub(super) fn pack(
    work: impl Read,
    before: &Before,
    directory: &Path,
    scratch: &Path,
    to: &File,
    lock_file: &mut Option<NamedTempFile>,
) -> Result<Packed> {
    let mut work = Archive::new(work);
    let mut packer = Packer::new(before, scratch, to);
    for (seen, entry) in work.entries()?.enumerate() {
        let mut entry = entry?;
        if seen > MAX_SEEN {
            let why = format!("the configuration's directory has more than {MAX_SEEN} entries");
            return Ok(Packed { has_entries: false, note: Some(not_handed_over(&why)) });
        }
        if entry.raw_file_position().saturating_add(entry.size()) > MAX_READ {
            let limit = MAX_READ >> 20;
            let why = format!("the configuration's directory has more than {limit} MiB");
            return Ok(Packed { has_entries: false, note: Some(not_handed_over(&why)) });
        }
        // The first name is the folder's.
        let path: PathBuf = entry.path()?.iter().skip(1).collect();
        let is_regular = entry.header().entry_type().is_file();
        if is_lock_file(&path, directory) && is_regular && entry.size() <= SMALL_FILE {
            let mut copy = NamedTempFile::new_in(scratch).context(NOT_PACKED)?;
            io::copy(&mut entry, &mut copy).context(NOT_PACKED)?;
            *lock_file = Some(copy);
        } else if !path.as_os_str().is_empty() && !is_ours(&path, directory) {
            match has_whole_name(&mut entry)? {
                true => packer.add(path, &mut entry)?,
                false => packer.foreign.push(path),
            }
        }
    }
    packer.finish()
}

/// Whether the entry's path is its name: the `tar` crate ends records at newlines, which a name
/// may have, and then goes by the header, which has a part of the name.
fn has_whole_name(entry: &mut Entry<'_, impl Read>) -> io::Result<bool> {
    let records = entry.pax_extensions()?;
    Ok(records.into_iter().flatten().all(|record| record.is_ok()))
}

/// Whether Terraform or the agent makes a new one for each task.
fn is_ours(path: &Path, directory: &Path) -> bool {
    // What the entry point puts there, if the image has no `rm`.
    const PLACED: [&str; 3] =
        ["_scalr_override.tf", "_scalr.auto.tfvars", "_scalr.auto.tfvars.json"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.iter().any(|name| name == ".terraform")
        || is_left_out(path, Some(directory)).is_some()
        || is_lock_file(path, directory)
        || PLACED.iter().any(|suffix| name.ends_with(suffix))
}

fn is_lock_file(path: &Path, directory: &Path) -> bool {
    path.parent() == Some(directory) && path.ends_with(paths::LOCK_FILE)
}

struct Packer<'a> {
    before: &'a HashMap<PathBuf, Known>,
    scratch: &'a Path,
    to: &'a File,
    builder: Builder<GzEncoder<&'a File>>,
    /// The files among the entries, which hard links may name.
    files: HashSet<PathBuf>,
    entries: usize,
    /// What the entries have together, in bytes.
    unpacked: u64,
    largest: (u64, PathBuf),
    /// What a configuration can't have.
    foreign: Vec<PathBuf>,
}

impl<'a> Packer<'a> {
    fn new(before: &'a Before, scratch: &'a Path, to: &'a File) -> Self {
        Self {
            before: &before.0,
            scratch,
            to,
            builder: Builder::new(GzEncoder::new(to, Compression::fast())),
            files: HashSet::new(),
            entries: 0,
            unpacked: 0,
            largest: (0, PathBuf::new()),
            foreign: Vec::new(),
        }
    }

    /// Packs an entry, unless it was there before.
    fn add(&mut self, path: PathBuf, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let before = self.before.get(&path);
        let mode = entry.header().mode()? & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory if before == Some(&Known::Directory) => {}
            EntryType::Directory => {
                self.append(&path, EntryType::Directory, mode, 0, io::empty())?
            }
            EntryType::Regular => {
                let (kind, size) = (EntryType::Regular, entry.size());
                match before {
                    Some(Known::File { mode: mode_before, size: size_before, sha256 })
                        if (*mode_before, *size_before) == (mode, size) =>
                    {
                        let Some(content) = self.changed(entry, sha256)? else { return Ok(()) };
                        self.append(&path, kind, mode, size, content)?;
                    }
                    _ => self.append(&path, kind, mode, size, entry)?,
                }
                self.files.insert(path);
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                if !stays_inside(&path, &target) {
                    self.foreign.push(path);
                } else if before != Some(&Known::Symlink(target.clone())) {
                    self.append_link(&path, EntryType::Symlink, &target)?;
                }
            }
            EntryType::Link => {
                let target = entry.link_name()?.unwrap_or_default();
                let target: PathBuf = target.iter().skip(1).collect();
                let is_unchanged = before.is_some() && before == self.before.get(&target);
                if self.files.contains(&target) {
                    self.append_link(&path, EntryType::Link, &target)?;
                    self.files.insert(path);
                } else if !is_unchanged {
                    self.foreign.push(path);
                }
            }
            _ => self.foreign.push(path),
        }
        Ok(())
    }

    fn append(
        &mut self,
        path: &Path,
        kind: EntryType,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<()> {
        self.entries += 1;
        self.unpacked += size;
        if size > self.largest.0 {
            self.largest = (size, path.to_owned());
        }
        // The rest is only counted.
        if self.is_too_large()? {
            return Ok(());
        }
        let mut header = header(kind, mode, size);
        self.builder.append_data(&mut header, path, content).context(NOT_PACKED)
    }

    fn append_link(&mut self, path: &Path, kind: EntryType, target: &Path) -> Result<()> {
        self.entries += 1;
        if self.is_too_large()? {
            return Ok(());
        }
        let mut header = header(kind, 0o777, 0);
        self.builder.append_link(&mut header, path, target).context(NOT_PACKED)
    }

    /// The content of a file that is as large as before, unless it is the same.
    fn changed(&self, content: &mut impl Read, sha256: &[u8]) -> Result<Option<File>> {
        let mut copy = tempfile::tempfile_in(self.scratch).context(NOT_PACKED)?;
        let mut sum = Sha256::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = content.read(&mut piece)?;
            if read == 0 {
                break;
            }
            sum.update(&piece[..read]);
            copy.write_all(&piece[..read]).context(NOT_PACKED)?;
        }
        copy.rewind().context(NOT_PACKED)?;
        Ok((sum.finalize()[..] != *sha256).then_some(copy))
    }

    fn is_too_large(&self) -> Result<bool> {
        Ok(self.entries > MAX_ENTRIES
            || self.unpacked > MAX_UNPACKED
            || self.to.metadata().context(NOT_PACKED)?.len() > MAX_PACKED as u64)
    }

    fn finish(mut self) -> Result<Packed> {
        self.builder.finish().context(NOT_PACKED)?;
        self.builder.get_mut().try_finish().context(NOT_PACKED)?;
        if self.is_too_large()? {
            return Ok(Packed { has_entries: false, note: Some(self.too_large()) });
        }
        // Better no files than ones that the apply fails on.
        if self.entries > 0
            && let Err(error) = read_whole(self.to)
        {
            let why = not_handed_over(&format!("what the plan made: {error}"));
            return Ok(Packed { has_entries: false, note: Some(why) });
        }
        let note = (!self.foreign.is_empty()).then(|| {
            let names = some_names(self.foreign.iter());
            not_handed_over(&format!(
                "{names}; only files, directories and links that stay in the configuration are"
            ))
        });
        Ok(Packed { has_entries: self.entries > 0, note })
    }

    fn too_large(&self) -> String {
        let (size, path) = &self.largest;
        // Of empty files, none is.
        let largest = match size {
            0 => String::new(),
            _ => format!(
                "; the largest is {} with {} MiB",
                some_names([path].into_iter()),
                size >> 20
            ),
        };
        not_handed_over(&format!(
            "the {} files and directories that the plan made, with {} MiB{largest}. \
             At most {} MiB packed, {} MiB unpacked and {MAX_ENTRIES} entries are handed over. \
             Let the plan write large files to /tmp, or to a store that the apply reads",
            self.entries,
            self.unpacked >> 20,
            MAX_PACKED >> 20,
            MAX_UNPACKED >> 20,
        ))
    }
}

fn read_whole(mut archive: &File) -> Result<()> {
    archive.rewind()?;
    let mut reader = Reader::new(archive, None)?;
    while reader.next()?.is_some() {}
    Ok(())
}

/// A line of the run's log.
pub(super) fn not_handed_over(what: &str) -> String {
    format!("Not handed over to the apply: {what}.")
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// A sum that can be written to.
struct Sum(Sha256);

impl io::Write for Sum {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind, mode, and content or target.
    type Member<'a> = (&'a str, EntryType, u32, &'a str);

    const FILE: EntryType = EntryType::Regular;

    fn tar(members: &[Member<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, mode, text) in members {
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let content = if is_link { "" } else { text };
            let mut header = header(*kind, *mode, content.len() as u64);
            if is_link {
                builder.append_link(&mut header, name, text).unwrap();
            } else {
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn before(members: &[Member<'_>]) -> Before {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar(members)).unwrap();
        let archive = gzip.finish().unwrap();
        Before::read(Reader::new(archive.as_slice(), Some(Path::new("net"))).unwrap()).unwrap()
    }

    /// What is packed, a line for each entry, and the note.
    fn packed(before: &Before, work: impl Read) -> (Vec<String>, Packed) {
        let to = tempfile::tempfile().unwrap();
        let scratch = std::env::temp_dir();
        let mut lock_file = None;
        let packed = pack(work, before, Path::new("net"), &scratch, &to, &mut lock_file).unwrap();
        (&to).rewind().unwrap();
        if !packed.has_entries {
            return (Vec::new(), packed);
        }
        // As the apply reads it.
        let mut reader = Reader::new(&to, None).unwrap();
        let mut lines = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            lines.push(match entry.kind {
                Kind::Directory => format!("{}/", entry.path.display()),
                Kind::File { .. } => format!("{} {:o} {content}", entry.path.display(), entry.mode),
                Kind::HardLink { target } | Kind::Symlink { target } => {
                    format!("{} -> {}", entry.path.display(), target.display())
                }
            });
        }
        (lines, packed)
    }

    #[test]
    fn the_lock_file_comes_by_if_it_is_a_file_where_terraform_is_started() {
        let inside = "work/net/.terraform.lock.hcl";
        for (path, kind, is_it) in [
            (inside, FILE, true),
            (inside, EntryType::Symlink, false),
            ("work/.terraform.lock.hcl", FILE, false),
            ("work/net/net/.terraform.lock.hcl", FILE, false),
        ] {
            let work = tar(&[("work/", EntryType::Directory, 0o755, ""), (path, kind, 0o644, "x")]);
            let (scratch, to) = (tempfile::tempdir().unwrap(), tempfile::tempfile().unwrap());
            let (before, mut lock_file) = (before(&[]), None);
            pack(work.as_slice(), &before, Path::new("net"), scratch.path(), &to, &mut lock_file)
                .unwrap();
            let content = lock_file.map(|copy| std::fs::read_to_string(copy.path()).unwrap());
            assert_eq!(content, is_it.then(|| "x".to_owned()), "{path} {kind:?}");
        }
    }

    #[test]
    fn what_the_plan_made_or_changed_is_handed_over() {
        let (directory, link, hard) = (EntryType::Directory, EntryType::Symlink, EntryType::Link);
        let before = before(&[
            ("net/main.tf", FILE, 0o644, "same"),
            ("net/second.tf", hard, 0o644, "net/main.tf"),
            ("net/changed.json", FILE, 0o644, "one"),
            ("net/run.sh", FILE, 0o644, "echo"),
            ("net/link", link, 0o777, "main.tf"),
            ("net/readonly", FILE, 0o444, "x"),
        ]);
        let work = tar(&[
            ("work/", directory, 0o755, ""),
            ("work/net/", directory, 0o755, ""),
            ("work/net/main.tf", FILE, 0o644, "same"),
            ("work/net/second.tf", hard, 0o644, "work/net/main.tf"),
            ("work/net/changed.json", FILE, 0o644, "two"),
            ("work/net/run.sh", FILE, 0o755, "echo"),
            ("work/net/link", link, 0o777, "main.tf"),
            ("work/net/readonly", FILE, 0o644, "x"),
            ("work/net/builds/", directory, 0o755, ""),
            ("work/net/builds/fn.zip", FILE, 0o644, "zip"),
            ("work/net/builds/same.zip", hard, 0o644, "work/net/builds/fn.zip"),
            ("work/net/latest", link, 0o777, "builds/fn.zip"),
            ("work/net/python", link, 0o777, "/usr/bin/python3"),
            ("work/net/up", link, 0o777, "../../run/plan"),
            ("work/net/pipe", EntryType::Fifo, 0o644, ""),
            ("work/net/.terraform/providers/x", FILE, 0o755, "provider"),
            ("work/net/.terraform/modules/modules.json", FILE, 0o644, "{}"),
            ("work/net/.terraform.lock.hcl", FILE, 0o644, "lock"),
            ("work/net/zz_scalr_override.tf", FILE, 0o644, "backend"),
            ("work/net/zz_scalr.auto.tfvars.json", FILE, 0o600, "secret"),
            ("work/net/a.auto.tfvars_scalr.auto.tfvars", FILE, 0o600, "secret"),
            ("work/net/terraform.tfstate", FILE, 0o644, "state"),
            ("work/net/errored.tfstate", FILE, 0o644, "state"),
        ]);
        let (lines, packed) = packed(&before, work.as_slice());
        let expected = [
            "net/",
            "net/changed.json 644 two",
            "net/run.sh 755 echo",
            "net/builds/",
            "net/builds/fn.zip 644 zip",
            "net/builds/same.zip -> net/builds/fn.zip",
            "net/latest -> builds/fn.zip",
        ];
        assert_eq!(lines, expected);
        let note = "Not handed over to the apply: `net/python`, `net/up`, `net/pipe`; only files, \
                    directories and links that stay in the configuration are.";
        assert_eq!(packed.note.as_deref(), Some(note));
    }

    #[test]
    fn a_file_whose_name_cannot_be_read_is_not_handed_over_under_another_one() {
        let mut work = Builder::new(Vec::new());
        for name in ["work/\u{e9}", "work/\u{e9}\nb", "work/\u{e9}\n15 path=work/x\n"] {
            work.append_pax_extensions([("path", name.as_bytes())]).unwrap();
            // What is left of it without the letter that ASCII has not.
            let mut header = header(FILE, 0o644, 0);
            header.set_path(name.replace('\u{e9}', "")).unwrap();
            header.set_cksum();
            work.append(&header, io::empty()).unwrap();
        }
        let (lines, packed) = packed(&before(&[]), work.into_inner().unwrap().as_slice());
        assert_eq!(lines, ["\u{e9} 644 "]);
        let note = packed.note.unwrap();
        assert!(note.starts_with("Not handed over to the apply: `\\nb`, `x`; only"), "{note}");
    }

    #[test]
    fn nothing_new_is_nothing_to_hand_over() {
        let members = [("main.tf", FILE, 0o644, "same")];
        let work = tar(&[
            ("work/", EntryType::Directory, 0o755, ""),
            ("work/main.tf", FILE, 0o644, "same"),
        ]);
        let (_, packed) = packed(&before(&members), work.as_slice());
        assert!(!packed.has_entries && packed.note.is_none());
    }

    #[test]
    fn too_much_is_not_handed_over_and_the_log_says_what() {
        let before = before(&[("main.tf", FILE, 0o644, "same")]);
        let mut work = tar(&[("work/main.tf", FILE, 0o644, "same")]);
        work.truncate(1024);
        let mut huge = header(FILE, 0o644, MAX_READ);
        huge.set_path("work/disk.img").unwrap();
        huge.set_cksum();
        let cut_off = [&work[..], huge.as_bytes()].concat();
        let (_, packed_) = packed(&before, cut_off.as_slice());
        let note =
            "Not handed over to the apply: the configuration's directory has more than 8192 MiB.";
        assert_eq!(packed_.note.as_deref(), Some(note));

        let size = MAX_UNPACKED + 512;
        let mut large = header(FILE, 0o644, size);
        large.set_path("work/fn.zip").unwrap();
        large.set_cksum();
        let begin = [&work[..], large.as_bytes()].concat();
        let end = tar(&[("work/small", FILE, 0o644, "small")]);
        let work = begin.chain(io::repeat(0).take(size)).chain(end.as_slice());
        let (_, packed) = packed(&before, work);
        assert!(!packed.has_entries);
        let begin = "Not handed over to the apply: the 2 files and directories that the plan made, \
                     with 1024 MiB; the largest is `fn.zip` with 1024 MiB. At most 100 MiB packed,";
        let note = packed.note.unwrap();
        assert!(note.starts_with(begin), "{note}");
    }

    /// A block, again and again.
    struct Repeated<'a> {
        block: &'a [u8],
        at: usize,
    }

    impl Read for Repeated<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let read = (&self.block[self.at..]).read(into)?;
            self.at = (self.at + read) % self.block.len();
            Ok(read)
        }
    }

    #[test]
    fn of_many_empty_files_none_is_called_the_largest() {
        let empty = tar(&[("work/x", FILE, 0o600, "")]);
        let files = Repeated { block: &empty[..512], at: 0 }.take(512 * (MAX_ENTRIES as u64 + 1));
        let (_, packed) = packed(&before(&[]), files.chain(io::repeat(0).take(1024)));
        let begin = format!(
            "Not handed over to the apply: the {} files and directories that the plan made, with 0 MiB. \
             At most",
            MAX_ENTRIES + 1
        );
        let note = packed.note.unwrap();
        assert!(note.starts_with(&begin), "{note}");
    }

    #[test]
    fn a_directory_with_entries_without_end_is_not_read_to_its_end() {
        let fifo = tar(&[("work/fifo", EntryType::Fifo, 0o600, "")]);
        let work = Repeated { block: &fifo[..512], at: 0 };
        let (_, packed) = packed(&before(&[]), work);
        assert!(!packed.has_entries);
        assert_eq!(
            packed.note.unwrap(),
            "Not handed over to the apply: the configuration's directory has more than 500000 entries."
        );
    }
}

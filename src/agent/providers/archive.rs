//! A tar archive of what a volume gets, written as it is read.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// An archive whose files and folders belong to root.
pub(super) struct Archive<W: Write> {
    builder: Builder<W>,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive that is written to `into`.
    pub(super) fn new(into: W) -> Self {
        Self { builder: Builder::new(into), folders: BTreeSet::new() }
    }

    /// Adds a file of `size` bytes, and the folders that it is in.
    ///
    /// # Errors
    /// It can't be read or written, or is shorter than `size`.
    pub(super) fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let above: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        for folder in above.into_iter().rev().filter_map(Path::to_str).filter(|f| !f.is_empty()) {
            if self.folders.insert(folder.to_owned()) {
                let mut header = header(EntryType::Directory, 0o755, 0);
                self.builder.append_data(&mut header, folder, io::empty())?;
            }
        }
        // One that is shorter would shift all that comes after it.
        let mut content = Counted { inner: content.take(size), bytes: 0 };
        self.builder.append_data(
            &mut header(EntryType::Regular, mode, size),
            path,
            &mut content,
        )?;
        if content.bytes < size {
            let why = format!("{path} is shorter than it says");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Ok(())
    }

    /// Ends the archive; without that it is not whole.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn finish(self) -> io::Result<()> {
        self.builder.into_inner()?.flush()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

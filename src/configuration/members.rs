//! The members of a tar archive, each with what the extension headers before it say.
//!
//! `tar::Archive` is not used for this: it ends PAX records at newlines, which values may
//! have, knows no sparse files of PAX, and keeps a name of any length in memory.

use std::io::{self, Read, Take};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::{Error, printable};
use crate::gunzip::Gunzip;
use crate::pax::Records;
use crate::sparse::{self, Described, Map, Segment};
use crate::{MAX_PATH, MAX_UNPACKED};

const BLOCK: u64 = 512;

/// The most of an extension header, in bytes.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// The most that is unpacked, headers and what is left out included.
const MAX_STREAM: u64 = MAX_UNPACKED + 256 * 1024 * 1024;

/// A member: what its own header and those before it say.
pub(crate) struct Member {
    /// As it stands there.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    /// The target of a link, as it stands there.
    pub(crate) target: Vec<u8>,
    /// Of its content, with its holes.
    pub(crate) size: u64,
}

/// The members of an archive, from the first to the last; their content is read between.
pub(crate) struct Members<R> {
    input: Take<Gunzip<R>>,
    /// Of the current member's content.
    map: Map,
    position: u64,
    /// What the archive has of the current member and was not read yet, with its padding.
    unread: u64,
    /// The current member's name, for errors.
    name: Vec<u8>,
}

/// What extension headers say of the next member.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(archive: R) -> Result<Self, Error> {
        let input = Gunzip::new(archive).map_err(|error| Error::Broken(error.to_string()))?;
        let input = input.ok_or(Error::NotGzip)?.take(MAX_STREAM);
        Ok(Self { input, map: Map::whole(0), position: 0, unread: 0, name: Vec::new() })
    }

    /// The next member; what was not read of the current one's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, Error> {
        let unread = std::mem::take(&mut self.unread);
        self.skip(unread)?;
        let mut extensions = Extensions::default();
        let mut is_extended = false;
        while let Some(header) = self.header()? {
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(until_nul(self.small(&header)?)),
                EntryType::GNULongLink => {
                    extensions.target = Some(until_nul(self.small(&header)?));
                }
                EntryType::XHeader => extensions.records = self.records(&header)?,
                EntryType::XGlobalHeader => {
                    let records = self.records(&header)?;
                    let speaks_of_members = |key: &[u8]| {
                        matches!(key, b"path" | b"linkpath" | b"size")
                            || key.starts_with(b"GNU.sparse.")
                    };
                    if records.iter().any(|(key, _)| speaks_of_members(key)) {
                        let why = "a global header must not set names or sizes";
                        return Err(Error::refused(&header.path_bytes(), why));
                    }
                    continue;
                }
                _ => return self.member(&header, extensions).map(Some),
            }
            is_extended = true;
        }
        if is_extended {
            return Err(Error::Broken("an entry is missing after its header".to_owned()));
        }
        Ok(None)
    }

    /// Reads what follows the members, so that the archive's checksum is verified.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        io::copy(&mut self.input, &mut io::sink()).map_err(|error| self.broken(&error))?;
        if self.input.limit() == 0 { Err(Error::TooLarge) } else { Ok(()) }
    }

    /// Reads the current member's content.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (is_hole, length) = self.map.at(self.position);
        let length = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..length];
        if is_hole {
            buffer.fill(0);
        } else {
            let read = self.input.read(buffer)?;
            if read == 0 && length > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.position += read as u64;
            self.unread -= read as u64;
            return Ok(read);
        }
        self.position += length as u64;
        Ok(length)
    }

    /// An error of the input, in the words of an error of ours.
    pub(crate) fn broken(&self, error: &io::Error) -> Error {
        if self.input.limit() == 0 {
            return Error::TooLarge;
        }
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
            _ => error.to_string(),
        };
        let after = match self.name.as_slice() {
            [] => String::new(),
            name => format!(", at or after `{}`", printable(name)),
        };
        Error::Broken(format!("{why}{after}"))
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, Error> {
        let Extensions { name, target, records } = extensions;
        let real_name = records.get("GNU.sparse.name").or(records.get("path"));
        let name = name
            .or(real_name.map(<[u8]>::to_vec))
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = target
            .or(records.get("linkpath").map(<[u8]>::to_vec))
            .or(header.link_name_bytes().map(|target| target.into_owned()))
            .unwrap_or_default();
        self.name.clone_from(&name);
        let refused = |why: &str| Error::refused(&name, why);
        let stored = header.entry_size().map_err(|_| refused("its size is no number"))?;
        // Programs differ in which of the two they believe; only files that are too large
        // for a configuration need the other one.
        if records.number("size").is_some_and(|size| size != Some(stored)) {
            return Err(refused("its headers have different sizes"));
        }
        let mut stored_content = stored;
        let map = if header.entry_type().is_gnu_sparse() {
            let (segments, size) = self.old_sparse_map(header, &name)?;
            Map::new(segments, size, stored)
        } else {
            match sparse::described(&records).map_err(refused)? {
                None => Ok(Map::whole(stored)),
                Some((Described::Here(segments), size)) => Map::new(segments, size, stored),
                Some((Described::BeforeContent, size)) => {
                    let segments = sparse::before_content(|| {
                        stored_content = stored_content
                            .checked_sub(BLOCK)
                            .ok_or_else(|| refused("the map of its holes is cut off"))?;
                        self.block()?.ok_or_else(|| Error::Broken("it is cut off".to_owned()))
                    })?;
                    segments.and_then(|segments| Map::new(segments, size, stored_content))
                }
            }
        };
        self.map = map.map_err(refused)?;
        self.position = 0;
        self.unread =
            padded(stored_content).ok_or_else(|| refused("its size is larger than any file"))?;
        let kind = header.entry_type();
        let mode = header.mode().unwrap_or(0o644);
        Ok(Member { name, kind, mode, target, size: self.map.size })
    }

    /// The map of an old GNU sparse file: in its header, and in blocks after that.
    fn old_sparse_map(
        &mut self,
        header: &Header,
        name: &[u8],
    ) -> Result<(Vec<Segment>, u64), Error> {
        let malformed = || Error::refused(name, "the map of its holes is malformed");
        let gnu = header.as_gnu().ok_or_else(malformed)?;
        let mut segments = Vec::new();
        let mut add = |stored: &[GnuSparseHeader]| {
            for segment in stored.iter().filter(|segment| !segment.is_empty()) {
                let offset = segment.offset().map_err(|_| malformed())?;
                let length = segment.length().map_err(|_| malformed())?;
                segments.push(Segment { offset, length });
            }
            if segments.len() > sparse::MAX_SEGMENTS {
                return Err(Error::refused(name, "its content has too many holes"));
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut more = GnuExtSparseHeader::new();
            let block = self.block()?.ok_or_else(malformed)?;
            more.as_mut_bytes().copy_from_slice(&block);
            add(more.sparse())?;
            is_extended = more.is_extended();
        }
        Ok((segments, gnu.real_size().map_err(|_| malformed())?))
    }

    /// The next header; none at the archive's end, be it marked or not.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let checksum = 148..156;
            let bytes = block.iter().enumerate();
            bytes.map(|(at, value)| if checksum.contains(&at) { 32 } else { byte(*value) }).sum()
        };
        // Old programs took the bytes for signed ones.
        let sums = [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))];
        let is_header = header.cksum().is_ok_and(|expected| sums.contains(&expected.into()));
        if !is_header {
            let error = io::Error::other("it is no tar archive, or a header of it is damaged");
            return Err(self.broken(&error));
        }
        Ok(Some(header))
    }

    /// The next block; none where the input ends.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, Error> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 && self.input.limit() > 0 => return Ok(None),
                Ok(0) => return Err(self.broken(&io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(Some(block))
    }

    fn records(&mut self, header: &Header) -> Result<Records, Error> {
        let text = self.small(header)?;
        let malformed = || Error::refused(&header.path_bytes(), "it is a malformed PAX header");
        Records::parse(&text).ok_or_else(malformed)
    }

    /// The whole content of an extension header.
    fn small(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = header.entry_size().ok().filter(|size| *size <= MAX_EXTENSION);
        let size = size.ok_or_else(|| {
            let why = format!("it is a header of more than {MAX_EXTENSION} bytes");
            Error::refused(&header.path_bytes(), why)
        })?;
        let mut content = vec![0; size.next_multiple_of(BLOCK) as usize];
        self.input.read_exact(&mut content).map_err(|error| self.broken(&error))?;
        content.truncate(size as usize);
        Ok(content)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == bytes => Ok(()),
            Ok(_) => Err(self.broken(&io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.broken(&error)),
        }
    }
}

/// With what fills its last block.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    // Longer ones are refused, with their beginning.
    name.truncate(end.min(2 * MAX_PATH));
    name
}

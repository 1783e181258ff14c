//! Where the content of a sparse file belongs: the maps of the old GNU format and of the
//! three versions that PAX headers have.

use std::collections::VecDeque;

use crate::pax::{self, Records};

/// The most segments of a map.
pub(crate) const MAX_SEGMENTS: usize = 65_536;

const MALFORMED: &str = "the map of its holes is malformed";

/// Which parts of a file are stored; the rest are holes.
#[derive(Debug)]
pub(crate) struct Map {
    segments: VecDeque<Segment>,
    /// Of the file, in bytes.
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Map {
    /// That of a file without holes.
    pub(crate) fn whole(size: u64) -> Self {
        Self { segments: VecDeque::from([Segment { offset: 0, length: size }]), size }
    }

    /// `stored` is how much the archive has of the file.
    pub(crate) fn new(
        segments: Vec<Segment>,
        size: u64,
        stored: u64,
    ) -> Result<Self, &'static str> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for Segment { offset, length } in &segments {
            // Some programs begin each segment at a block of its own, and some don't:
            // they agree where the segments before fill theirs.
            if *offset < end || *length > 0 && !sum.is_multiple_of(512) {
                return Err(MALFORMED);
            }
            end = offset.checked_add(*length).ok_or(MALFORMED)?;
            sum = sum.checked_add(*length).ok_or(MALFORMED)?;
        }
        if end > size || sum != stored {
            return Err(MALFORMED);
        }
        Ok(Self { segments: segments.into(), size })
    }

    /// What comes at `position`: a hole or stored bytes, and how many.
    pub(crate) fn at(&mut self, position: u64) -> (bool, u64) {
        while let Some(segment) = self.segments.front() {
            if position < segment.offset {
                return (true, segment.offset - position);
            }
            let left = segment.offset + segment.length - position;
            if left > 0 {
                return (false, left);
            }
            self.segments.pop_front();
        }
        (true, self.size - position)
    }
}

/// Where the map is that a PAX header speaks of.
pub(crate) enum Described {
    /// Version 0.0 or 0.1.
    Here(Vec<Segment>),
    /// Version 1.0.
    BeforeContent,
}

/// What a PAX header says of a sparse file, and the file's size; none: it is no such
/// file.
pub(crate) fn described(records: &Records) -> Result<Option<(Described, u64)>, &'static str> {
    let size = |key| records.number(key).flatten().ok_or(MALFORMED);
    match (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => {
            return Ok(Some((Described::BeforeContent, size("GNU.sparse.realsize")?)));
        }
        (None, None) => {}
        (Some(b"0"), Some(b"0" | b"1")) => {}
        _ => return Err("its sparse format is unknown"),
    }
    let mut numbers = Vec::new();
    if let Some(map) = records.get("GNU.sparse.map") {
        for text in map.split(|byte| *byte == b',') {
            numbers.push(pax::number(text).ok_or(MALFORMED)?);
        }
    } else {
        for (key, value) in records.iter() {
            let expected = if numbers.len() % 2 == 0 { "offset" } else { "numbytes" };
            match key.strip_prefix(b"GNU.sparse.") {
                Some(b"offset" | b"numbytes") if key.ends_with(expected.as_bytes()) => {
                    numbers.push(pax::number(value).ok_or(MALFORMED)?);
                }
                Some(b"offset" | b"numbytes") => return Err(MALFORMED),
                _ => {}
            }
        }
        if numbers.is_empty() && records.get("GNU.sparse.size").is_none() {
            return Ok(None);
        }
    }
    Ok(Some((Described::Here(segments(&numbers)?), size("GNU.sparse.size")?)))
}

/// Pairs of offset and length.
pub(crate) fn segments(numbers: &[u64]) -> Result<Vec<Segment>, &'static str> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
        return Err(MALFORMED);
    }
    let pairs = numbers.chunks_exact(2);
    Ok(pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Reads the map before the content: how many segments, then offset and length of each,
/// a line for each number, padded to whole blocks. `block` gives the next block.
pub(crate) fn before_content<E>(
    mut block: impl FnMut() -> Result<[u8; 512], E>,
) -> Result<Result<Vec<Segment>, &'static str>, E> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut wanted = 1;
    while numbers.len() < wanted {
        for byte in block()? {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let Some(number) = pax::number(&line) else { return Ok(Err(MALFORMED)) };
            line.clear();
            if numbers.is_empty() {
                match usize::try_from(number) {
                    Ok(segments) if segments <= MAX_SEGMENTS => wanted = 1 + 2 * segments,
                    _ => return Ok(Err("its content has too many holes")),
                }
            }
            numbers.push(number);
        }
        if line.len() > 512 {
            return Ok(Err(MALFORMED));
        }
    }
    Ok(segments(&numbers[1..]))
}

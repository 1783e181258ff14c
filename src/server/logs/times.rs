//! When the pieces of a log came, in a file beside it.
//!
//! The log itself stays as its run wrote it. A record is 16 bytes: the offset of a piece and
//! the time of its arrival, in milliseconds since 1970, both little-endian. Pieces that come
//! within a second have one record, so a log of a day has at most 1.4 MB of them. They
//! are not synced: a crash of the machine can lose the last ones, which costs only times.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::clock::Millis;

/// The size of a record, in bytes.
const RECORD: usize = 16;

/// Pieces that come in less time have one record.
const RESOLUTION: Millis = 1000;

/// A piece of a log.
#[derive(Clone, Copy)]
struct Record {
    /// Where it begins, in bytes.
    offset: u64,
    /// When it came.
    at: Millis,
}

impl Record {
    fn from_bytes(bytes: [u8; RECORD]) -> Self {
        let both = u128::from_le_bytes(bytes);
        let [offset, at] = [both, both >> 64].map(|half| half as u64);
        Self { offset, at: at.cast_signed() }
    }

    fn to_bytes(self) -> [u8; RECORD] {
        (u128::from(self.offset) | u128::from(self.at.cast_unsigned()) << 64).to_le_bytes()
    }
}

/// Notes when the piece at `offset` of a log came.
pub(super) fn note(log: &Path, offset: u64, at: Millis) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(path(log))?;
    // Not behind half a record that a crash left.
    let end = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
    if let Some(last) = end.checked_sub(RECORD as u64) {
        let last = record(&file, last)?.at;
        // A clock that was set back does not stop the notes.
        if (last..last + RESOLUTION).contains(&at) {
            return Ok(());
        }
    }
    file.write_all_at(&Record { offset, at }.to_bytes(), end)
}

/// Forgets the times of a log that is sent again.
pub(super) fn forget(log: &Path) -> io::Result<()> {
    match fs::remove_file(path(log)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// When what is at each of these offsets of a log came, to the second; none if that is not known.
pub(super) fn read(log: &Path, offsets: &[u64]) -> io::Result<Vec<Option<Millis>>> {
    let bytes = match fs::read(path(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let records: Vec<_> =
        bytes.as_chunks().0.iter().map(|bytes| Record::from_bytes(*bytes)).collect();
    let at = |offset: &u64| {
        let later = records.partition_point(|record| record.offset <= *offset);
        later.checked_sub(1).map(|last| records[last].at)
    };
    Ok(offsets.iter().map(at).collect())
}

fn record(file: &File, at: u64) -> io::Result<Record> {
    let mut bytes = [0; RECORD];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Record::from_bytes(bytes))
}

fn path(log: &Path) -> PathBuf {
    log.with_extension("times")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_its_piece_to_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("task-1.1.log");
        assert_eq!(read(&log, &[0, 7]).unwrap(), [None, None]);
        for (offset, at) in [(0, 1000), (10, 1999), (20, 2000), (30, 500), (40, 90_000)] {
            note(&log, offset, at).unwrap();
        }
        let times = read(&log, &[0, 9, 10, 20, 29, 30, 1000]).unwrap();
        let expected = [1000, 1000, 1000, 2000, 2000, 500, 90_000];
        assert_eq!(times, expected.map(Some));
        forget(&log).unwrap();
        forget(&log).unwrap();
        note(&log, 5, 3000).unwrap();
        assert_eq!(read(&log, &[4, 5]).unwrap(), [None, Some(3000)]);
    }

    #[test]
    fn half_a_record_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("task-1.1.log");
        note(&log, 0, 1000).unwrap();
        let mut torn = fs::read(path(&log)).unwrap();
        torn.extend([9; 7]);
        fs::write(path(&log), torn).unwrap();
        assert_eq!(read(&log, &[8]).unwrap(), [Some(1000)]);
        note(&log, 8, 5000).unwrap();
        assert_eq!(read(&log, &[7, 8]).unwrap(), [Some(1000), Some(5000)]);
    }
}

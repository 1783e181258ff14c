//! The archives of configurations: what is taken, what is left out, limits.
//!
//! The server checks an archive with the same [`Reader`] that the agent unpacks it with,
//! so that a run never fails for an archive that was taken at its upload.

mod error;
mod gunzip;
mod left_out;
mod members;
mod pax;
mod reader;
mod sparse;
mod tree;

pub use error::Error;
pub use left_out::is_left_out;
pub use reader::{Entry, Kind, Reader, check, inside, stays_inside};

/// The largest archive, packed, in bytes.
pub const MAX_PACKED: usize = 100 * 1024 * 1024;

/// The most that an archive's files may have together, in bytes; holes of sparse files
/// count.
pub const MAX_UNPACKED: u64 = 1024 * 1024 * 1024;

/// The most entries of an archive, with the directories that it only implies.
pub const MAX_ENTRIES: usize = 100_000;

/// The most names that all paths and links of an archive may have together: each is looked up.
pub const MAX_NAMES: usize = 2_000_000;

/// The longest path of an entry, in bytes. Linux has 4096, for the folder as well that
/// a run's configuration is in.
pub const MAX_PATH: usize = 2048;

//! Why an archive is no configuration.

use crate::MAX_UNPACKED;

/// Why an archive is no configuration.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is something else, a zip or a plain tar for example.
    #[error("the archive is not compressed with gzip; make it with `tar -czf`, for example")]
    NotGzip,
    /// It is damaged, or cut off.
    #[error("the archive is broken: {0}")]
    Broken(String),
    /// There is too much between its entries, or after them.
    #[error("the archive unpacks to more than {} MiB", MAX_UNPACKED >> 20)]
    TooLarge,
    /// It has no files.
    #[error("the archive has no files")]
    Empty,
    /// An entry that can't be taken.
    #[error("cannot take `{entry}`: {why}")]
    Refused {
        /// The entry's name as it stands in the archive; what is not printable is escaped.
        entry: String,
        /// One sentence, without its end.
        why: String,
    },
}

impl Error {
    pub(crate) fn refused(entry: &[u8], why: impl Into<String>) -> Self {
        Self::Refused { entry: printable(entry), why: why.into() }
    }
}

/// A name for people: it may be long, and anything may be in it.
pub(crate) fn printable(name: &[u8]) -> String {
    const MOST: usize = 300;
    let text = String::from_utf8_lossy(name);
    let mut printable: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        printable.push('…');
    }
    printable
}

//! Sums of files that are too large to be read whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file, in lower-case hex.
///
/// # Errors
/// It can't be read.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    File::open(path).and_then(sha256_of).with_context(cannot)
}

/// The SHA-256 of what is left to read, in lower-case hex.
///
/// # Errors
/// It can't be read.
pub(crate) fn sha256_of(mut content: impl Read) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = content.read(&mut piece)?;
        if read == 0 {
            return Ok(hex::encode(sum.finalize()));
        }
        sum.update(&piece[..read]);
    }
}

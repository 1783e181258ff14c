//! Sums of files that are too large to be read whole.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file, in lower-case hex.
///
/// # Errors
/// It can't be read.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut piece).with_context(cannot)?;
        if read == 0 {
            return Ok(hex::encode(sum.finalize()));
        }
        sum.update(&piece[..read]);
    }
}

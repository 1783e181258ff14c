//! The size of an rpm's unpacked archive, which cargo-generate-rpm does not write. rpm
//! 4.11 draws its progress by it: without it, `rpm -ivh` prints number signs without
//! end, and yum prints no progress at all.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use rpm::{Header, HeaderEntry, IndexData, IndexSignatureTag, Package};

/// Adds the tag to the rpm in `file`, which has to be unsigned and compressed with gzip.
///
/// # Errors
/// It is no such rpm, or can't be written.
pub(super) fn add(file: &Path) -> Result<()> {
    with_size(file).with_context(|| format!("cannot add its size to {}", file.display()))
}

fn with_size(file: &Path) -> Result<()> {
    let mut package = Package::open(file)?;
    let bytes = io::copy(&mut GzDecoder::new(&*package.payload), &mut io::sink())?;
    let size = IndexData::Int32(vec![u32::try_from(bytes)?]);
    let region = IndexSignatureTag::HEADER_SIGNATURES;
    let entries = package
        .metadata
        .signature
        .get_all_entries()?
        .into_iter()
        .map(|(tag, data)| HeaderEntry::new(tag, data))
        .filter(|entry| entry.tag != region as u32)
        .chain([HeaderEntry::new(IndexSignatureTag::RPMSIGTAG_PAYLOADSIZE as u32, size)]);
    package.metadata.signature = Header::from_entries(entries, region);
    let mut writer = BufWriter::new(File::create(file)?);
    package.write(&mut writer)?;
    Ok(writer.flush()?)
}

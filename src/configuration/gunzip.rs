//! What gzip(1) makes of a file: all of its members, and nothing of what follows them.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;

/// The first byte of every member.
const MAGIC: u8 = 0x1f;

/// The content of a gzip file. `flate2`'s reader of several members takes padding or a
/// signature at the file's end for a broken member.
pub(crate) struct Gunzip<R> {
    member: Option<GzDecoder<BufReader<R>>>,
}

impl<R: Read> Gunzip<R> {
    /// None if `input` is no gzip file.
    pub(crate) fn new(input: R) -> io::Result<Option<Self>> {
        Ok(member(BufReader::new(input))?.map(|member| Self { member: Some(member) }))
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(current) = &mut self.member {
            let read = current.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let ended = self.member.take().expect("it was read just now");
            self.member = member(ended.into_inner())?;
        }
        Ok(0)
    }
}

fn member<R: Read>(mut input: BufReader<R>) -> io::Result<Option<GzDecoder<BufReader<R>>>> {
    let is_member = input.fill_buf()?.first() == Some(&MAGIC);
    Ok(is_member.then(|| GzDecoder::new(input)))
}

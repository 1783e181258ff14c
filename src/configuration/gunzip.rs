//! What gzip(1) makes of a file: all of its members, and nothing of what follows them.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;

/// The first byte of every member.
const MAGIC: u8 = 0x1f;

/// The content of a gzip file. `flate2`'s reader of several members takes padding or a
/// signature at the file's end for a broken member.
pub(crate) struct Gunzip<R> {
    member: Option<GzDecoder<BufReader<R>>>,
    /// How many members came before.
    ended: usize,
}

/// The most members: bgzip begins one for each 64 KiB, so that as much as may be unpacked has
/// a quarter of these. Each takes 4 µs, also when it is empty.
const MAX_MEMBERS: usize = 65_536;

impl<R: Read> Gunzip<R> {
    /// None if `input` is no gzip file.
    pub(crate) fn new(input: R) -> io::Result<Option<Self>> {
        Ok(member(BufReader::new(input))?.map(|member| Self { member: Some(member), ended: 0 }))
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
            self.ended += 1;
            if self.ended == MAX_MEMBERS {
                let why = format!("it has more than {} gzip members", MAX_MEMBERS - 1);
                return Err(io::Error::other(why));
            }
            self.member = member(ended.into_inner())?;
        }
        Ok(0)
    }
}

fn member<R: Read>(mut input: BufReader<R>) -> io::Result<Option<GzDecoder<BufReader<R>>>> {
    let is_member = input.fill_buf()?.first() == Some(&MAGIC);
    Ok(is_member.then(|| GzDecoder::new(input)))
}

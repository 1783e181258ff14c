//! Masks secrets in a stream of bytes, wherever the stream is cut.
//!
//! A secret is looked for twice: in the bytes as they are, and in what a reader sees
//! of them ([`fold`]), since Terraform underlines part of a line and wraps others.

mod fold;
mod forms;
mod needles;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use fold::{Fold, folded};
use forms::forms;
use memchr::memchr;
use needles::Needles;

/// What stands in the log in a secret's place.
const MASK: &[u8] = b"***";

/// A stream's filter.
///
/// What comes out depends on the bytes that went in, not on how they were cut
/// into pieces: the same stream, filtered again, gives the same bytes. It
/// keeps back only what may be the beginning of a secret.
///
/// A masked secret that is broken into lines stays so: one mask for each line.
/// Escape sequences inside of it stay as well, so that colours end.
pub struct Redactor {
    /// None when there is nothing to mask.
    needles: Option<Arc<Needles>>,
    fold: Fold,
    /// What may be the beginning of a secret, with what is known of each byte.
    kept: Vec<u8>,
    marks: Vec<Mark>,
    /// Where in the stream that begins.
    kept_from: usize,
    /// From where on in the stream it is open whether the bytes themselves are a secret.
    open_from: usize,
    /// Whether the last byte was one of a secret.
    masking: bool,
}

/// What is done with a byte. Of two that are found, the greater one holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Shown,
    /// In between a secret's bytes: it is shown and the mask goes on.
    Passed,
    Dropped,
    Secret,
}

impl Redactor {
    /// A filter for `secrets` and for each one's base64, JSON and URL forms.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let exact: BTreeSet<Vec<u8>> = secrets.into_iter().flat_map(forms).collect();
        let seen = exact.iter().map(|form| folded(form)).filter(|form| forms::is_long(form));
        Self::with(Needles::new(seen.chain(exact.iter().cloned()).collect()).map(Arc::new))
    }

    /// A filter for the same secrets, for another stream.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::with(self.needles.clone())
    }

    fn with(needles: Option<Arc<Needles>>) -> Self {
        Self {
            needles,
            fold: Fold::new(),
            kept: Vec::new(),
            marks: Vec::new(),
            kept_from: 0,
            open_from: 0,
            masking: false,
        }
    }

    /// Takes more of the stream and gives what can go on.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.needles.is_none() {
            return bytes.to_vec();
        }
        self.kept.extend_from_slice(bytes);
        self.marks.resize(self.kept.len(), Mark::Shown);
        self.fold.push(bytes);
        self.drain(false)
    }

    /// The stream has ended: gives what was kept back.
    pub fn finish(&mut self) -> Vec<u8> {
        self.fold.finish();
        self.drain(true)
    }

    /// Masks a whole text.
    pub fn mask(mut self, text: &str) -> String {
        let mut masked = self.push(text.as_bytes());
        masked.extend(self.finish());
        String::from_utf8_lossy(&masked).into_owned()
    }

    fn drain(&mut self, ended: bool) -> Vec<u8> {
        let Some(needles) = &self.needles else { return Vec::new() };
        let open = self.open_from - self.kept_from;
        let (found, rest) = needles.find(&self.kept[open..], ended);
        for Range { start, end } in found {
            self.marks[open + start..open + end].fill(Mark::Secret);
        }
        self.open_from += rest;

        let (found, rest) = needles.find(self.fold.text(), ended);
        for range in found {
            self.mark_folded(range);
        }
        let decided = self.fold.drain(rest).min(self.open_from) - self.kept_from;
        self.emit(decided)
    }

    /// Marks what a part of the folded text was made of.
    fn mark_folded(&mut self, range: Range<usize>) {
        let last = range.end - 1;
        for at in range {
            let begin = self.fold.origin(at) - self.kept_from;
            let is_blank = self.fold.text()[at] == b' ';
            if !is_blank {
                self.marks[begin] = Mark::Secret;
            }
            if at == last {
                return;
            }
            let end = self.fold.origin(at + 1) - self.kept_from;
            let gap = if is_blank { begin..end } else { begin + 1..end };
            let bytes = &self.kept[gap.clone()];
            let mark = match memchr(b'\x1b', bytes) {
                _ if is_blank && memchr(b'\n', bytes).is_some() => Mark::Shown,
                Some(_) => Mark::Passed,
                None => Mark::Dropped,
            };
            for byte in &mut self.marks[gap] {
                *byte = mark.max(*byte);
            }
        }
    }

    /// Gives so much of what was kept, masked.
    fn emit(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        let mut at = 0;
        for marks in self.marks[..length].chunk_by(PartialEq::eq) {
            let bytes = &self.kept[at..at + marks.len()];
            at += marks.len();
            match marks[0] {
                Mark::Shown => {
                    out.extend_from_slice(bytes);
                    self.masking = false;
                }
                Mark::Passed => out.extend_from_slice(bytes),
                Mark::Dropped => {}
                Mark::Secret => {
                    if !self.masking {
                        out.extend_from_slice(MASK);
                    }
                    self.masking = true;
                }
            }
        }
        self.kept.drain(..length);
        self.marks.drain(..length);
        self.kept_from += length;
        out
    }
}

//! Keeps a log's length within a limit: its beginning and its end are kept.

use std::collections::VecDeque;

/// How much of the end of a log that is too long is kept, in bytes. Terraform
/// says there what came of it.
const END: usize = 64 * 1024;

/// How far beyond the limit the beginning may go to end with a whole line, in
/// bytes.
const LINE: usize = 4 * 1024;

/// Precedes a notice: colours that the cut has left on go off.
const PLAIN: &str = "\n\x1b[0m";

/// A stream's limiter.
///
/// As with a [`protocol::redact::Redactor`] its output depends on the
/// bytes alone, not on how they were cut into pieces.
pub(crate) struct Limiter {
    limit: u64,
    taken: u64,
    /// Whether the beginning has its end.
    is_cut: bool,
    /// The last of what came after the beginning, [`END`] bytes at most.
    end: VecDeque<u8>,
    left_out: u64,
}

impl Limiter {
    /// A limiter that lets `limit` bytes pass, and the end.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, taken: 0, is_cut: false, end: VecDeque::new(), left_out: 0 }
    }

    /// Takes more of the stream and gives what can go on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let beginning = if self.is_cut { 0 } else { self.beginning(bytes) };
        let mut out = bytes[..beginning].to_vec();
        self.taken += beginning as u64;
        self.end.extend(&bytes[beginning..]);
        if self.end.len() > END {
            if self.left_out == 0 {
                out.extend(self.notice("what follows is left out, but for its end").bytes());
            }
            let more = self.end.len() - END;
            self.end.drain(..more);
            self.left_out += more as u64;
        }
        out
    }

    /// The stream has ended: gives its end.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut end = Vec::from(std::mem::take(&mut self.end));
        if self.left_out == 0 {
            return end;
        }
        let whole_line = end.iter().take(LINE).position(|byte| *byte == b'\n');
        let begin = whole_line.map(|at| at + 1).or(end.iter().position(|byte| !is_inside(*byte)));
        end.drain(..begin.unwrap_or(0));
        let left_out = self.left_out + begin.unwrap_or(0) as u64;
        let notice = self.notice(&format!("{left_out} bytes were left out here; its end follows"));
        [notice.as_bytes(), &end].concat()
    }

    /// How many of these bytes belong to the beginning, which ends with a whole
    /// line, or at least with a whole character.
    fn beginning(&mut self, bytes: &[u8]) -> usize {
        let within = usize::try_from(self.limit.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        for (at, byte) in bytes.iter().enumerate().skip(within) {
            let is_too_long = self.taken + at as u64 >= self.limit + LINE as u64;
            if *byte == b'\n' || is_too_long && !is_inside(*byte) {
                self.is_cut = true;
                return if is_too_long { at } else { at + 1 };
            }
        }
        bytes.len()
    }

    fn notice(&self, what: &str) -> String {
        let limit = self.limit / (1024 * 1024);
        format!("{PLAIN}[The log is longer than its limit of {limit} MB (log_limit): {what}.]\n")
    }
}

/// Whether a byte is not a character's first one, in UTF-8.
fn is_inside(byte: u8) -> bool {
    matches!(byte, 0x80..=0xbf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(limit: u64, text: &[u8], size: usize) -> Vec<u8> {
        let mut limiter = Limiter::new(limit);
        let mut out: Vec<u8> = text.chunks(size).flat_map(|piece| limiter.push(piece)).collect();
        out.extend(limiter.finish());
        out
    }

    #[test]
    fn what_is_within_the_limit_passes() {
        let text: Vec<u8> = "one é\n".repeat(9_000).into_bytes();
        assert_eq!(limited(text.len() as u64, &text, 7), text);
        assert_eq!(limited(10_000, &text, 1000), text, "the end is kept whole");
    }

    #[test]
    fn a_long_log_keeps_both_ends_and_says_so_at_both() {
        let text: String = (0..100_000).map(|n| format!("line {n} é\n")).collect();
        let out = limited(20_000, text.as_bytes(), 1013);
        for size in [1, 4096, text.len()] {
            assert!(limited(20_000, text.as_bytes(), size) == out, "pieces of {size}");
        }
        let out = String::from_utf8(out).unwrap();
        let [beginning, gap, end] = out.split("\n\x1b[0m[").collect::<Vec<_>>()[..] else {
            panic!("two notices in {out}")
        };
        assert!(text.starts_with(beginning) && beginning.len() >= 19_999);
        let (notice, nothing) = gap.split_once("]\n").unwrap();
        assert!(notice.ends_with("what follows is left out, but for its end."), "{notice}");
        assert_eq!(nothing, "");
        let (notice, end) = end.split_once("]\n").unwrap();
        let left_out = text.len() - beginning.len() - end.len();
        assert!(notice.contains(&format!("{left_out} bytes were left out here")), "{notice}");
        assert!(text.ends_with(end) && end.starts_with("line ") && end.len() > END - 100);
    }

    #[test]
    fn a_log_without_lines_is_cut_between_characters() {
        let text = "€".repeat(100_000);
        let out = String::from_utf8(limited(10_000, text.as_bytes(), 999)).unwrap();
        assert_eq!(out.matches("limit").count(), 4);
    }
}

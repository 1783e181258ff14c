//! A log by its lines.
//!
//! A line is what stands between two line feeds. An index remembers where every so many lines
//! begin and in which style, so that any part of a log is read without what is before it. The
//! memory that this takes does not grow with the log: the index remembers fewer lines when
//! it gets full, and of a line only so much is shown.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use aho_corasick::AhoCorasick;
use memchr::{memchr, memchr2};
use serde::Serialize;

use super::ansi::{Line, Style};
use crate::clock::Millis;

/// How many bytes of a line are shown, and searched.
const MAX_LINE: usize = 64 * 1024;

/// After how many bytes of HTML an answer ends, although more lines were asked for.
const MAX_HTML: usize = 2 * 1024 * 1024;

/// How many matches a search gives.
const MAX_MATCHES: usize = 10_000;

/// How many places an index remembers, and how many lines lie between them at first.
const MAX_MARKS: usize = 4096;
const FIRST_STRIDE: u64 = 1000;

/// Where lines begin.
#[derive(Debug)]
pub(super) struct Index {
    /// The beginning of every `stride`th line, from the first on.
    marks: Vec<Mark>,
    stride: u64,
    /// How many lines have ended.
    complete: u64,
    /// Where the line behind them begins.
    end: Mark,
}

/// The beginning of a line.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// In bytes.
    offset: u64,
    style: Style,
}

/// Some lines of a log.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Lines {
    /// The number of the first one, from 1.
    pub first: u64,
    /// Each as HTML.
    pub html: Vec<String>,
    /// When each began to come; none where that is not known.
    pub times: Vec<Option<Millis>>,
    /// How many lines the log has. The last one may not have ended.
    pub total: u64,
    /// How many bytes the log has.
    pub bytes: u64,
}

/// Which lines have a text.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Matches {
    /// Their numbers, from 1.
    pub lines: Vec<u64>,
    /// Whether there are more.
    pub more: bool,
}

impl Lines {
    /// Those of a log that is not there yet.
    pub(crate) fn none(first: u64) -> Self {
        Self { first, html: Vec::new(), times: Vec::new(), total: 0, bytes: 0 }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            marks: vec![Mark::default()],
            stride: FIRST_STRIDE,
            complete: 0,
            end: Mark::default(),
        }
    }
}

impl Index {
    /// Reads what `log` has more than the index knows, up to `length` bytes.
    pub(super) fn extend(&mut self, log: &File, length: u64) -> io::Result<()> {
        if length < self.end.offset {
            *self = Self::default();
        }
        let mut reader = reader(log, self.end.offset..length)?;
        let mut line = Vec::new();
        loop {
            let Read { bytes, ended: true } = read_line(&mut reader, &mut line)? else {
                return Ok(());
            };
            self.complete += 1;
            self.end = Mark { offset: self.end.offset + bytes, style: self.end.style.after(&line) };
            if self.complete.is_multiple_of(self.stride) {
                self.remember();
            }
        }
    }

    /// How many lines a log of `length` bytes has, also one that has not ended.
    fn total(&self, length: u64) -> u64 {
        self.complete + u64::from(length > self.end.offset)
    }

    fn remember(&mut self) {
        self.marks.push(self.end);
        if self.marks.len() == MAX_MARKS {
            let mut is_even = false;
            self.marks.retain(|_| {
                is_even = !is_even;
                is_even
            });
            self.stride *= 2;
        }
    }

    /// The number of the last line at or before this one, from 0, that the index knows, and
    /// where it begins.
    fn before(&self, line: u64) -> (u64, Mark) {
        let at = (line / self.stride).min(self.marks.len() as u64 - 1);
        (at * self.stride, self.marks[usize::try_from(at).expect("there are few marks")])
    }

    /// Up to `count` lines from `first` on, a number from 1, of the log that the index was made
    /// of, without their times, and where each begins; the last ones if it is none.
    pub(super) fn read(
        &self,
        log: &File,
        length: u64,
        first: Option<u64>,
        count: u64,
    ) -> io::Result<(Lines, Vec<u64>)> {
        let total = self.total(length);
        let first = match first {
            Some(first) => first.max(1),
            None => (total + 1).saturating_sub(count).max(1),
        };
        let mut lines = Lines { total, bytes: length, ..Lines::none(first) };
        let mut offsets = Vec::new();
        let (mut number, mark) = self.before(first - 1);
        let mut offset = mark.offset;
        let mut reader = reader(log, mark.offset..length)?;
        let (mut style, mut line, mut size) = (mark.style, Vec::new(), 0);
        while number < total && number < (first - 1).saturating_add(count) && size < MAX_HTML {
            let Read { bytes, ended } = read_line(&mut reader, &mut line)?;
            if number + 1 >= first {
                let shown = Line::read(&line, style);
                let mut html = String::new();
                shown.write_html(&mut html);
                let hidden = (bytes - u64::from(ended)).saturating_sub(line.len() as u64);
                if hidden > 0 {
                    html.push_str(&format!(" … and {hidden} more bytes: download the log"));
                }
                style = shown.end_style();
                size += html.len();
                lines.html.push(html);
                offsets.push(offset);
            } else {
                style = style.after(&line);
            }
            number += 1;
            offset += bytes;
        }
        Ok((lines, offsets))
    }
}

/// The lines with `text` in them, whatever its case in ASCII.
pub(super) fn search(log: &File, length: u64, text: &str) -> io::Result<Matches> {
    let mut found = Matches::default();
    if text.is_empty() {
        return Ok(found);
    }
    let searcher = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build([text])
        .map_err(io::Error::other)?;
    let mut reader = reader(log, 0..length)?;
    let (mut line, mut plain) = (Vec::new(), Vec::new());
    for number in 1.. {
        if read_line(&mut reader, &mut line)?.bytes == 0 {
            break;
        }
        let matches = match without_colours(&line, &mut plain) {
            Some(plain) => searcher.is_match(plain),
            None => searcher.is_match(&Line::read(&line, Style::default()).text()),
        };
        if matches {
            if found.lines.len() == MAX_MATCHES {
                found.more = true;
                break;
            }
            found.lines.push(number);
        }
    }
    Ok(found)
}

/// The text of a line in which there are colours and nothing else that is not text, made in
/// `plain`: a search of 200,000 such lines takes half as long as if each was read as a terminal
/// does, 7 s instead of 13 in a debug build. None: there is more.
fn without_colours<'a>(line: &'a [u8], plain: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if memchr2(b'\r', 0x08, line).is_some() {
        return None;
    }
    let mut rest = line;
    plain.clear();
    while let Some(at) = memchr(b'\x1b', rest) {
        plain.extend_from_slice(&rest[..at]);
        let parameters = rest[at + 1..].strip_prefix(b"[")?;
        let end = parameters.iter().position(|byte| !matches!(byte, b'0'..=b';'))?;
        rest = parameters[end..].strip_prefix(b"m")?;
    }
    if plain.is_empty() && rest.len() == line.len() {
        return Some(line);
    }
    plain.extend_from_slice(rest);
    Some(plain)
}

/// What [`read_line`] read.
struct Read {
    /// With those that it did not keep, and with the line feed.
    bytes: u64,
    /// Whether there was a line feed.
    ended: bool,
}

/// Reads a line into `line`, of which that keeps [`MAX_LINE`] bytes, without its line feed.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Read> {
    line.clear();
    let mut bytes = 0;
    loop {
        let piece = log.fill_buf()?;
        let end = memchr(b'\n', piece);
        let text = &piece[..end.unwrap_or(piece.len())];
        line.extend_from_slice(&text[..text.len().min(MAX_LINE - line.len())]);
        let used = text.len() + usize::from(end.is_some());
        log.consume(used);
        bytes += used as u64;
        if end.is_some() || used == 0 {
            return Ok(Read { bytes, ended: end.is_some() });
        }
    }
}

fn reader(mut log: &File, part: Range<u64>) -> io::Result<impl BufRead> {
    log.seek(SeekFrom::Start(part.start))?;
    Ok(BufReader::with_capacity(64 * 1024, log.take(part.end.saturating_sub(part.start))))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Log {
        file: File,
        index: Index,
        length: u64,
    }

    impl Log {
        fn new() -> Self {
            Self { file: tempfile::tempfile().unwrap(), index: Index::default(), length: 0 }
        }

        fn of(text: impl AsRef<[u8]>) -> Self {
            let mut log = Self::new();
            log.append(text);
            log
        }

        fn append(&mut self, text: impl AsRef<[u8]>) {
            self.file.seek(SeekFrom::End(0)).unwrap();
            self.file.write_all(text.as_ref()).unwrap();
            self.length += text.as_ref().len() as u64;
            self.index.extend(&self.file, self.length).unwrap();
        }

        fn read(&self, first: Option<u64>, count: u64) -> Lines {
            self.index.read(&self.file, self.length, first, count).unwrap().0
        }

        fn search(&self, text: &str) -> Matches {
            search(&self.file, self.length, text).unwrap()
        }
    }

    fn lines(numbers: std::ops::RangeInclusive<u64>) -> String {
        numbers.map(|n| format!("line {n}\n")).collect()
    }

    #[test]
    fn any_part_of_a_log_is_read_by_its_lines() {
        let log = Log::of(lines(1..=2500));
        let part = log.read(Some(2001), 3);
        assert_eq!((part.first, part.total), (2001, 2500));
        assert_eq!(part.html, ["line 2001", "line 2002", "line 2003"]);
        let end = log.read(None, 2);
        assert_eq!(
            (end.first, &end.html[..]),
            (2499, &["line 2499".into(), "line 2500".into()][..])
        );
        assert_eq!(log.read(Some(2501), 5).html, [""; 0]);
        assert_eq!(Log::of("").read(None, 5).total, 0);
    }

    #[test]
    fn a_log_grows_in_the_middle_of_a_line() {
        let mut log = Log::of("one\ntw");
        assert_eq!(log.read(None, 9).html, ["one", "tw"]);
        log.append("o\x1b[31m\nthree");
        let all = log.read(Some(1), 9);
        assert_eq!(all.html, ["one", "two", "<span class=\"fg1\">three</span>"]);
        assert_eq!((all.total, all.bytes), (3, 18));
        log.append("\n");
        assert_eq!(log.read(None, 9).total, 3);
    }

    #[test]
    fn a_line_has_the_style_of_the_one_before_it_wherever_reading_begins() {
        let mut text = lines(1..=999);
        text.push_str("\x1b[32mgreen\n");
        text.push_str(&lines(1001..=3100));
        let log = Log::of(&text);
        for first in [1001, 1999, 2000, 2001, 3000, 3100] {
            let expected = format!("<span class=\"fg2\">line {first}</span>");
            assert_eq!(log.read(Some(first), 1).html, [expected]);
        }
        assert_eq!(log.read(Some(999), 1).html, ["line 999"]);
    }

    #[test]
    fn a_log_that_was_emptied_is_read_from_its_start() {
        let mut log = Log::of(lines(1..=10));
        log.file.set_len(0).unwrap();
        log.length = 0;
        log.append("other\n");
        assert_eq!(log.read(None, 5).html, ["other"]);
    }

    #[test]
    fn the_index_of_a_long_log_stays_small_and_right() {
        let count = FIRST_STRIDE * MAX_MARKS as u64 * 2 + 17;
        let mut index = Index::default();
        for _ in 0..count {
            // As `extend` does, with lines of one byte.
            index.complete += 1;
            index.end.offset += 1;
            if index.complete.is_multiple_of(index.stride) {
                index.remember();
            }
        }
        assert!(index.marks.len() < MAX_MARKS);
        for line in [0, 1, 999, 1000, 5_000_000, count] {
            let (number, mark) = index.before(line);
            assert_eq!(number, mark.offset);
            assert!(number <= line && line - number < index.stride * 2, "{line}: {number}");
        }
    }

    #[test]
    fn endless_lines_and_sequences_are_cut() {
        let mut text = b"\x1b]0;".to_vec();
        text.resize(3 * MAX_LINE, b'x');
        text.extend_from_slice(b"\nnext\n");
        let mut long = vec![b'<'; 2 * MAX_LINE];
        long.push(b'\n');
        text.extend(long);
        let log = Log::of(&text);
        let shown = log.read(Some(1), 3);
        assert_eq!(shown.html[0], format!(" … and {} more bytes: download the log", 2 * MAX_LINE));
        assert_eq!(shown.html[1], "next");
        assert!(shown.html[2].len() < 5 * MAX_LINE);
        let many = Log::of("<".repeat(MAX_LINE) + "\n" + &("<".repeat(MAX_LINE) + "\n").repeat(99));
        let part = many.read(Some(1), 100);
        assert!(part.html.len() < 100 && !part.html.is_empty());
    }

    #[test]
    fn a_search_finds_text_and_not_its_looks() {
        let log = Log::of("Plan: 1 to add\n\x1b[1mpl\x1b[0mAN:\nxxxx\rplan:\nnone [1m\n");
        assert_eq!(log.search("plan:"), Matches { lines: vec![1, 2, 3], more: false });
        assert_eq!(log.search("[1m").lines, [4]);
        assert_eq!(log.search(""), Matches::default());
        let many = Log::of("x\n".repeat(MAX_MATCHES + 1));
        let found = many.search("X");
        assert!(found.more && found.lines.len() == MAX_MATCHES);
    }
}

//! A stream as a reader sees it: without terminals' escape sequences, and with one
//! blank for each run of white space, however a text was wrapped.

use std::collections::VecDeque;

use anstyle_parse::state::{State, state_change};

const ESCAPE: u8 = 0x1b;

/// What Terraform puts before each line of a diagnostic.
const MARGIN: &[u8] = "│".as_bytes();

/// An escape sequence ends after as many bytes: the rest is text.
const LONGEST_ESCAPE: usize = 4096;

/// How many bytes may be folded away before the text is broken with [`BREAK`], and how
/// many more for each byte of text. Whoever keeps the stream for a text of `n` bytes
/// keeps no more than `n * (1 + FOLDED_PER_BYTE) + MOST_FOLDED` bytes of it.
pub(super) const MOST_FOLDED: usize = 64 * 1024;
const FOLDED_PER_BYTE: usize = 16;

/// No needle has it in it: it is no UTF-8.
const BREAK: u8 = 0xff;

/// Folds a stream, wherever it is cut.
pub(super) struct Fold {
    /// The folded text, from where nothing is decided yet.
    text: Vec<u8>,
    /// Where a piece of the text begins that is in the stream as it is: in the text,
    /// and in the stream.
    pieces: VecDeque<(usize, usize)>,
    /// How much of the text was drained, and how much of the stream was taken.
    drained: usize,
    taken: usize,
    escape: State,
    escape_length: usize,
    /// How much of a margin was just seen: it may turn out to be text.
    margin: usize,
    run: Run,
    /// What is folded away, less what the text since then allows for.
    folded: usize,
}

/// What the stream has just shown.
#[derive(Clone, Copy, PartialEq)]
enum Run {
    Text,
    Blanks,
    /// White space with the end of a line in it.
    LineEnd,
}

impl Fold {
    pub(super) fn new() -> Self {
        Self {
            text: Vec::new(),
            pieces: VecDeque::from([(0, 0)]),
            drained: 0,
            taken: 0,
            escape: State::Ground,
            escape_length: 0,
            margin: 0,
            run: Run::Text,
            folded: 0,
        }
    }

    /// Takes more of the stream.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(byte) = bytes.first() {
            let length = if self.escape != State::Ground || *byte == ESCAPE {
                self.pass(*byte);
                1
            } else if self.run == Run::LineEnd && *byte == MARGIN[self.margin] {
                self.margin += 1;
                if self.margin == MARGIN.len() {
                    self.margin = 0;
                    self.fold_away(MARGIN.len());
                }
                1
            } else {
                self.show_margin();
                self.show(bytes)
            };
            self.taken += length;
            bytes = &bytes[length..];
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self) {
        self.show_margin();
    }

    /// The folded text that was not [drained](Self::drain).
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where in the stream a byte of [the text](Self::text) begins.
    pub(super) fn origin(&self, at: usize) -> usize {
        let at = self.drained + at;
        let next = self.pieces.partition_point(|(text, _)| *text <= at);
        let (text, origin) = self.pieces[next - 1];
        origin + (at - text)
    }

    /// Drops the beginning of the text, and says where in the stream the rest begins.
    pub(super) fn drain(&mut self, length: usize) -> usize {
        let rest =
            if length < self.text.len() { self.origin(length) } else { self.taken - self.margin };
        self.text.drain(..length);
        self.drained += length;
        while self.pieces.get(1).is_some_and(|(text, _)| *text <= self.drained) {
            self.pieces.pop_front();
        }
        rest
    }

    /// The text or the white space that these bytes begin with: its length.
    fn show(&mut self, bytes: &[u8]) -> usize {
        let is_white = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let end = if is_white(&bytes[0]) {
            bytes.iter().position(|byte| !is_white(byte))
        } else {
            bytes.iter().position(|byte| *byte == ESCAPE || is_white(byte))
        };
        let bytes = &bytes[..end.unwrap_or(bytes.len())];
        if !is_white(&bytes[0]) {
            self.add(bytes, self.taken);
            self.run = Run::Text;
            return bytes.len();
        }
        let mut more = bytes.len();
        if self.run == Run::Text {
            self.add(b" ", self.taken);
            self.run = Run::Blanks;
            more -= 1;
        }
        self.fold_away(more);
        if bytes.contains(&b'\n') {
            self.run = Run::LineEnd;
        }
        bytes.len()
    }

    /// What began as a margin does is text.
    fn show_margin(&mut self) {
        if self.margin > 0 {
            let begun = std::mem::take(&mut self.margin);
            self.add(&MARGIN[..begun], self.taken - begun);
            self.run = Run::Text;
        }
    }

    /// A byte of an escape sequence.
    fn pass(&mut self, byte: u8) {
        if self.escape == State::Ground {
            self.show_margin();
            self.escape_length = 0;
        }
        self.escape_length += 1;
        self.escape = match state_change(self.escape, byte).0 {
            _ if self.escape_length == LONGEST_ESCAPE => State::Ground,
            State::Anywhere => self.escape,
            next => next,
        };
        self.fold_away(1);
    }

    fn fold_away(&mut self, length: usize) {
        self.folded += length;
        // Where the stream was cut makes no difference.
        while self.folded > MOST_FOLDED {
            self.folded -= MOST_FOLDED;
            self.place(&[BREAK], self.taken);
        }
    }

    fn add(&mut self, bytes: &[u8], origin: usize) {
        self.place(bytes, origin);
        self.folded = self.folded.saturating_sub(FOLDED_PER_BYTE * bytes.len());
    }

    fn place(&mut self, bytes: &[u8], origin: usize) {
        let at = self.drained + self.text.len();
        let (text, begin) = self.pieces[self.pieces.len() - 1];
        if at - text != origin - begin {
            self.pieces.push_back((at, origin));
        }
        self.text.extend_from_slice(bytes);
    }
}

/// A whole text, folded, without white space at its ends.
pub(super) fn folded(text: &[u8]) -> Vec<u8> {
    let mut fold = Fold::new();
    fold.push(text);
    fold.finish();
    fold.text.trim_ascii().to_vec()
}

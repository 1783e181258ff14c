//! Finds needles in a text that is still growing.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// What is looked for: at least one text, and none of them empty.
pub(super) struct Needles {
    finder: AhoCorasick,
    sorted: Vec<Vec<u8>>,
    /// Which bytes a needle begins with.
    begins: [bool; 256],
    longest: usize,
}

impl Needles {
    /// None when there is nothing to look for.
    pub(super) fn new(needles: BTreeSet<Vec<u8>>) -> Option<Self> {
        let longest = needles.iter().map(Vec::len).max()?;
        let sorted = Vec::from_iter(needles);
        let finder = AhoCorasick::builder()
            // The fastest kind takes some 100 bytes for each byte of the
            // needles: too much for a secret that is a whole file.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(&sorted)
            .expect("variables' values are far smaller than the automaton's limit");
        let mut begins = [false; 256];
        for needle in &sorted {
            begins[usize::from(needle[0])] = true;
        }
        Some(Self { finder, sorted, begins, longest })
    }

    /// The needles in `text` that more text can't change, and where the rest begins:
    /// less than the longest needle, unless `ended` says that the text has ended.
    pub(super) fn find(&self, text: &[u8], ended: bool) -> (Vec<Range<usize>>, usize) {
        // From here on a match could still turn out longer, or begin.
        let decided =
            if ended { text.len() } else { (text.len() + 1).saturating_sub(self.longest) };
        let mut found = Vec::new();
        let mut done = 0;
        for needle in self.finder.find_iter(text) {
            if needle.start() >= decided {
                let doubt = self.first_doubt(text, decided.max(done));
                return (found, doubt.min(needle.start()));
            }
            found.push(needle.range());
            done = needle.end();
        }
        let rest = if ended { text.len() } else { self.first_doubt(text, decided.max(done)) };
        (found, rest)
    }

    /// The first place at or after `from` where what is there so far is the
    /// beginning of a needle.
    fn first_doubt(&self, text: &[u8], from: usize) -> usize {
        (from..text.len())
            .filter(|at| self.begins[usize::from(text[*at])])
            .find(|at| {
                let rest = &text[*at..];
                // In their order, those that begin with it come next after it.
                let next = self.sorted.partition_point(|needle| needle.as_slice() < rest);
                self.sorted.get(next).is_some_and(|needle| needle.starts_with(rest))
            })
            .unwrap_or(text.len())
    }

    #[cfg(test)]
    pub(super) fn memory_usage(&self) -> usize {
        self.finder.memory_usage()
    }

    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}

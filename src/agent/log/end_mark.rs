//! The entry point's last word, by which an output is known to be whole.

use memchr::{memchr_iter, memmem};

/// Takes the line that a container's entry point writes when it ends out of the output.
///
/// An engine may end an output before it has given out all of it, and that looks like
/// the container's end. This line comes from the container itself. It stands nowhere
/// else, not on the entry point's command line either: a run may list its processes.
///
/// As with a [`protocol::redact::Redactor`] what comes out depends on the bytes
/// alone, not on how they were cut into pieces.
pub(crate) struct EndMark {
    mark: Vec<u8>,
    /// What may be the mark's beginning.
    kept: Vec<u8>,
    seen: bool,
}

impl EndMark {
    /// For the output of the container with this name, which its entry point knows.
    pub(crate) fn new(container: &str) -> Self {
        let mark = format!("end of output of {container}\n").into_bytes();
        Self { mark, kept: Vec::new(), seen: false }
    }

    /// Takes more of the output and gives what can go on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        while let Some(at) = memmem::find(&self.kept, &self.mark) {
            self.kept.drain(at..at + self.mark.len());
            self.seen = true;
        }
        let decided = (self.kept.len() + 1).saturating_sub(self.mark.len());
        let doubt = memchr_iter(self.mark[0], &self.kept[decided..])
            .map(|at| decided + at)
            .find(|at| self.mark.starts_with(&self.kept[*at..]));
        let rest = self.kept.split_off(doubt.unwrap_or(self.kept.len()));
        std::mem::replace(&mut self.kept, rest)
    }

    /// The output has ended: gives what was kept back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Whether the mark was there.
    pub(crate) fn is_seen(&self) -> bool {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(output: &str, size: usize) -> (String, bool) {
        let mut mark = EndMark::new("task-1-2");
        let mut out: Vec<u8> =
            output.as_bytes().chunks(size).flat_map(|piece| mark.push(piece)).collect();
        out.extend(mark.finish());
        (String::from_utf8(out).unwrap(), mark.is_seen())
    }

    #[test]
    fn the_mark_is_taken_out_wherever_the_output_is_cut() {
        for (output, rest, seen) in [
            ("one\ntwo\nend of output of task-1-2\n", "one\ntwo\n", true),
            ("no line's end", "no line's end", false),
            ("no line's endend of output of task-1-2\n", "no line's end", true),
            ("one\nend of output of task-1-2\nafter it\n", "one\nafter it\n", true),
            ("end of end of output of task-1-2\n", "end of ", true),
            ("end of output of task-1-2", "end of output of task-1-2", false),
            ("end of output of task-1-1\n", "end of output of task-1-1\n", false),
            ("", "", false),
        ] {
            for size in 1..=output.len().max(1) {
                assert_eq!(without(output, size), (rest.to_owned(), seen), "{output:?} by {size}");
            }
        }
    }

    #[test]
    fn no_more_is_kept_back_than_may_be_the_mark() {
        let mut mark = EndMark::new("task-1-2");
        assert_eq!(mark.push(b"Plan: 1 to add, end"), b"Plan: 1 to add, ");
        assert_eq!(mark.push(b"ed\n"), b"ended\n");
    }
}

//! Masks secrets in a stream of bytes, wherever the stream is cut.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in the log in a secret's place.
const MASK: &[u8] = b"***";

/// Shorter secrets are not masked: they would be found everywhere. In characters.
const SHORTEST: usize = 4;

/// How long the lines are that base64 is broken into: by `openssl base64`, and
/// by `base64`.
const BASE64_LINES: [usize; 2] = [64, 76];

/// What RFC 3986 leaves as it is in a URL.
const URL_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A stream's filter.
///
/// What comes out depends on the bytes that went in, not on how they were cut
/// into pieces: the same stream, filtered again, gives the same bytes. It
/// keeps back only what may be the beginning of a secret, which is less than
/// the longest one.
pub struct Redactor {
    /// None when there is nothing to mask.
    finder: Option<AhoCorasick>,
    /// Sorted.
    patterns: Vec<Vec<u8>>,
    /// Which bytes a pattern begins with.
    begins: [bool; 256],
    longest: usize,
    kept: Vec<u8>,
}

impl Redactor {
    /// A filter for `secrets` and for each one's base64, JSON and URL forms.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns: Vec<Vec<u8>> =
            secrets.into_iter().flat_map(forms).collect::<BTreeSet<_>>().into_iter().collect();
        let finder = (!patterns.is_empty()).then(|| {
            AhoCorasick::builder()
                // The fastest kind takes some 100 bytes for each byte of the
                // patterns: too much for a secret that is a whole file.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .match_kind(MatchKind::LeftmostLongest)
                .build(&patterns)
                .expect("variables' values are far smaller than the automaton's limit")
        });
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let mut begins = [false; 256];
        for pattern in &patterns {
            begins[usize::from(pattern[0])] = true;
        }
        Self { finder, patterns, begins, longest, kept: Vec::new() }
    }

    /// Takes more of the stream and gives what can go on.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(bytes);
        self.drain(false)
    }

    /// The stream has ended: gives what was kept back.
    pub fn finish(&mut self) -> Vec<u8> {
        self.drain(true)
    }

    fn drain(&mut self, ended: bool) -> Vec<u8> {
        let Some(finder) = &self.finder else { return std::mem::take(&mut self.kept) };
        // From here on a match could still turn out longer, or begin.
        let decided = if ended {
            self.kept.len()
        } else {
            (self.kept.len() + 1).saturating_sub(self.longest)
        };
        let mut out = Vec::with_capacity(self.kept.len());
        let mut done = 0;
        let mut undecided = self.kept.len();
        for found in finder.find_iter(&self.kept) {
            if found.start() >= decided {
                undecided = found.start();
                break;
            }
            out.extend_from_slice(&self.kept[done..found.start()]);
            out.extend_from_slice(MASK);
            done = found.end();
        }
        let until =
            if ended { undecided } else { self.first_doubt(decided.max(done)).min(undecided) };
        out.extend_from_slice(&self.kept[done..until]);
        self.kept.drain(..until);
        out
    }

    /// The first place at or after `from` where what is there so far is the
    /// beginning of a secret.
    fn first_doubt(&self, from: usize) -> usize {
        (from..self.kept.len())
            .filter(|at| self.begins[usize::from(self.kept[*at])])
            .find(|at| {
                let rest = &self.kept[*at..];
                // In their order, those that begin with it come next after it.
                let next = self.patterns.partition_point(|pattern| pattern.as_slice() < rest);
                self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(rest))
            })
            .unwrap_or(self.kept.len())
    }
}

/// The forms in which a secret may turn up in a log.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let whole = secret.trim();
    if whole.chars().count() < SHORTEST {
        return forms;
    }
    // Terraform indents the lines of a text, so each counts by itself.
    let lines = whole.lines().map(str::trim).filter(|line| line.len() >= 2 * SHORTEST);
    for text in std::iter::once(whole).chain(lines) {
        forms.push(text.as_bytes().to_vec());
        forms.extend(escaped(text));
        forms.extend(url_encoded(text));
        forms.extend(base64(text));
    }
    forms.extend(base64(secret));
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// As JSON has it, as Go writes JSON (it also escapes `<`, `>` and `&`), and as
/// HCL has it.
fn escaped(text: &str) -> Vec<Vec<u8>> {
    let quoted = serde_json::to_string(text).expect("a text has a form in JSON");
    let json = &quoted[1..quoted.len() - 1];
    let go = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let hcl = json.replace("${", "$${").replace("%{", "%%{");
    vec![json.into(), go.into(), hcl.into()]
}

/// With upper and lower case digits, and with `+` for a blank as in forms.
fn url_encoded(text: &str) -> Vec<Vec<u8>> {
    let upper = utf8_percent_encode(text, URL_UNRESERVED).to_string();
    let mut lower = upper.clone().into_bytes();
    for at in 0..lower.len() {
        if lower[at] == b'%' {
            lower[at + 1..at + 3].make_ascii_lowercase();
        }
    }
    vec![upper.replace("%20", "+").into_bytes(), upper.into_bytes(), lower]
}

/// By itself, and as part of a longer text that was encoded (`user:password`):
/// there the three ways in which it may lie across base64's groups, without the
/// characters at the ends, which depend on its neighbours too.
fn base64(text: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for engine in [&STANDARD, &URL_SAFE] {
        let alone = engine.encode(text);
        let lines = BASE64_LINES.into_iter().flat_map(|length| alone.as_bytes().chunks(length));
        forms.extend(lines.filter(|line| line.len() >= 2 * SHORTEST).map(<[u8]>::to_vec));
        forms.push(alone.trim_end_matches('=').into());
        for before in 0..3 {
            let padded = [&b"\0\0"[..before], text.as_bytes()].concat();
            let code = engine.encode(&padded);
            let first = [0, 2, 3][before];
            let last = padded.len() * 8 / 6;
            forms.push(code.as_bytes()[first..last].to_vec());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn whole(secrets: &[&str], text: &[u8]) -> Vec<u8> {
        pieces(secrets, text, text.len().max(1))
    }

    fn pieces(secrets: &[&str], text: &[u8], size: usize) -> Vec<u8> {
        let mut redactor = Redactor::new(secrets.iter().copied());
        let mut out: Vec<u8> = text.chunks(size).flat_map(|piece| redactor.push(piece)).collect();
        out.extend(redactor.finish());
        out
    }

    #[test]
    fn every_form_is_masked() {
        let secret = "p<ss \"wörd\"/&+x";
        let json = serde_json::to_string(secret).unwrap();
        for text in [
            secret.to_owned(),
            json.clone(),
            json.replace('<', "\\u003c").replace('&', "\\u0026"),
            "p%3Css%20%22w%C3%B6rd%22%2F%26%2Bx".to_owned(),
            "p%3css%20%22w%c3%b6rd%22%2f%26%2bx".to_owned(),
            "p%3Css+%22w%C3%B6rd%22%2F%26%2Bx".to_owned(),
            STANDARD.encode(secret),
            URL_SAFE.encode(secret),
            STANDARD.encode(format!("u:{secret}@host")),
            STANDARD.encode(format!("me:{secret}@host")),
            STANDARD.encode(format!("you:{secret}@host")),
        ] {
            let masked = String::from_utf8(whole(&[secret], text.as_bytes())).unwrap();
            assert!(masked.contains("***"), "{text} became {masked}");
            assert!(masked.len() <= 20, "{text} became {masked}");
        }
    }

    #[test]
    fn the_cut_does_not_matter() {
        let secrets = ["abcab", "cabcabcd", "zzzz", "abcabcab"];
        let text = b"xabcabcabcdzzzzzzabcabyabcabzzzcabcabcabcdabcab\nzzz";
        let expected = whole(&secrets, text);
        for size in 1..text.len() {
            assert_eq!(pieces(&secrets, text, size), expected, "pieces of {size}");
        }
    }

    proptest! {
        /// Few letters, so that secrets overlap, repeat and begin one another.
        #[test]
        fn any_cut_gives_what_a_simple_search_gives(
            secrets in vec("[ab]{4,9}|[abé=]{4,6}", 0..5),
            text in "([abé=\n]|YWJh|YmFi|%C3%A9|\x1b\\[1m){0,60}",
            cuts in vec(any::<Index>(), 0..20),
        ) {
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut redactor = Redactor::new(secrets.iter().copied());
            let mut out = Vec::new();
            for piece in cuts.windows(2) {
                out.extend(redactor.push(&text[piece[0]..piece[1]]));
                prop_assert!(redactor.kept.len() < redactor.longest.max(1));
            }
            out.extend(redactor.finish());
            prop_assert_eq!(out, simply_masked(&secrets, text));
        }

        /// Whatever the secret is and wherever it stands.
        #[test]
        fn no_form_of_a_secret_is_left(
            secret in "[!-~é]{4,40}",
            before in "[!-~]{0,9}",
            after in "[!-~]{0,9}",
            cut in any::<Index>(),
        ) {
            let json = serde_json::to_string(&secret).unwrap();
            for form in [
                secret.clone(),
                json[1..json.len() - 1].to_owned(),
                utf8_percent_encode(&secret, URL_UNRESERVED).to_string(),
                STANDARD.encode(&secret),
            ] {
                let text = format!(" {form} ").into_bytes();
                let mut redactor = Redactor::new([secret.as_str()]);
                let (first, second) = text.split_at(cut.index(text.len()));
                let mut out = redactor.push(first);
                out.extend(redactor.push(second));
                out.extend(redactor.finish());
                let out = String::from_utf8(out).unwrap();
                prop_assert!(!out.contains(&form), "{} is left in {}", form, out);
            }
            // Of a longer text that was encoded only the ends are left, two
            // characters at most, which its neighbours are part of.
            let code = STANDARD.encode(format!("{before}{secret}{after}"));
            let out = String::from_utf8(whole(&[&secret], code.as_bytes())).unwrap();
            prop_assert!(out.len() <= MASK.len() + (before.len() + after.len()) * 4 / 3 + 8, "{}", out);
        }
    }

    /// At each place the longest form that stands there, and nothing clever.
    fn simply_masked(secrets: &[&str], text: &[u8]) -> Vec<u8> {
        let forms: Vec<Vec<u8>> = secrets.iter().copied().flat_map(forms).collect();
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let here = forms.iter().filter(|form| text[at..].starts_with(form));
            match here.map(Vec::len).max() {
                Some(length) => {
                    out.extend_from_slice(MASK);
                    at += length;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out
    }

    #[test]
    fn a_secret_as_large_as_a_file_costs_little() {
        let secret: String = (0..20_000).map(|n| format!("{n:x}")).collect();
        let mut redactor = Redactor::new([secret.as_str()]);
        let finder = redactor.finder.as_ref().unwrap();
        assert!(finder.memory_usage() < 40 * secret.len() * 8, "{}", finder.memory_usage());
        let mut out = redactor.push(&secret.as_bytes()[..secret.len() / 2]);
        assert!(out.is_empty());
        out.extend(redactor.push(&secret.as_bytes()[secret.len() / 2..]));
        out.extend(redactor.finish());
        assert_eq!(out, MASK);
    }

    #[test]
    fn base64_in_lines_is_masked() {
        let secret = "x".repeat(50) + &"y".repeat(50);
        for length in BASE64_LINES {
            let code = STANDARD.encode(&secret);
            let lines: Vec<&[u8]> = code.as_bytes().chunks(length).collect();
            let out = whole(&[&secret], &lines.join(&b'\n'));
            assert!(out.split(|byte| *byte == b'\n').all(|line| line == MASK), "{out:?}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_kept_back() {
        let mut redactor = Redactor::new(["a very long secret that goes on and on"]);
        assert_eq!(redactor.push(b"Enter a value: "), b"Enter a value: ");
        assert_eq!(redactor.push(b"so a ve"), b"so ");
        assert_eq!(redactor.push(b"st"), b"a vest");
    }

    #[test]
    fn lines_of_a_text_are_masked_one_by_one() {
        let secret = "first line of it\nsecond line of it\n";
        assert_eq!(
            whole(&[secret], b"  first line of it\n  second line of it\n"),
            b"  ***\n  ***\n"
        );
    }

    #[test]
    fn short_texts_stay() {
        assert_eq!(whole(&["on", ""], b"once upon a time"), b"once upon a time");
    }
}

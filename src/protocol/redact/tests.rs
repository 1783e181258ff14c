use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::utf8_percent_encode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::fold::MOST_FOLDED;
use super::forms::{BASE64_LINES, URL_UNRESERVED};
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

fn masked(secret: &str, text: &str) -> String {
    String::from_utf8(whole(&[secret], text.as_bytes())).unwrap()
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
        let masked = masked(secret, &text);
        assert!(masked.contains("***"), "{text} became {masked}");
        assert!(masked.len() <= 20, "{text} became {masked}");
    }
}

#[test]
fn escape_sequences_inside_a_secret_do_not_hide_it_and_stay() {
    let secret = "S3cret-pa55";
    for (text, expected) in [
        ("a \x1b[4mS3cret-pa55\x1b[0m b", "a \x1b[4m***\x1b[0m b"),
        ("a S3cret-\x1b[4mpa55\x1b[0m b", "a ***\x1b[4m\x1b[0m b"),
        ("S\x1b[1;38;2;1;2;3m3cret-pa55\x1b[0m", "***\x1b[1;38;2;1;2;3m\x1b[0m"),
        ("S3cret\x1b]8;;https://a.test/ b\x1b\\-pa55", "***\x1b]8;;https://a.test/ b\x1b\\"),
        ("S3cret\x1b]0;title\x07-pa55", "***\x1b]0;title\x07"),
        ("S3cret-pa5\x1b(B\x1b[m5", "***\x1b(B\x1b[m"),
        ("S3cret\x1bPq#0\x1b\\-pa55", "***\x1bPq#0\x1b\\"),
        ("S3\x1b7cr\x1b[0Ket\x1b[?25l-pa55", "***\x1b7\x1b[0K\x1b[?25l"),
        // A link that holds it, and one that it begins in.
        ("\x1b]8;;https://a.test/S3cret-pa55\x1b\\link", "\x1b]8;;https://a.test/***\x1b\\link"),
        ("\x1b[S3cret-pa55", "\x1b[***"),
        ("\x1bS3cret-pa55", "\x1b***"),
    ] {
        assert_eq!(masked(secret, text), expected, "{text:?}");
    }
}

#[test]
fn wrapping_a_secret_does_not_hide_it() {
    let secret = "correct horse battery staple";
    for (text, expected) in [
        ("is correct horse battery staple.", "is ***."),
        ("is correct horse\nbattery staple.", "is ***\n***."),
        ("is correct horse\r\nbattery staple.", "is ***\r\n***."),
        ("│ is correct horse\n│ battery staple.\n╵", "│ is ***\n│ ***.\n╵"),
        ("│ is correct\n│ horse\n│ battery\n│ staple", "│ is ***\n│ ***\n│ ***\n│ ***"),
        (
            "\x1b[31m│\x1b[0m \x1b[0mcorrect horse\n\x1b[31m│\x1b[0m \x1b[0mbattery staple",
            "\x1b[31m│\x1b[0m \x1b[0m***\n\x1b[31m│\x1b[0m \x1b[0m***",
        ),
        ("  │     │ correct horse\n  │     │ battery staple", "  │     │ ***\n  │     │ ***"),
        ("is correct  horse\tbattery \t staple.", "is ***."),
        ("is correct\x1b[4m horse \x1b[0mbattery staple.", "is ***\x1b[4m \x1b[0m."),
        ("is correct horse battery │ staple.", "is correct horse battery │ staple."),
        ("is correct horse\n─ battery staple.", "is correct horse\n─ battery staple."),
    ] {
        assert_eq!(masked(secret, text), expected, "{text:?}");
        for size in 1..text.len() {
            let pieces = pieces(&[secret], text.as_bytes(), size);
            assert_eq!(String::from_utf8(pieces).unwrap(), expected, "{text:?} in {size}");
        }
    }
}

#[test]
fn white_space_inside_a_secret_counts_once() {
    let secret = "\tcorrect\r\n    horse  battery\n";
    assert_eq!(masked(secret, "a correct horse battery b"), "a *** b");
    assert_eq!(masked(secret, "a correct\r\n    horse  battery b"), "a *** b");
    assert_eq!(masked("correct horse", "a correcthorse b"), "a correcthorse b");
    assert_eq!(masked("a\n│ b", "a\n│ b, a│b"), "***, a│b");
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

#[test]
fn endless_white_space_and_escape_sequences_are_not_kept() {
    let secret = "correct horse battery staple";
    for filler in ["\x1b[0m", "\x1b[", "\x1b]8;;", "\x1b]x\x07", " ", "\n│ ", "\x1b", "\x1b[0m\n"]
    {
        let mut redactor = Redactor::new([secret]);
        let mut text = b"it is correct".to_vec();
        let mut out = redactor.push(&text);
        for _ in 0..200 {
            let more = filler.repeat(1000).into_bytes();
            out.extend(redactor.push(&more));
            assert!(redactor.kept.len() <= MOST_FOLDED + 1000 * secret.len(), "{filler:?}");
            text.extend(more);
        }
        text.extend(b"m horse battery staple");
        out.extend(redactor.push(b"m horse battery staple"));
        out.extend(redactor.finish());
        assert!(out == text, "{filler:?}");
    }
}

/// Real outputs of Terraform, which were made with these values.
const CORPUS: [&str; 5] = [
    include_str!("corpus/apply.log"),
    include_str!("corpus/change.log"),
    include_str!("corpus/expression.log"),
    include_str!("corpus/plan.log"),
    include_str!("corpus/plan_without_color.log"),
];
const CORPUS_SECRETS: [&str; 5] = [
    "S3cret-pa55",
    "correct horse battery staple is a long pass phrase of several words that wraps around lines",
    "deep \"quoted\" é ${x}",
    "line one of heredoc\n  indented line two\n",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----\n",
];

#[test]
fn in_terraforms_output_nothing_of_a_secret_is_left_and_no_line_is_lost() {
    for output in CORPUS {
        let out = String::from_utf8(whole(&CORPUS_SECRETS, output.as_bytes())).unwrap();
        assert!(out.contains("***"), "{out}");
        assert_eq!(out.lines().count(), output.lines().count(), "{out}");
        for word in ["S3cret", "horse", "staple", "phrase", "quoted", "indented", "MIIE"] {
            assert!(!out.contains(word), "{word} in {out}");
        }
    }
}

#[test]
fn secrets_that_are_not_there_change_nothing() {
    let secrets =
        ["correct battery horse", "S3cret-pa56", "a plan and actions", "resource the\nplan it"];
    for output in CORPUS {
        assert_eq!(String::from_utf8(whole(&secrets, output.as_bytes())).unwrap(), output);
    }
}

proptest! {
    /// Few letters, so that secrets overlap, repeat and begin one another.
    #[test]
    fn any_cut_gives_what_a_simple_search_gives(
        secrets in vec("[ab]{4,9}|[abé=]{4,6}|[ab]{2,3}[ \n│]{1,3}[ab]{2,3}", 0..5),
        text in "([abé=│ \n]|YWJh|YmFi|%C3%A9|\x1b\\[1?m|\x1b\\]ab|\x1b|\x07){0,60}",
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let text = text.as_bytes();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let mut redactor = Redactor::new(secrets.iter().copied());
        let longest = redactor.needles.as_deref().map_or(0, Needles::longest);
        let mut out = Vec::new();
        for piece in cut(text, &cuts) {
            out.extend(redactor.push(piece));
            prop_assert!(redactor.fold.text().len() < longest.max(1));
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

    /// Wherever in an output of Terraform it stands, however it is wrapped and coloured.
    #[test]
    fn a_secret_in_terraforms_output_is_masked_and_nothing_else(
        words in vec("[A-Z#%\"\\\\é]{4,12}", 1..5),
        output in select(CORPUS.to_vec()),
        place in any::<Index>(),
        gaps in vec(select(GAPS.to_vec()), 4),
        escapes in vec((any::<Index>(), select(ESCAPES.to_vec())), 0..6),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let secret = words.join(" ");
        let line = place.index(output.lines().count());
        let (before, after) = output.split_at(output.split_inclusive('\n').take(line).map(str::len).sum());
        prop_assume!(!output.contains(&secret));

        let mut printed = words[0].clone();
        for (word, gap) in words[1..].iter().zip(gaps) {
            printed.push_str(gap);
            printed.push_str(word);
        }
        let places: Vec<usize> = printed.char_indices().skip(1).map(|(at, _)| at).collect();
        let mut escapes: Vec<(usize, &str)> =
            escapes.iter().map(|(at, escape)| (*at.get(&places), *escape)).collect();
        escapes.sort_unstable();
        for (at, escape) in escapes.iter().rev() {
            // Not inside of a gap's own sequences.
            if !printed[..*at].ends_with(['\x1b', '[', '0', '1', '3']) {
                printed.insert_str(*at, escape);
            }
        }
        let text = format!("{before}= {printed} =\n{after}");

        let mut redactor = Redactor::new([secret.as_str()]);
        let mut out = Vec::new();
        for piece in cut(text.as_bytes(), &cuts) {
            out.extend(redactor.push(piece));
        }
        out.extend(redactor.finish());
        let out = String::from_utf8(out).unwrap();
        let inside = out.strip_prefix(before).and_then(|out| out.strip_suffix(after)).unwrap();
        let shown = String::from_utf8(folded(inside.as_bytes())).unwrap();
        prop_assert!(shown.chars().all(|c| "= *".contains(c)), "{:?}", inside);
    }
}

const GAPS: [&str; 8] = [
    " ",
    "\t",
    "   ",
    "\n",
    "\r\n",
    "\n│ ",
    "\n\x1b[31m│\x1b[0m \x1b[0m",
    "\n\x1b[31m│\x1b[0m \x1b[0m    │ ",
];

const ESCAPES: [&str; 8] = [
    "\x1b[4m",
    "\x1b[0m",
    "\x1b[m",
    "\x1b[38;2;10;20;30m",
    "\x1b[K",
    "\x1b(B",
    "\x1b]0;a title\x07",
    "\x1b]8;;https://docs.test/\x1b\\",
];

fn cut<'a>(text: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect()
}

/// At each place the longest form that stands there, in the bytes as they are and
/// in the folded ones, and nothing clever.
fn simply_masked(secrets: &[&str], text: &[u8]) -> Vec<u8> {
    let exact: Vec<Vec<u8>> = secrets.iter().copied().flat_map(forms).collect();
    let forms: Vec<Vec<u8>> = exact
        .iter()
        .map(|form| folded(form))
        .filter(|form| forms::is_long(form))
        .chain(exact.iter().cloned())
        .collect();
    let found = |text: &[u8]| {
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let here = forms.iter().filter(|form| text[at..].starts_with(form));
            let length = here.map(Vec::len).max();
            found.extend(length.map(|length| at..at + length));
            at += length.unwrap_or(1);
        }
        found
    };
    let mut marks = vec![Mark::Shown; text.len()];
    let mut fold = Fold::new();
    fold.push(text);
    fold.finish();
    for range in found(fold.text()) {
        for at in range.clone() {
            let begin = fold.origin(at);
            let end = if at + 1 == range.end { begin + 1 } else { fold.origin(at + 1) };
            let is_blank = fold.text()[at] == b' ';
            let between = &text[begin..end];
            for (at, mark) in marks.iter_mut().enumerate().take(end).skip(begin) {
                *mark = match () {
                    () if at == begin && !is_blank => Mark::Secret,
                    () if is_blank && between.contains(&b'\n') => Mark::Shown,
                    () if between.contains(&b'\x1b') => Mark::Passed,
                    () => Mark::Dropped,
                };
            }
        }
    }
    for range in found(text) {
        marks[range].fill(Mark::Secret);
    }
    let mut out = Vec::new();
    let mut masking = false;
    for (byte, mark) in text.iter().zip(marks) {
        match mark {
            Mark::Secret if !masking => out.extend(MASK),
            Mark::Shown | Mark::Passed => out.push(*byte),
            Mark::Secret | Mark::Dropped => {}
        }
        masking = mark == Mark::Secret || masking && mark != Mark::Shown;
    }
    out
}

#[test]
fn a_secret_as_large_as_a_file_costs_little() {
    let secret: String = (0..20_000).map(|n| format!("{n:x}")).collect();
    let mut redactor = Redactor::new([secret.as_str()]);
    let memory = redactor.needles.as_ref().unwrap().memory_usage();
    assert!(memory < 40 * secret.len() * 8, "{memory}");
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
    assert_eq!(whole(&[secret], b"  first line of it\n  second line of it\n"), b"  ***\n  ***\n");
    assert_eq!(whole(&[secret], b"  + second line of it\n"), b"  + ***\n");
}

#[test]
fn short_texts_stay() {
    assert_eq!(whole(&["on", ""], b"once upon a time"), b"once upon a time");
}

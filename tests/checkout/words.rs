//! Messages, help, comments and documentation use the words that operators know.

use std::path::{Path, PathBuf};

/// What is not written, and what is written instead.
const WORDS: [(&str, &str); 26] = [
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("befalls", "happens to"),
    ("befall", "happen to"),
    ("told so", "gets a warning"),
    ("told as", "reported as"),
    ("told to be", "reported as"),
    ("told to drain", "draining: accepting no new tasks"),
    ("sign of life", "heartbeat"),
    ("signs of life", "heartbeats"),
    ("in hand", "running"),
    ("goes before", "takes precedence over"),
    ("go before", "take precedence over"),
    ("heard of", "seen, has sent a heartbeat"),
    ("is to hold", "holds, is checked"),
    ("gone about", "done"),
    ("come to nothing", "fail"),
    ("no more start", "disable"),
    ("could not be told", "unavailable"),
    ("journal's end", "last 1000 journal lines"),
    ("set up like this already", "already up to date; nothing changed"),
    ("brings with it", "includes"),
    ("bring with it", "include"),
    ("anew", "again"),
];

#[test]
fn texts_use_the_standard_words() {
    let mut found = Vec::new();
    for file in texts() {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for (word, instead) in WORDS {
                if has_word(line, word) {
                    let place = file.strip_prefix(tests::checkout("")).unwrap().display();
                    found.push(format!("{place}:{}: \"{word}\"; write: {instead}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}\n", found.join("\n"));
}

/// Whether `line` has `word` as a whole word, or as whole words, also within a name.
fn has_word(line: &str, word: &str) -> bool {
    let line = line.to_lowercase().replace('_', " ");
    let ends = |rest: Option<char>| rest.is_none_or(|c| !c.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        ends(line[..at].chars().next_back()) && ends(line[at + word.len()..].chars().next())
    })
}

/// Every file that people read but this one, and but what other programs wrote.
fn texts() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["docs", "pkg", "scripts", "src", "templates", "tests"] {
        walk(&tests::checkout(folder), &mut files);
    }
    files.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(tests::checkout));
    let is_picture = |file: &Path| file.extension().is_some_and(|end| end == "webp");
    files
        .retain(|file| file.is_file() && !is_picture(file) && !file.ends_with("checkout/words.rs"));
    assert!(files.len() > 300, "only {} files", files.len());
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("fixtures") {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

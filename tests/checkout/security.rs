//! Every test that `docs/security.md` names is there.

use std::path::{Path, PathBuf};

#[test]
fn each_test_that_the_security_document_names_exists() {
    let document = std::fs::read_to_string(tests::checkout("docs/security.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read(&tests::checkout(folder), &mut sources);
    }
    let quoted = document.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|name| is_test(name)).collect();
    assert!(named.len() > 20, "few tests are named: {named:?}");
    let missing = named.iter().filter(|name| {
        let function = name.rsplit("::").next().unwrap_or_default();
        let end = if name.ends_with('…') { "" } else { "(" };
        !sources.contains(&format!("fn {}{end}", function.trim_end_matches('…')))
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
}

/// `a_full_sentence`, its beginning with `…`, or with the name of its file before it.
fn is_test(text: &str) -> bool {
    let name = text.rsplit("::").next().unwrap_or_default();
    name.matches('_').count() >= 3
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:…".contains(c))
}

fn read(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

//! The pool's token as people give it: a text that holds the token and nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result};

use cli::Failure;

/// The longest text that is read, in bytes: a token has some hundred.
const MAX: u64 = 8 * 1024;

/// The token in `file`; `-` is standard input.
///
/// # Errors
/// The file can't be read, or holds something else; its content is never quoted.
pub fn read_token(file: &Path) -> Result<String> {
    let is_standard_input = file.as_os_str() == "-";
    let place =
        if is_standard_input { "standard input".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    let read = if is_standard_input {
        io::stdin().lock().take(MAX + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Usage.because(error.to_string()))
        .with_context(|| format!("cannot read the token from {place}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    match fault(text) {
        None => Ok(text.to_owned()),
        Some(fault) => Err(Failure::Usage.because(format!(
            "cannot use {place} as the pool's token: it {fault}\n\
             Give the token alone, on one line, as it was shown when it was created."
        ))),
    }
}

/// What keeps `text` from being a token, as the end of a sentence.
pub(crate) fn fault(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    Some(match () {
        () if text.is_empty() => "is empty",
        () if text.len() as u64 > MAX => "is too long",
        // What editors and shells of Windows write.
        () if text.starts_with('\u{feff}') || text.contains('\0') => {
            "has a byte order mark, or is UTF-16 and not plain text in UTF-8"
        }
        () if text.starts_with(['{', '[', '"']) => "is JSON",
        () if text.starts_with(['\'', '`', '“', '‘']) => "has quotes around it",
        () if lower.starts_with("authorization:") || lower.starts_with("bearer ") => {
            "has a header's name or `Bearer` before the token"
        }
        () if text.lines().count() > 1 => "has several lines",
        () if lower.split_once('=').is_some_and(|(name, _)| name.trim().ends_with("token")) => {
            "has a variable's name before the token"
        }
        () if !text.chars().all(|c| c.is_ascii_graphic()) => "has characters that no token has",
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_token_is_refused_with_its_name_and_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pool-token");
        let long = "hunter2".repeat(2_000);
        for (content, fault) in [
            ("", "is empty"),
            (" \n\n", "is empty"),
            ("{\"data\": {\"token\": \"hunter2\"}}\n", "is JSON"),
            ("[\n  \"hunter2\"\n]", "is JSON"),
            ("\"hunter2\"\n", "is JSON"),
            ("Authorization: Bearer hunter2\n", "`Bearer` before the token"),
            ("authorization:hunter2\n", "`Bearer` before the token"),
            ("Bearer hunter2\n", "`Bearer` before the token"),
            ("at-1.hunter2\nat-2.hunter2\n", "has several lines"),
            ("# our pool\nat-1.hunter2\n", "has several lines"),
            ("SCALR_AGENT_TOKEN=hunter2\n", "a variable's name"),
            ("token = \"hunter2\"\n", "a variable's name"),
            ("at-1 hunter2\n", "characters that no token has"),
            ("\u{feff}hunter2\n", "has a byte order mark"),
            ("\u{feff}{\"token\": \"hunter2\"}", "has a byte order mark"),
            ("'hunter2'\n", "has quotes around it"),
            ("“hunter2”\n", "has quotes around it"),
            (&long, "is too long"),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = read_token(&file).unwrap_err();
            assert_eq!(Failure::of(&error), Failure::Usage, "{content}");
            let error = format!("{error:#}");
            assert!(
                error.contains(fault) && error.contains("pool-token as the pool's token: it "),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_read_without_the_space_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pool-token");
        for token in ["at-1.0123abc", "eyJhbGciOi.J9.x-_y", "c2VjcmV0=="] {
            std::fs::write(&file, format!("  {token}\r\n")).unwrap();
            assert_eq!(read_token(&file).unwrap(), token);
        }
        let error = read_token(&folder.path().join("none")).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
    }

    #[test]
    fn a_file_in_utf_16_is_refused_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pool-token");
        for mark in [&[0xff, 0xfe][..], &[]] {
            let text = "at-1.hunter2\r\n".encode_utf16().flat_map(u16::to_le_bytes);
            std::fs::write(&file, mark.iter().copied().chain(text).collect::<Vec<u8>>()).unwrap();
            let error = format!("{:#}", read_token(&file).unwrap_err());
            assert!(error.contains("is UTF-16"), "{error}");
        }
    }
}

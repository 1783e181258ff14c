//! Another definition of our repository for apt, with another key: apt then reads no
//! source at all ("Conflicting values set for option Signed-By").

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use cli::Failure;
use cli::untrusted_file;
use host::machine::Machine;

const LIST: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";

/// The suite that our definition names.
const SUITE: &str = "stable";

/// Refuses a repository at `uri` that another file than `own` defines with another key.
///
/// # Errors
/// One does (6).
pub(super) fn require_no_conflict(
    machine: &Machine,
    own: &str,
    uri: &str,
    key: &str,
) -> Result<()> {
    for file in files(machine).into_iter().filter(|file| file != Path::new(own)) {
        let text = untrusted_file::read_text(machine.path(&file)).unwrap_or_default();
        let is_deb822 = file.extension().is_some_and(|extension| extension == "sources");
        let sources = if is_deb822 { paragraphs(&text) } else { lines(&text) };
        for source in sources.into_iter().filter(|source| source.is_at(uri)) {
            // apt takes a definition without a key as one with the key that it knows already,
            // but not the other way round.
            let is_same = match &source.signed_by {
                Some(other) => other == key,
                None => file.as_path() < Path::new(own),
            };
            if !is_same {
                let (first, last) = (source.first, source.last);
                let other = match source.signed_by {
                    Some(key) if key.starts_with("-----BEGIN") => "the key in it".to_owned(),
                    Some(other) => other,
                    None => "none".to_owned(),
                };
                return Err(Failure::NotInstalled.because(format!(
                    "cannot add the package repository {uri}: {}:{first} defines it with another \
                     key (Signed-By: {other}, not {key}), and apt would read no source at \
                     all\nRemove that definition with `sed -i {first},{last}d {}`, and run this \
                     again.",
                    file.display(),
                    file.display()
                )));
            }
        }
    }
    Ok(())
}

struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    signed_by: Option<String>,
    /// Its lines, from 1.
    first: usize,
    last: usize,
}

impl Source {
    fn is_at(&self, uri: &str) -> bool {
        let same = |found: &String| found.trim_end_matches('/') == uri.trim_end_matches('/');
        self.uris.iter().any(same) && self.suites.iter().any(|suite| suite == SUITE)
    }
}

/// In apt's order.
fn files(machine: &Machine) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path(PARTS)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Path::new(PARTS).join(entry.file_name())).collect();
    files.retain(|file| {
        file.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    files.sort();
    files.insert(0, PathBuf::from(LIST));
    files
}

/// Lines like `deb [arch=amd64 signed-by=/a/key.gpg] https://x.example.com/apt stable main`.
fn lines(text: &str) -> Vec<Source> {
    let source = |(number, line): (usize, &str)| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix("-src").unwrap_or(rest).trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let signed_by =
            options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        Some(Source {
            uris: vec![words.next()?],
            suites: vec![words.next()?],
            signed_by: signed_by.map(str::to_owned),
            first: number + 1,
            last: number + 1,
        })
    };
    text.lines().enumerate().filter_map(source).collect()
}

/// Paragraphs as deb822(5) has them; no parser of it gives lines.
fn paragraphs(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().collect();
    let mut next = 1;
    let mut sources = Vec::new();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let first = next;
        next += paragraph.len() + 1;
        let field = |name: &str| {
            let begins = |line: &&str| {
                line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
            };
            let mut lines = paragraph.iter().skip_while(|line| !begins(line));
            let (_, first) = lines.next()?.split_once(':')?;
            // A value goes on in lines that begin with white space.
            let more = lines.take_while(|line| line.starts_with([' ', '\t', '#']));
            let more = more.filter(|line| !line.starts_with('#')).copied();
            Some([first].into_iter().chain(more).collect::<Vec<_>>().join("\n").trim().to_owned())
        };
        let words =
            |name| field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        // As apt reads it (StringToBool).
        let off = ["no", "false", "without", "off", "disable", "0"];
        if !field("Enabled").is_some_and(|enabled| off.contains(&&*enabled.to_ascii_lowercase())) {
            sources.push(Source {
                uris: words("URIs"),
                suites: words("Suites"),
                signed_by: field("Signed-By"),
                first,
                last: first + paragraph.len().saturating_sub(1),
            });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/etc/apt/sources.list.d/scalr-agent.sources";
    const URI: &str = "https://x.example.com/packages/apt";
    const KEY: &str = "/usr/share/keyrings/scalr-agent.asc";

    fn conflict(name: &str, text: &str) -> Option<String> {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path(PARTS)).unwrap();
        fs::write(machine.path(Path::new(PARTS).join(name)), text).unwrap();
        require_no_conflict(&machine, OWN, URI, KEY).err().map(|error| error.to_string())
    }

    #[test]
    fn a_definition_with_another_key_is_named_with_its_lines() {
        let line = format!("# ours\ndeb [arch=amd64 signed-by=/a.gpg] {URI}/ stable main\n");
        let found = conflict("agents.list", &line).unwrap();
        assert!(found.contains("/etc/apt/sources.list.d/agents.list:2 "), "{found}");
        assert!(found.contains("`sed -i 2,2d /etc/apt/sources.list.d/agents.list`"), "{found}");
        let paragraph = format!(
            "Types: deb\nURIs: https://y.example.com\nSuites: stable\n\n\
             Types: deb\nURIs: {URI}\nSuites: stable\nSigned-By: /a.gpg\n"
        );
        let found = conflict("z.sources", &paragraph).unwrap();
        assert!(found.contains("z.sources:5 ") && found.contains("5,8d"), "{found}");
        let within = format!(
            "Types: deb\nURIs: https://y.example.com\n# ours\n {URI}/\nSuites: testing stable\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n"
        );
        let found = conflict("z.sources", &within).unwrap();
        assert!(
            found.contains("(Signed-By: the key in it, not") && found.contains("1,9d"),
            "{found}"
        );
        let without = format!("deb {URI} stable main\n");
        assert!(conflict("z.list", &without).is_some());
    }

    #[test]
    fn what_apt_accepts_beside_ours_is_no_conflict() {
        for (name, text) in [
            ("a.list", format!("deb {URI} stable main\n")),
            ("z.list", format!("deb [signed-by={KEY}] {URI} stable main\n")),
            ("z.list", format!("#deb {URI} stable main\ndeb {URI} testing main\n")),
            ("z.sources", format!("Enabled: no\nURIs: {URI}\nSuites: stable\n")),
            ("z.sources", format!("Enabled: False\nURIs: {URI}\nSuites: stable\n")),
            ("z.list.save", format!("deb {URI} stable main\n")),
            ("scalr-agent.sources", format!("URIs: {URI}\nSuites: stable\nSigned-By: /b\n")),
        ] {
            assert_eq!(conflict(name, &text), None, "{name}: {text}");
        }
    }
}

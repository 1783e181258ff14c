//! The drop-ins for each systemd that there is a host of: it knows every directive
//! and takes every value. The units themselves are held against the same table
//! where they are rendered.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Comments, a line of names (`section directive 219 …`), then lines of these with
/// `y` where that systemd knows it.
const KNOWN: &str = include_str!("directives.tsv");

/// Enterprise Linux 7, Ubuntu 18.04, Enterprise Linux 8, Debian 12.
const VERSIONS: [u32; 4] = [219, 237, 239, 252];

/// Values that are no numbers, sizes, paths or yes and no, and the first systemd
/// that takes them (its NEWS and its man pages).
const WORDS: [(&str, &str, u32); 10] = [
    ("ProtectSystem", "full", 214),
    ("ProtectSystem", "strict", 232),
    ("DevicePolicy", "closed", 208),
    ("SystemCallErrorNumber", "EPERM", 209),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK", 211),
    ("SystemCallArchitectures", "native", 209),
    ("CapabilityBoundingSet", "", 12),
    ("KeyringMode", "private", 235),
    ("ProtectProc", "invisible", 247),
    // Its last groups, @reboot and @swap, came with 233.
    (
        "SystemCallFilter",
        "~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap",
        233,
    ),
];

/// `[section] directive=value` of all drop-ins for this systemd.
fn directives(version: u32) -> Vec<(String, String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup-under-test"))
        .args(["units", "--systemd-version", &version.to_string(), "--output"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read_dir(folder.path()).unwrap().flat_map(|entry| parse(&entry.unwrap().path())).collect()
}

fn parse(file: &Path) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            found.push((section.clone(), name.to_owned(), value.to_owned()));
        }
    }
    found
}

fn is_known(version: u32, section: &str, directive: &str) -> bool {
    let mut lines =
        KNOWN.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
    let column = lines.next().unwrap().position(|name| name == version.to_string()).unwrap();
    lines.any(|line| {
        let fields: Vec<&str> = line.collect();
        fields[..2] == [section, directive] && fields[column] == "y"
    })
}

fn is_taken(version: u32, directive: &str, value: &str) -> bool {
    let is_number = |text: &str| text.parse::<i64>().is_ok();
    // Each takes quotes around a path: FOREACH_WORD_QUOTED in load-fragment.c of 219,
    // EXTRACT_UNQUOTE later.
    let value = value.trim_matches('"');
    ["yes", "no"].contains(&value)
        || is_number(value.trim_end_matches('M'))
        || value.trim_start_matches('-').starts_with('/')
        || WORDS
            .iter()
            .any(|(name, word, since)| (*name, *word) == (directive, value) && *since <= version)
}

#[test]
fn each_systemd_knows_every_directive_and_takes_every_value() {
    for version in VERSIONS {
        let directives = directives(version);
        assert!(directives.len() > 10, "{version}: {directives:?}");
        for (section, name, value) in directives {
            assert!(is_known(version, &section, &name), "systemd {version}: [{section}] {name}=");
            assert!(is_taken(version, &name, &value), "systemd {version}: {name}={value}");
        }
    }
}

#[test]
fn the_newer_a_systemd_the_more_is_forbidden() {
    let counts = VERSIONS.map(|version| directives(version).len());
    assert!(counts.is_sorted() && counts[0] < counts[3], "{counts:?}");
}

#[test]
fn what_an_old_systemd_lacks_would_be_noticed() {
    assert!(!is_known(219, "Service", "ReadWritePaths"));
    assert!(is_known(237, "Service", "ReadWritePaths"));
    assert!(!is_taken(219, "ProtectSystem", "strict"));
    assert!(!is_taken(252, "ProtectSystem", "stricter"));
}

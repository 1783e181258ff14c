//! Clients that are in the middle of something while a new index is published.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::workshop;

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn whoever_has_read_an_index_finds_what_it_names() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.deb("1.0.0", "amd64", "first");
    workshop.publish(&root, &["--key", &key, "--keep", "1"]);

    let is_over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) {
                follow(&root);
                rounds += 1;
            }
            rounds
        });
        // One that began before all, and ends after all.
        let slow = indexes(&root);
        for minor in 1..=6 {
            workshop.clear();
            workshop.deb(&format!("1.{minor}.0"), "amd64", &minor.to_string());
            workshop.publish(&root, &["--key", &key, "--keep", "1"]);
        }
        is_over.store(true, Ordering::Relaxed);
        slow.iter().for_each(|index| follow_index(&root, index));
        client.join().unwrap()
    });
    assert!(rounds > 0, "the client never came to an end");
}

/// What a client of apt does, with all the time that it takes.
fn follow(root: &Path) {
    for index in indexes(root) {
        follow_index(root, &index);
    }
}

fn follow_index(root: &Path, index: &Named) {
    let text = String::from_utf8(index.read(root)).unwrap();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name}: {paragraph}")).to_owned()
        };
        Named { path: format!("apt/{}", field("Filename")).into(), sum: field("SHA256") }
            .read(root);
    }
}

/// The indexes that the release names, by their hashes.
fn indexes(root: &Path) -> Vec<Named> {
    let release = fs::read_to_string(root.join("apt/dists/stable/InRelease")).unwrap();
    let sums = release.split("\nSHA256:\n").nth(1).unwrap();
    let lines = sums.lines().take_while(|line| line.starts_with(' '));
    let entries = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    entries
        .filter(|entry| entry[2].ends_with("/Packages"))
        .map(|entry| {
            let folder = Path::new("apt/dists/stable").join(Path::new(entry[2]).parent().unwrap());
            Named { path: folder.join("by-hash/SHA256").join(entry[0]), sum: entry[0].to_owned() }
        })
        .collect()
}

/// A file that an index names.
struct Named {
    path: PathBuf,
    sum: String,
}

impl Named {
    fn read(&self, root: &Path) -> Vec<u8> {
        let content = fs::read(root.join(&self.path))
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        assert_eq!(hex::encode(Sha256::digest(&content)), self.sum, "{}", self.path.display());
        content
    }
}

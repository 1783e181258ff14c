//! Whatever an archive is made of, reading it ends, and what it gives can be unpacked.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use configuration::{Kind, MAX_UNPACKED, Reader};
use flate2::read::MultiGzDecoder;
use proptest::prelude::*;

use crate::builder::{Tar, gzip};

/// Reads an archive and checks each entry against those before it.
fn assert_sound(archive: &[u8]) {
    let Ok(mut reader) = Reader::new(archive, Some(Path::new("a"))) else { return };
    let mut nodes = HashMap::from([(PathBuf::new(), Kind::Directory)]);
    let mut unpacked = 0;
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                assert!(error.to_string().len() < 20_000, "{error}");
                return;
            }
        };
        let path = &entry.path;
        let is_clean = path.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(is_clean, "{}", path.display());
        if let Some(parent) = path.parent() {
            assert_eq!(nodes.get(parent), Some(&Kind::Directory), "{}", path.display());
        }
        let before = nodes.get(path);
        let is_directory = entry.kind == Kind::Directory;
        assert!(before.is_none_or(|kind| (*kind == Kind::Directory) == is_directory));
        assert_eq!(entry.mode & !0o777, 0);
        match &entry.kind {
            Kind::File { size } => {
                unpacked += size;
                assert!(unpacked <= MAX_UNPACKED);
                match io::copy(&mut reader.by_ref().take(1 << 22), &mut io::sink()) {
                    Ok(read) => assert!(read == *size || read == 1 << 22),
                    Err(_) => return,
                }
            }
            Kind::HardLink { target } => {
                let target = nodes.get(target);
                assert!(matches!(target, Some(Kind::File { .. } | Kind::HardLink { .. })));
            }
            Kind::Directory | Kind::Symlink { .. } => {}
        }
        nodes.insert(entry.path, entry.kind);
    }
    // As the kernel does.
    for path in nodes.keys() {
        assert!(is_inside(&nodes, path, 0), "{} leads out", path.display());
    }
}

/// Whether following `path` stays inside; a loop does.
fn is_inside(nodes: &HashMap<PathBuf, Kind>, path: &Path, followed: u32) -> bool {
    if followed > 40 {
        return true;
    }
    let mut at = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir if !at.pop() => return false,
            _ => continue,
        }
        if let Some(Kind::Symlink { target }) = nodes.get(&at) {
            at.pop();
            let whole = at.join(target).join(parts.as_path());
            return !target.is_absolute() && is_inside(nodes, &whole, followed + 1);
        }
    }
    true
}

/// Few names, so that they meet.
fn name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", ".", "..", "", ".terraform", "modules"]);
    prop_oneof![
        8 => prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/")),
        1 => "\\PC{0,60}".prop_map(|name| name.chars().take(20).collect()),
    ]
}

/// Name, kind, target, size, content and PAX records.
type Member = (String, u8, String, u64, Vec<u8>, Vec<(String, String)>);

fn member() -> impl Strategy<Value = Member> {
    let kinds = b"00000555222111777SLKxgV36\0".to_vec();
    let key = prop::sample::select(vec![
        "path",
        "linkpath",
        "size",
        "GNU.sparse.major",
        "GNU.sparse.minor",
        "GNU.sparse.name",
        "GNU.sparse.realsize",
        "GNU.sparse.size",
        "GNU.sparse.map",
        "GNU.sparse.offset",
        "GNU.sparse.numbytes",
        "comment",
    ]);
    let value = prop_oneof![name(), "[0-9]{1,12}", "0|1|512|1024|0,512|0,5,512,7"];
    let record = (key.prop_map(str::to_owned), value);
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 500..1100),
        1 => "[0-9\n]{0,40}".prop_map(String::into_bytes),
    ];
    let lie = prop_oneof![6 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0_u64..5000).prop_map(Some)];
    let records = prop_oneof![
        5 => Just(Vec::new()),
        2 => prop::collection::vec(record, 0..5),
    ];
    (name(), prop::sample::select(kinds), name(), lie, content, records).prop_map(
        |(name, kind, target, lie, content, records)| {
            let has_content = !matches!(kind, b'5' | b'2' | b'1' | b'3' | b'6');
            let content = if has_content { content } else { Vec::new() };
            let size = lie.unwrap_or(content.len() as u64);
            (name, kind, target, size, content, records)
        },
    )
}

/// Only files, directories and links: most such archives are taken.
fn plain_member() -> impl Strategy<Value = (String, u8, String)> {
    (name(), prop::sample::select(b"0522221".to_vec()), name())
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let unpacked = |file: PathBuf| {
        let mut content = Vec::new();
        let file = fs::File::open(file).unwrap();
        MultiGzDecoder::new(file).read_to_end(&mut content).unwrap();
        content
    };
    // The content of the sparse ones adds nothing.
    files
        .into_iter()
        .map(unpacked)
        .map(|mut tar| {
            tar.truncate(64 << 10);
            tar
        })
        .collect()
}

/// Corrects a header's checksum, so that what was changed in it is looked at.
fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

proptest! {
    #[test]
    fn archives_of_arbitrary_members_are_sound(members in prop::collection::vec(member(), 0..12)) {
        let mut tar = Tar::default();
        for (name, kind, target, size, content, records) in &members {
            if !records.is_empty() {
                let records: Vec<_> =
                    records.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                tar = tar.pax(&records);
            }
            let name = &name.as_bytes()[..name.len().min(100)];
            tar = tar.raw(name, *kind, target, *size, content);
        }
        assert_sound(&tar.packed());
    }

    #[test]
    fn links_are_sound(members in prop::collection::vec(plain_member(), 0..14)) {
        // Without what can't be taken, so that the rest is tried.
        let mut tar = Tar::default().file("first", b"");
        for (name, kind, target) in &members {
            let more = tar.clone().member(name.as_bytes(), *kind, target, b"");
            let taken = configuration::check(more.packed().as_slice());
            if taken.is_ok() {
                tar = more;
            }
        }
        assert_sound(&tar.packed());
    }

    #[test]
    fn damaged_archives_of_tools_are_sound(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sealed in any::<bool>(),
        packed_change in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let corpus = corpus();
        let mut tar = which.get(&corpus).clone();
        for (at, value) in &changes {
            let at = at.index(tar.len());
            tar[at] = *value;
            let block = at / 512 * 512;
            if sealed && block + 512 <= tar.len() {
                seal(&mut tar[block..block + 512]);
            }
        }
        let mut packed = gzip(&tar);
        if let Some((at, value)) = packed_change {
            let at = at.index(packed.len());
            packed[at] = value;
        }
        assert_sound(&packed);
    }

    #[test]
    fn arbitrary_bytes_are_sound(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        assert_sound(&bytes);
        assert_sound(&gzip(&bytes));
    }
}

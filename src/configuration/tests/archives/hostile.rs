//! What is no configuration, and what merely looks odd.

use std::path::Path;

use configuration::{MAX_ENTRIES, MAX_NAMES, MAX_UNPACKED, Reader, check};

use crate::builder::{Tar, gzip, listed, listed_in, refusal};

/// The records of a sparse file, and what is stored of it.
type Sparse<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);

fn main_tf() -> Tar {
    Tar::default().file("main.tf", b"x")
}

#[test]
fn parents_without_an_entry_are_given_before_their_files() {
    let archive = Tar::default().file("a/b/main.tf", b"x").file("./a/c.tf", b"y").packed();
    assert_eq!(listed(&archive).unwrap(), ["a/", "a/b/", "a/b/main.tf: x", "a/c.tf: y"]);
}

#[test]
fn a_name_that_leads_out_is_refused_with_itself() {
    for name in ["../main.tf", "/etc/passwd", "a/../../b", "a/../b", ".."] {
        let why = refusal(&Tar::default().file(name, b"x").packed());
        assert_eq!(why, format!("cannot take `{name}`: it is outside of the configuration"));
    }
}

#[test]
fn what_is_no_file_directory_or_link_is_refused_by_name() {
    for (kind, name) in [
        (b'3', "a character device"),
        (b'4', "a block device"),
        (b'6', "a named pipe"),
        (b'V', "an entry of the kind `V`"),
        (b'M', "an entry of the kind `M`"),
    ] {
        let why = refusal(&main_tf().member(b"dev/x", kind, "", b"").packed());
        assert_eq!(
            why,
            format!(
                "cannot take `dev/x`: it is {name}; only files, directories and links are taken"
            )
        );
    }
    for (kind, name) in [(b'5', "directory"), (b'2', "symbolic link"), (b'1', "hard link")] {
        let why = refusal(&main_tf().member(b"a", kind, "main.tf", b"content").packed());
        assert_eq!(why, format!("cannot take `a`: it is a {name} with a content"));
    }
}

#[test]
fn a_symbolic_link_stays_inside() {
    let inside = [("a/l", "../main.tf"), ("l", "."), ("l", "./b"), ("a/b/l", "../../a/none")];
    for (name, target) in inside {
        let listed = listed(&main_tf().symlink(name, target).packed()).unwrap();
        assert_eq!(listed.last().unwrap(), &format!("{name} -> {target}"));
    }
    for (name, target) in [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("a/l", "../../x"),
        ("l", "a/../../x"),
        ("./a/../l", "x"),
        ("l", ""),
    ] {
        let why = refusal(&main_tf().symlink(name, target).packed());
        assert!(why.starts_with(&format!("cannot take `{name}`: it is ")), "{why}");
    }
}

#[test]
fn nothing_goes_through_a_symbolic_link() {
    let through = "cannot take `a/passwd`: `a` is a symbolic link";
    let archive = main_tf().directory("d").symlink("a", "d").file("a/passwd", b"x");
    assert_eq!(refusal(&archive.packed()), through);
    let deeper = main_tf().symlink("a", "d").file("a/b/passwd", b"x").packed();
    assert_eq!(refusal(&deeper), "cannot take `a/b/passwd`: `a` is a symbolic link");
    // In the other order.
    let archive = main_tf().file("a/passwd", b"x").symlink("a", "d").packed();
    assert_eq!(refusal(&archive), "cannot take `a`: it is a directory and something else");
}

#[test]
fn links_do_not_lead_out_together() {
    let archive = |target| {
        main_tf().symlink("far", target).directory("d").symlink("d/up", ".").symlink("s", "d/up")
    };
    let why = "cannot take `far`: it is a symbolic link that goes up (`..`) from where another \
               one leads";
    for target in ["s/../..", "d/up/../x", "d/../s/.."] {
        let archive = archive(target).packed();
        let is_inside = target != "s/../..";
        assert_eq!(refusal(&archive).contains("outside"), !is_inside, "{target}");
        assert!(!is_inside || refusal(&archive) == why, "{target}: {}", refusal(&archive));
    }
    assert!(listed(&archive("d/../main.tf").packed()).is_ok());
    let twice = main_tf().symlink("far", "self/self/..").symlink("self", ".").packed();
    assert_eq!(refusal(&twice), why);
}

#[test]
fn a_file_and_a_directory_are_not_at_one_path() {
    let below = main_tf().file("main.tf/x", b"").packed();
    assert_eq!(refusal(&below), "cannot take `main.tf/x`: `main.tf` is a file");
    let above = Tar::default().file("a/x", b"").file("a", b"").packed();
    assert_eq!(refusal(&above), "cannot take `a`: it is a directory and something else");
    let instead = main_tf().directory("main.tf").packed();
    assert_eq!(refusal(&instead), "cannot take `main.tf`: it is a directory and something else");
}

#[test]
fn the_last_of_two_entries_counts() {
    let twice = main_tf().file("main.tf", b"y").directory("d").directory("d").packed();
    assert_eq!(listed(&twice).unwrap(), ["main.tf: x", "main.tf: y", "d/", "d/"]);
    let replaced = main_tf().symlink("main.tf", "y").packed();
    assert_eq!(listed(&replaced).unwrap(), ["main.tf: x", "main.tf -> y"]);
}

#[test]
fn a_hard_link_names_an_earlier_file() {
    let archive = main_tf()
        .hard_link("a/b", "./main.tf")
        .hard_link("c", "a/b")
        .hard_link("main.tf", "main.tf")
        .symlink("s", "a/b")
        .hard_link("t", "s");
    let expected = ["main.tf: x", "a/", "a/b = main.tf", "c = a/b", "s -> a/b", "t -> a/b"];
    assert_eq!(listed(&archive.packed()).unwrap(), expected);
    for target in ["none", "d", "later", "h", ""] {
        let archive = main_tf().directory("d").hard_link("h", target).file("later", b"");
        let why = refusal(&archive.packed());
        let expected = format!("it is a hard link to `{target}`, and that is no file before it");
        assert_eq!(why, format!("cannot take `h`: {expected}"));
    }
    let out = refusal(&main_tf().hard_link("h", "/etc/passwd").packed());
    assert!(out.ends_with("`/etc/passwd`: it is outside of the configuration"), "{out}");
    let out = refusal(&main_tf().symlink("a/s", "../main.tf").hard_link("t", "a/s").packed());
    assert!(out.contains("cannot take `t`: it is a symbolic link to `../main.tf`"), "{out}");
}

#[test]
fn limits_name_the_entry_and_the_limit() {
    let limit = MAX_UNPACKED >> 20;
    let size = MAX_UNPACKED - 1;
    let large = main_tf().raw(b"a", b'0', "", size, b"").0;
    assert!(refusal(&gzip(&large)).contains("it is cut off, at or after `a`"));
    let large = main_tf().raw(b"a", b'0', "", size + 1, b"").packed();
    let expected = format!(
        "cannot take `a`: with its {} bytes the archive unpacks to more than {limit} MiB",
        size + 1
    );
    assert_eq!(refusal(&large), expected);
    let wild = refusal(&main_tf().raw(b"a", b'0', "", u64::MAX >> 1, b"").packed());
    assert!(wild.contains("cannot take `a`"), "{wild}");

    let long = ["a"; 1025].join("/");
    let why =
        refusal(&main_tf().member(b"long", b'L', "", long.as_bytes()).file("a", b"").packed());
    assert!(why.ends_with("…`: its path has more than 2048 bytes"), "{why}");
    let name = "n".repeat(256);
    let why = refusal(&main_tf().pax(&[("path", &name)]).file("a", b"").packed());
    assert!(why.ends_with("`: a name in its path has more than 255 bytes"), "{why}");
    let long = ["abc"; 512].join("/");
    let taken = main_tf().pax(&[("path", &long)]).file("a", b"").packed();
    assert_eq!(listed(&taken).unwrap().last().unwrap(), &format!("{long}: "));

    let mut many = Tar::default();
    for _ in 0..=MAX_ENTRIES {
        many = many.file("main.tf", b"");
    }
    let why = format!("cannot take `main.tf`: the archive has more than {MAX_ENTRIES} entries");
    assert_eq!(refusal(&many.packed()), why);
    let mut deep = main_tf();
    for number in 0..MAX_ENTRIES / 100 + 1 {
        let path = format!("{number}/{}", ["a"; 100].join("/"));
        deep = deep.pax(&[("path", &path)]).file("a", b"");
    }
    assert!(refusal(&deep.packed()).contains("entries"), "directories without an entry count");
}

#[test]
fn a_bomb_takes_neither_memory_nor_long() {
    let begun = std::time::Instant::now();
    let zeros = gzip(&vec![0; 64 << 20]);
    let bomb: Vec<u8> = [main_tf().packed()].into_iter().chain(vec![zeros; 24]).flatten().collect();
    assert_eq!(refusal(&bomb), "the archive unpacks to more than 1024 MiB");
    let name = main_tf().raw(b"long", b'L', "", 1 << 30, b"").packed();
    assert_eq!(refusal(&name), "cannot take `long`: it is a header of more than 1048576 bytes");
    assert!(begun.elapsed().as_secs() < 60);
}

#[test]
fn deep_paths_and_winding_links_do_not_take_long() {
    let deep = ["a"; 900].join("/");
    let target = ["b"; 200].join("/../");
    let links = |count: usize| {
        let archive = (0..count).fold(main_tf(), |archive, number| {
            let (path, name) = (format!("{deep}/{number}"), format!("{number}"));
            archive.pax(&[("path", &path), ("linkpath", &target)]).symlink(&name, "b")
        });
        archive.packed()
    };
    let few = MAX_NAMES / 1300 - 10;
    assert!(listed(&links(few)).is_ok(), "no link goes up from another");
    let why = refusal(&links(2 * few));
    assert!(
        why.ends_with(&format!("the archive's paths have more than {MAX_NAMES} names")),
        "{why}"
    );
}

#[test]
fn something_else_is_no_archive() {
    let plain = main_tf().0;
    for wrong in [&b""[..], b"PK\x03\x04", b"no archive", &plain] {
        let why = "the archive is not compressed with gzip; make it with `tar -czf`, for example";
        assert_eq!(refusal(wrong), why);
    }
    let no_tar = "the archive is broken: it is no tar archive, or a header of it is damaged";
    assert_eq!(refusal(&gzip(&[b'x'; 600])), no_tar);
    assert_eq!(refusal(&gzip(b"no tar")), "the archive is broken: it is cut off");
    for empty in [Tar::default(), Tar::default().directory("./"), Tar::default().symlink("a", "b")]
    {
        assert_eq!(refusal(&empty.packed()), "the archive has no files");
    }
    assert_eq!(refusal(&gzip(b"")), "the archive has no files");
}

#[test]
fn a_damaged_archive_is_refused() {
    let noise: Vec<u8> =
        (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let whole = main_tf().file("noise", &noise).packed();
    for length in (2..whole.len()).step_by(97).chain([whole.len() - 1]) {
        assert!(check(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    let mut flipped = whole.clone();
    let checksum = whole.len() - 6;
    flipped[checksum] ^= 1;
    assert!(check(flipped.as_slice()).is_err(), "the checksum is wrong");
}

#[test]
fn several_members_padding_and_what_follows_are_read_as_gzip_and_tar_do() {
    let tar = main_tf().file("other.tf", b"y").0;
    let ends = [&[][..], &[0; 512], &[0; 1024], &[0; 10240], &[[0; 1024], [7; 1024]].concat()];
    for end in ends {
        let whole = [&tar, end].concat();
        for cut in [0, 1, 512, 700, whole.len()] {
            let packed = [gzip(&whole[..cut]), gzip(&whole[cut..])].concat();
            for after in [&b""[..], &[0; 512], b"a signature"] {
                let archive = [&packed, after].concat();
                assert_eq!(listed(&archive).unwrap(), ["main.tf: x", "other.tf: y"]);
            }
        }
    }
}

#[test]
fn members_without_content_are_counted() {
    let tar = main_tf().0;
    let archive = |empty: usize| [gzip(b"").repeat(empty), gzip(&tar)].concat();
    check(archive(60_000).as_slice()).unwrap();
    let error = check(archive(100_000).as_slice()).unwrap_err().to_string();
    assert!(error.contains("more than 65535 gzip members"), "{error}");
}

#[test]
fn a_header_that_has_no_entry_is_refused() {
    let archive = main_tf().pax(&[("path", "a")]);
    let missing = "the archive is broken: an entry is missing after its header";
    assert_eq!(refusal(&archive.packed()), missing);
    let global = main_tf().member(
        b"pax_global_header",
        b'g',
        "",
        b"52 comment=0123456789012345678901234567890123456789\n",
    );
    assert_eq!(listed(&global.packed()).unwrap(), ["main.tf: x"]);
    let global = Tar::default().member(b"global", b'g', "", b"15 path=/x/y/z\n");
    let why = "cannot take `global`: a global header must not set names or sizes";
    assert_eq!(refusal(&global.file("a", b"").packed()), why);
}

#[test]
fn sizes_that_disagree_are_refused() {
    let archive = Tar::default().pax(&[("size", "512")]).file("a", &[b'x'; 1024]);
    assert_eq!(refusal(&archive.packed()), "cannot take `a`: its headers have different sizes");
    let archive = Tar::default().pax(&[("size", "3")]).file("a", b"xyz");
    assert_eq!(listed(&archive.packed()).unwrap(), ["a: xyz"]);
}

#[test]
fn sparse_files_of_pax_are_expanded_within_the_limit() {
    let versions: [Sparse<'_>; 3] = [
        (
            &[
                ("GNU.sparse.size", "2048"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.offset", "1024"),
                ("GNU.sparse.numbytes", "3"),
                ("GNU.sparse.offset", "2048"),
                ("GNU.sparse.numbytes", "0"),
            ],
            b"xyz",
        ),
        (
            &[
                ("GNU.sparse.size", "2048"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.map", "1024,3,2048,0"),
            ],
            b"xyz",
        ),
        (
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.realsize", "2048"),
            ],
            &[b"2\n1024\n3\n2048\n0\n".as_slice(), &[0; 496], b"xyz"].concat(),
        ),
    ];
    for (records, content) in versions {
        let archive = Tar::default().pax(records).file("s", content).packed();
        let text = listed(&archive).unwrap().remove(0);
        assert!(text.starts_with("s: 1024 zeros, then xyz\0\0"), "{text}");
        assert_eq!(text.trim_end_matches('\0').len(), "s: 1024 zeros, then xyz".len());
        // Maps that don't fit.
        for (from, to) in [("1024", "2046"), ("3", "4"), ("3", "600"), ("2048", "99999999999999")] {
            let replaced: Vec<(&str, String)> =
                records.iter().map(|(key, value)| (*key, value.replace(from, to))).collect();
            let replaced: Vec<(&str, &str)> =
                replaced.iter().map(|(key, value)| (*key, value.as_str())).collect();
            if replaced == records {
                continue;
            }
            let archive = Tar::default().pax(&replaced).file("s", content).packed();
            let why = refusal(&archive);
            assert!(why.starts_with("cannot take `s`: "), "{why}");
        }
    }
    let unknown = [("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")];
    let archive = Tar::default().pax(&unknown).file("s", b"");
    assert_eq!(refusal(&archive.packed()), "cannot take `s`: its sparse format is unknown");
}

#[test]
fn permissions_are_all_that_is_left_of_a_mode() {
    let mut tar = main_tf().0;
    tar[100..108].copy_from_slice(b"0006755\0");
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let archive = gzip(&tar);
    let mut reader = Reader::new(archive.as_slice(), None).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().mode, 0o755);
}

#[test]
fn what_terraform_wrote_is_left_out() {
    let archive = main_tf()
        .directory(".terraform/")
        .file(".terraform/terraform.tfstate", b"")
        .symlink(".terraform/providers/x", "/home/me/.terraform.d/plugin-cache/x")
        .file(".terraform/modules/m/main.tf", b"m")
        .file("modules/m/.terraform/environment", b"")
        .file("terraform.tfstate", b"")
        .file("terraform.tfstate.backup", b"")
        .file("terraform.tfstate.1700000000.backup", b"")
        .file("terraform.tfstate.d/dev/terraform.tfstate", b"")
        .file("errored.tfstate", b"")
        .file(".terraform.tfstate.lock.info", b"")
        .file("other/terraform.tfstate", b"o")
        .file(".terraform.lock.hcl", b"l")
        .packed();
    let kept = [
        "main.tf: x",
        ".terraform/",
        ".terraform/modules/",
        ".terraform/modules/m/",
        ".terraform/modules/m/main.tf: m",
        "other/",
        "other/terraform.tfstate: o",
        ".terraform.lock.hcl: l",
    ];
    assert_eq!(listed_in(&archive, Some(Path::new(""))).unwrap(), kept);
    let mut reader = Reader::new(archive.as_slice(), Some(Path::new("other"))).unwrap();
    while reader.next().unwrap().is_some() {}
    let left_out: Vec<_> = reader.left_out().iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(left_out, [".terraform", "modules/m/.terraform", "other/terraform.tfstate"]);
}

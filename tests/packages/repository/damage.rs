//! `repository verify` names what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{tree, verify, workshop};
use tests::workshop::{Workshop, run, text};

/// What is done to a repository, and what is to be said of it.
struct Damage {
    what: &'static str,
    doing: fn(&Workshop, &Path),
    said: &'static [&'static str],
}

const DEB: &str = "apt/pool/main/s/scalr-agent/scalr-agent_1.0.0-1_amd64.deb";
const RELEASE: &str = "apt/dists/stable/Release";
const PACKAGES: &str = "apt/dists/stable/main/binary-amd64/Packages";
const REPOMD: &str = "yum/repodata/repomd.xml";

const DAMAGES: &[Damage] = &[
    Damage {
        what: "a deb is gone",
        doing: |_, root| fs::remove_file(root.join(DEB)).unwrap(),
        said: &["scalr-agent_1.0.0-1_amd64.deb: it is not there"],
    },
    Damage {
        what: "a deb is cut off",
        doing: |_, root| cut_off(&root.join(DEB)),
        said: &["scalr-agent_1.0.0-1_amd64.deb: it has ", "and its index says"],
    },
    Damage {
        what: "a byte of a deb is another",
        doing: |_, root| change(&root.join(DEB)),
        said: &["scalr-agent_1.0.0-1_amd64.deb: its SHA-256 is"],
    },
    Damage {
        what: "an index is gone",
        doing: |_, root| fs::remove_file(root.join(PACKAGES)).unwrap(),
        said: &["binary-amd64/Packages: it is not there"],
    },
    Damage {
        what: "an index is another",
        doing: |_, root| change(&root.join(PACKAGES)),
        said: &["binary-amd64/Packages: its SHA-256 is"],
    },
    Damage {
        what: "an index by its hash is gone",
        doing: |_, root| {
            fs::remove_dir_all(root.join("apt/dists/stable/main/binary-arm64/by-hash")).unwrap();
        },
        said: &["binary-arm64/by-hash/SHA256/", ": it is not there"],
    },
    Damage {
        what: "apt's index has no signature",
        doing: |_, root| fs::remove_file(root.join("apt/dists/stable/Release.gpg")).unwrap(),
        said: &["Release.gpg: it is not there"],
    },
    Damage {
        what: "what InRelease says was changed",
        doing: |_, root| {
            edit(&root.join("apt/dists/stable/InRelease"), "Suite: stable", "Suite: testing")
        },
        said: &["InRelease: the signature of", "another content"],
    },
    Damage {
        what: "what Release says was changed",
        doing: |_, root| edit(&root.join(RELEASE), "Suite: stable", "Suite: testing"),
        said: &["Release.gpg: the signature of", "Release: its content differs from InRelease"],
    },
    Damage {
        what: "InRelease is gone",
        doing: |_, root| fs::remove_file(root.join("apt/dists/stable/InRelease")).unwrap(),
        said: &["InRelease: it is not there"],
    },
    Damage {
        what: "apt's index lacks an architecture",
        doing: |workshop, root| {
            let text = fs::read_to_string(root.join(RELEASE)).unwrap();
            let lines = text.lines().filter(|line| !line.contains("binary-arm64"));
            sign_release(
                workshop,
                root,
                &lines.map(|line| format!("{line}\n")).collect::<String>(),
            );
        },
        said: &["InRelease: it names no main/binary-arm64/Packages, so apt fails on arm64"],
    },
    Damage {
        what: "apt's index has ended",
        doing: |workshop, root| {
            let text = fs::read_to_string(root.join(RELEASE)).unwrap();
            let ended = format!("Valid-Until: Fri, 01 Jan 2021 00:00:00 +0000\n{text}");
            sign_release(workshop, root, &ended);
        },
        said: &["InRelease: it expired at 2021-01-01"],
    },
    Damage {
        what: "a path leads out of the repository",
        doing: |workshop, root| {
            let text = fs::read_to_string(root.join(RELEASE)).unwrap();
            sign_release(
                workshop,
                root,
                &text.replace("main/binary-amd64/Packages.gz", "../../../x.gz"),
            );
        },
        said: &["../../../x.gz: its path leads out of the repository"],
    },
    Damage {
        what: "an rpm is gone",
        doing: |_, root| fs::remove_file(rpm(root)).unwrap(),
        said: &["scalr-agent-1.0.0-1.x86_64.rpm: it is not there"],
    },
    Damage {
        what: "an rpm is cut off",
        doing: |_, root| cut_off(&rpm(root)),
        said: &["scalr-agent-1.0.0-1.x86_64.rpm: it has "],
    },
    Damage {
        what: "an rpm is not signed",
        doing: |workshop, root| {
            run(Command::new("rpmsign").arg("--delsign").arg(rpm(root)));
            index_again(workshop, root, &[]);
        },
        said: &["scalr-agent-1.0.0-1.x86_64.rpm: it is not signed with RSA and SHA-256"],
    },
    Damage {
        what: "an rpm is signed with another key",
        doing: |workshop, root| {
            let key = workshop.key("stranger");
            run(Command::new("rpmsign")
                .env("GNUPGHOME", workshop.path("gnupg"))
                .args(["--define", &format!("_gpg_name {key}"), "--define", "__gpg /usr/bin/gpg"])
                .args(["--rpmv3", "--addsign"])
                .arg(rpm(root)));
            index_again(workshop, root, &[]);
        },
        said: &["scalr-agent-1.0.0-1.x86_64.rpm: Header V4 RSA/", ": NOKEY"],
    },
    Damage {
        what: "an rpm has no signature for old hosts",
        doing: |workshop, root| {
            run(Command::new("rpmsign")
                .env("GNUPGHOME", workshop.path("gnupg"))
                .args([
                    "--define",
                    "_gpg_name packages@pools.test",
                    "--define",
                    "__gpg /usr/bin/gpg",
                ])
                .arg("--resign")
                .arg(rpm(root)));
            index_again(workshop, root, &[]);
        },
        said: &["scalr-agent-1.0.0-1.x86_64.rpm: its payload is not signed"],
    },
    Damage {
        what: "yum's index has no signature",
        doing: |_, root| fs::remove_file(root.join("yum/repodata/repomd.xml.asc")).unwrap(),
        said: &["repomd.xml.asc: it is not there"],
    },
    Damage {
        what: "yum's index was changed",
        doing: |_, root| edit(&root.join(REPOMD), "<revision>", "<revision>1"),
        said: &["repomd.xml.asc: the signature of", "another content"],
    },
    Damage {
        what: "an index that yum's index names is gone",
        doing: |_, root| fs::remove_file(named(root, "filelists")).unwrap(),
        said: &["-filelists.xml.gz: it is not there"],
    },
    Damage {
        what: "an index that yum's index names is another",
        doing: |_, root| change(&named(root, "primary")),
        said: &["-primary.xml.gz: its SHA-256 is"],
    },
    Damage {
        what: "yum's indexes are packed in a way that an old yum can't read",
        doing: |workshop, root| index_again(workshop, root, &["--general-compress-type", "xz"]),
        said: &["-primary.xml.xz: it is not packed with gzip"],
    },
    Damage {
        what: "yum's checksums are of a kind that an old yum does not know",
        doing: |workshop, root| index_again(workshop, root, &["--checksum", "sha512"]),
        said: &["its checksum is of the kind sha512"],
    },
    Damage {
        what: "the key is another",
        doing: |workshop, root| {
            let key = workshop.key("another");
            let public = run(workshop.gpg().args(["--armor", "--export"]).arg(key));
            fs::write(root.join("scalr-agent.asc"), public).unwrap();
        },
        said: &[
            "InRelease: it is not signed with",
            "Release.gpg: it is not",
            "repomd.xml.asc: it is not",
        ],
    },
    Damage {
        what: "the key's file has a secret key",
        doing: |workshop, root| {
            let secret = run(workshop.gpg().args([
                "--batch",
                "--armor",
                "--export-secret-keys",
                "packages@pools.test",
            ]));
            let file = root.join("scalr-agent.asc");
            let both = fs::read_to_string(&file).unwrap() + &secret;
            fs::write(file, both).unwrap();
        },
        said: &["scalr-agent.asc: it is not just a public key in ASCII"],
    },
    Damage {
        what: "the key speaks for itself with SHA-1",
        doing: |workshop, root| {
            let user = "weak <weak@pools.test>";
            let weak = ["--batch", "--quiet", "--cert-digest-algo", "SHA1", "--passphrase", ""];
            run(workshop.gpg().args(weak).args(["--quick-generate-key", user, "rsa2048", "sign"]));
            let public = run(workshop.gpg().args(["--armor", "--export", user]));
            fs::write(root.join("scalr-agent.asc"), public).unwrap();
        },
        said: &["scalr-agent.asc: a key in it is signed by itself with SHA-1"],
    },
    Damage {
        what: "the setup program is another",
        doing: |_, root| change(&root.join("scalr-agent-setup-x86_64")),
        said: &["scalr-agent-setup-x86_64: its SHA-256 is"],
    },
    Damage {
        what: "the setup program has no checksum",
        doing: |_, root| fs::remove_file(root.join("scalr-agent-setup-x86_64.sha256")).unwrap(),
        said: &["scalr-agent-setup-x86_64: scalr-agent-setup-x86_64.sha256: it is not there"],
    },
    Damage {
        what: "the setup program and its checksum are others",
        doing: |_, root| {
            let program = root.join("scalr-agent-setup-x86_64");
            change(&program);
            let sum = run(Command::new("sha256sum").arg(&program));
            fs::write(root.join("scalr-agent-setup-x86_64.sha256"), sum).unwrap();
        },
        said: &["scalr-agent-setup-x86_64.asc: the signature of", "another content"],
    },
    Damage {
        what: "the setup program has no signature",
        doing: |_, root| fs::remove_file(root.join("scalr-agent-setup-x86_64.asc")).unwrap(),
        said: &["scalr-agent-setup-x86_64: scalr-agent-setup-x86_64.asc: it is not there"],
    },
    Damage {
        what: "there are no indexes",
        doing: |_, root| {
            fs::remove_dir_all(root.join("apt")).unwrap();
            fs::remove_dir_all(root.join("yum")).unwrap();
            fs::remove_dir_all(root.join("yum-el7")).unwrap();
        },
        said: &["there is neither apt nor yum"],
    },
];

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn each_damage_is_found_and_named() {
    let (workshop, key) = workshop();
    let sound = workshop.path("sound");
    workshop.packages("1.0.0");
    workshop.setup_program("x86_64");
    workshop.publish(&sound, &["--key", &key]);
    let (code, said) = verify(&workshop, &sound);
    assert_eq!(code, Some(0), "{said}");

    let mut missed = Vec::new();
    for Damage { what, doing, said } in DAMAGES {
        let root = workshop.path("damaged");
        run(Command::new("cp").arg("-a").arg(&sound).arg(&root));
        doing(&workshop, &root);
        let (code, found) = verify(&workshop, &root);
        if code != Some(3) || !said.iter().all(|part| found.contains(part)) {
            missed.push(format!("{what}: {code:?}: {found}"));
        }
        fs::remove_dir_all(root).unwrap();
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(verify(&workshop, &workshop.path("packages")).0, Some(2), "that is no repository");
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn what_a_web_server_cannot_read_is_named() {
    let (workshop, key) = workshop();
    let root = workshop.path("private");
    workshop.deb("1.0.0", "amd64", "1.0.0");
    let made = Command::new("sh")
        .args(["-c", "umask 077 && exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_scalr-agent-setup-under-test"))
        .env("GNUPGHOME", workshop.path("gnupg"))
        .args(["repository", "--key", &key, "--packages"])
        .arg(workshop.path("packages"))
        .arg("--output")
        .arg(&root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let (code, said) = verify(&workshop, &root);
    assert_eq!(code, Some(0), "the umask does not count: {said}");

    for (path, mode) in
        [("apt/dists/stable/InRelease", 0o640), ("apt/pool/main", 0o754), ("", 0o700)]
    {
        let path = root.join(path);
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = verify(&workshop, &root);
        let name = path.to_str().unwrap().trim_end_matches('/');
        assert_eq!(code, Some(3), "{name}: {said}");
        assert!(
            said.contains(name) && said.contains(&format!("has the mode {mode:04o}")),
            "{said}"
        );
        assert_eq!(said.matches("a web server cannot read it").count(), 1, "{said}");
        fs::set_permissions(&path, before).unwrap();
    }
}

fn rpm(root: &Path) -> PathBuf {
    of_yum(root, "x86_64.rpm")
}

fn named(root: &Path, kind: &str) -> PathBuf {
    of_yum(root, &format!("-{kind}.xml.gz"))
}

fn of_yum(root: &Path, end: &str) -> PathBuf {
    let yum = root.join("yum");
    let path = tree(&yum).into_keys().find(|path| path.ends_with(end));
    yum.join(path.unwrap())
}

fn cut_off(file: &Path) {
    let content = fs::read(file).unwrap();
    fs::write(file, &content[..content.len() - 1]).unwrap();
}

/// The same size, but for one byte.
fn change(file: &Path) {
    let mut content = fs::read(file).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(file, content).unwrap();
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// A release with a good signature that says something wrong.
fn sign_release(workshop: &Workshop, root: &Path, text: &str) {
    let file = root.join(RELEASE);
    fs::write(&file, text).unwrap();
    for (how, signed) in [("--detach-sign", "Release.gpg"), ("--clear-sign", "InRelease")] {
        let gpg =
            ["--batch", "--yes", "--armor", "--digest-algo", "SHA256", "-u", "packages@pools.test"];
        run(workshop
            .gpg()
            .args(gpg)
            .arg("-o")
            .arg(file.with_file_name(signed))
            .arg(how)
            .arg(&file));
    }
}

/// yum's indexes with a good signature, of what is there.
fn index_again(workshop: &Workshop, root: &Path, options: &[&str]) {
    let yum = root.join("yum");
    let packing = if options.is_empty() { &["--general-compress-type", "gz"][..] } else { options };
    run(Command::new("createrepo_c").args(["--quiet", "--no-database"]).args(packing).arg(&yum));
    let index = root.join(REPOMD);
    let gpg =
        ["--batch", "--yes", "--armor", "--digest-algo", "SHA256", "-u", "packages@pools.test"];
    let signature = yum.join("repodata/repomd.xml.asc");
    run(workshop.gpg().args(gpg).arg("-o").arg(signature).arg("--detach-sign").arg(index));
}

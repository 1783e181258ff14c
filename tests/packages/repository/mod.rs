//! `scalr-agent-setup repository`: what it publishes, keeps and refuses.

mod clients;
mod damage;
mod failures;
mod rotation;
mod served;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tests::workshop::{Workshop, run, text};

/// A workshop with a key, whose fingerprint is the second.
fn workshop() -> (Workshop, String) {
    let workshop = Workshop::new(Path::new(env!("CARGO_BIN_EXE_scalr-agent-setup-under-test")));
    let key = workshop.key("packages");
    (workshop, key)
}

/// Every file below a folder, with its content's SHA-256, by its path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let sums = run(std::process::Command::new("find").current_dir(root).args([
        ".",
        "-type",
        "f",
        "-exec",
        "sha256sum",
        "{}",
        "+",
    ]));
    sums.lines()
        .map(|line| {
            let (sum, path) = line.split_once("  ./").unwrap();
            (path.to_owned(), sum.to_owned())
        })
        .collect()
}

fn index(root: &Path, architecture: &str) -> String {
    let file = format!("apt/dists/stable/main/binary-{architecture}/Packages");
    fs::read_to_string(root.join(file)).unwrap()
}

/// What `verify` says, and its exit code.
fn verify(workshop: &Workshop, root: &Path) -> (Option<i32>, String) {
    let output = workshop.setup().args(["repository", "verify"]).arg(root).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn older_versions_stay_and_those_beyond_the_number_go_after_a_week() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.packages("1.9.0");
    workshop.publish(&root, &["--key", &key]);
    let first = tree(&root);
    workshop.clear();
    workshop.packages("1.10.0");
    let said = workshop.publish(&root, &["--key", &key]);
    assert!(said.contains(&format!("note: the key {key} expires on 20")), "{said}");
    assert!(said.contains("new       scalr-agent 1.10.0-1 amd64"), "{said}");
    assert!(said.contains("kept      scalr-agent 1.9.0-1 aarch64"), "{said}");
    for architecture in ["amd64", "arm64"] {
        let index = index(&root, architecture);
        assert!(index.contains("Version: 1.9.0-1\n") && index.contains("Version: 1.10.0-1\n"));
    }
    // Whoever has read the first index finds all that it names, as it was.
    let second = tree(&root);
    let is_index = |path: &str| {
        ["Packages", "Packages.gz", "Release", "InRelease", "Release.gpg", "repomd.xml"]
            .iter()
            .any(|name| path.ends_with(name))
            || path.ends_with("repomd.xml.asc")
            || path.starts_with('.')
    };
    for (path, sum) in first.iter().filter(|(path, _)| !is_index(path)) {
        assert_eq!(second.get(path), Some(sum), "{path}");
    }
    assert!(first.keys().any(|path| path.contains("/by-hash/SHA256/")));

    workshop.clear();
    let said = workshop.publish(&root, &["--key", &key, "--keep", "1"]);
    assert!(said.contains("left out  scalr-agent 1.9.0-1 x86_64"), "{said}");
    assert!(!index(&root, "amd64").contains("Version: 1.9.0-1\n"));
    let old = tree(&root).into_keys().filter(|path| path.contains("1.9.0")).count();
    assert_eq!(old, 6, "the files are still there, the rpms in both of their parts");
    // They don't come back, either.
    workshop.publish(&root, &["--key", &key]);
    assert!(!index(&root, "amd64").contains("Version: 1.9.0-1\n"));

    let record = root.join(".retired.json");
    let week_ago = fs::read_to_string(&record).unwrap().replace(": \"20", ": \"19");
    fs::write(&record, week_ago).unwrap();
    workshop.publish(&root, &["--key", &key]);
    assert!(!tree(&root).keys().any(|path| path.contains("1.9.0")));
    assert_eq!(verify(&workshop, &root).0, Some(0));
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn what_is_published_is_never_replaced() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.packages("1.0.0");
    workshop.publish(&root, &["--key", &key]);
    let before = tree(&root);
    workshop.publish(&root, &["--key", &key]);
    let again = tree(&root);
    for (path, sum) in
        before.iter().filter(|(path, _)| path.ends_with("deb") || path.ends_with("rpm"))
    {
        assert_eq!(again.get(path), Some(sum), "{path} was signed or copied again");
    }

    for build in [
        |workshop: &Workshop| workshop.deb("1.0.0", "amd64", "another"),
        |workshop: &Workshop| workshop.rpm("1.0.0", "aarch64", "another"),
    ] {
        workshop.clear();
        build(&workshop);
        let before = tree(&root);
        let refused = workshop.try_publish(&root, &["--key", &key]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("is published already"), "{}", text(&refused));
        assert_eq!(tree(&root), before);
    }
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn an_index_expires_only_if_asked_and_is_signed_again_without_packages() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    let nothing = workshop.try_publish(&root, &["--key", &key]);
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing));
    assert!(!root.exists());

    workshop.deb("1.0.0", "amd64", "");
    workshop.publish(&root, &["--key", &key]);
    let release = || fs::read_to_string(root.join("apt/dists/stable/InRelease")).unwrap();
    for field in ["Origin", "Label", "Suite", "Codename", "Date", "Components"] {
        assert!(release().contains(&format!("\n{field}: ")), "{field}: {}", release());
    }
    assert!(release().contains("\nAcquire-By-Hash: yes\n"), "{}", release());
    assert!(release().contains("\nArchitectures: amd64 arm64\n"), "{}", release());
    assert!(!release().contains("Valid-Until"), "{}", release());
    assert!(index(&root, "arm64").is_empty(), "there, though empty: apt asks for it");
    workshop.clear();
    workshop.publish(&root, &["--key", &key, "--valid-days", "14"]);
    assert!(release().contains("\nValid-Until: "), "{}", release());
    assert!(index(&root, "amd64").contains("Version: 1.0.0-1\n"));
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn enterprise_linux_7_has_a_part_of_its_own_if_there_is_something_for_it() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.rpm_for("1", ">= 230", "1.0.0", "x86_64", "newer");
    workshop.publish(&root, &["--key", &key]);
    assert!(root.join("yum").is_dir() && !root.join("yum-el7").exists());
    assert_eq!(verify(&workshop, &root).0, Some(0));

    workshop.rpm_for("1.el7", "", "1.0.0", "x86_64", "el7");
    let said = workshop.publish(&root, &["--key", &key]);
    let new = "new       scalr-agent 1.0.0-1.el7 x86_64, for Enterprise Linux 7\n";
    assert!(said.contains(new), "{said}");
    let rpms = |part: &str| {
        let paths = tree(&root.join(part)).into_keys().filter(|path| path.ends_with(".rpm"));
        paths.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rpms("yum"), ["scalr-agent-1.0.0-1.x86_64.rpm"]);
    assert_eq!(rpms("yum-el7"), ["scalr-agent-1.0.0-1.el7.x86_64.rpm"]);

    // The newer ones alone: the part stays as it was.
    workshop.clear();
    workshop.rpm_for("1", ">= 230", "1.1.0", "x86_64", "newer");
    workshop.publish(&root, &["--key", &key]);
    assert_eq!(rpms("yum-el7"), ["scalr-agent-1.0.0-1.el7.x86_64.rpm"]);

    // It is verified like the others.
    let index = root.join("yum-el7/repodata/repomd.xml");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, format!("{text}<!-- -->")).unwrap();
    let (code, said) = verify(&workshop, &root);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("yum-el7/repodata/repomd.xml.asc: "), "{said}");
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn an_old_host_can_verify_the_rpms_and_read_their_index() {
    let (workshop, key) = workshop();
    let root = workshop.path("repository");
    workshop.rpm("1.0.0", "x86_64", "");
    workshop.publish(&root, &["--key", &key]);
    let rpm = tree(&root).into_keys().find(|path| path.ends_with(".rpm")).unwrap();
    let format = "%{RSAHEADER:pgpsig}\n%{SIGPGP:pgpsig}\n";
    let said = run(std::process::Command::new("rpm")
        .args(["-qp", "--nosignature", "--qf", format])
        .arg(root.join(&rpm)));
    assert_eq!(said.matches("RSA/SHA256").count(), 2, "of header and of payload: {said}");

    // One that was published without the second gets it.
    let bare = root.join("yum/packages/scalr-agent-1.0.0-1.x86_64.rpm");
    fs::rename(root.join(rpm), &bare).unwrap();
    run(std::process::Command::new("rpmsign")
        .env("GNUPGHOME", workshop.path("gnupg"))
        .args(["--define", &format!("_gpg_name {key}"), "--define", "__gpg /usr/bin/gpg"])
        .arg("--resign")
        .arg(&bare));
    workshop.publish(&root, &["--key", &key]);
    assert_eq!(verify(&workshop, &root).0, Some(0));
    let index = fs::read_to_string(root.join("yum/repodata/repomd.xml")).unwrap();
    for unknown in [".zst", ".zck", ".xz", "_db", "sha512", "sha384"] {
        assert!(!index.contains(unknown), "{unknown}: {index}");
    }
}

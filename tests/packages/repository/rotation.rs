//! From one key to another, with both for a while.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{tree, verify, workshop};
use tests::workshop::{Workshop, run, text};

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn a_key_is_changed_with_both_for_a_while() {
    let (workshop, old) = workshop();
    let new = workshop.key("new");
    let root = workshop.path("repository");
    workshop.packages("1.0.0");
    workshop.publish(&root, &["--key", &old]);
    let alone = fs::read(root.join("scalr-agent.asc")).unwrap();

    // At once is refused: hosts that trust the old one would be left alone.
    let before = tree(&root);
    let refused = workshop.try_publish(&root, &["--key", &new]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains(&format!("--key {old} --key {new}")), "{}", text(&refused));
    assert_eq!(tree(&root), before);

    // Both sign; a host that knows only one of them is served.
    workshop.clear();
    workshop.packages("1.1.0");
    workshop.publish(&root, &["--key", &old, "--key", &new]);
    assert_eq!(verify(&workshop, &root).0, Some(0));
    let both = fs::read_to_string(root.join("scalr-agent.asc")).unwrap();
    assert_eq!(both.matches("BEGIN PGP PUBLIC KEY BLOCK").count(), 2, "rpm 4.11 reads one a block");
    assert_eq!(signers(&workshop, &root), [&old[24..], &new[24..]], "yum 3 looks at the first");
    assert!(has_rpms_of(&root, &old) && !has_rpms_of(&root, &new));

    // The new one comes first; what the old one signed is still there.
    workshop.clear();
    workshop.packages("1.2.0");
    workshop.publish(&root, &["--key", &new, "--key", &old]);
    assert_eq!(verify(&workshop, &root).0, Some(0));
    assert_eq!(signers(&workshop, &root), [&new[24..], &old[24..]]);
    assert!(has_rpms_of(&root, &old) && has_rpms_of(&root, &new));

    // The new one alone: what the old one signed is signed again, at another path.
    workshop.clear();
    let before = tree(&root);
    workshop.publish(&root, &["--key", &new]);
    let (code, said) = verify(&workshop, &root);
    assert_eq!(code, Some(0), "{said}");
    let after = tree(&root);
    for (path, sum) in before.iter().filter(|(path, _)| path.ends_with(".rpm")) {
        assert_eq!(after.get(path), Some(sum), "{path}");
    }
    let folder = root.join("yum/packages").join(new[24..].to_lowercase());
    assert_eq!(fs::read_dir(folder).unwrap().count(), 6, "three versions of two architectures");
    let index = named_primary(&root);
    assert!(!index.contains(&old[24..].to_lowercase()), "{index}");
    let now = fs::read(root.join("scalr-agent.asc")).unwrap();
    assert_ne!(now, alone);
    assert_eq!(String::from_utf8_lossy(&now).matches("BEGIN PGP").count(), 1);
}

#[test]
#[ignore = "needs apt-utils, createrepo-c, gnupg and rpm: run scripts/test"]
fn a_subkey_neither_signs_nor_is_handed_out() {
    let (workshop, key) = workshop();
    run(workshop.gpg().args([
        "--batch",
        "--passphrase",
        "",
        "--quick-add-key",
        &key,
        "rsa2048",
        "sign",
    ]));
    let root = workshop.path("repository");
    workshop.packages("1.0.0");
    workshop.publish(&root, &["--key", &key]);
    assert_eq!(signers(&workshop, &root), [&key[24..]]);
    let list = run(workshop
        .gpg()
        .args(["--with-colons", "--show-keys"])
        .arg(root.join("scalr-agent.asc")));
    assert!(!list.contains("\nsub:"), "an old rpm would trust it: {list}");
    let twice = workshop.try_publish(&root, &["--key", &key, "--key", "packages@pools.test"]);
    assert_eq!(twice.status.code(), Some(2), "{}", text(&twice));
}

/// The ids of those who signed yum's index, in order.
fn signers(workshop: &Workshop, root: &Path) -> Vec<String> {
    let file = root.join("yum/repodata/repomd.xml.asc");
    let packets = run(workshop.gpg().arg("--list-packets").arg(file));
    packets
        .lines()
        .filter_map(|line| line.strip_prefix(":signature packet: algo 1, keyid "))
        .map(str::to_owned)
        .collect()
}

fn has_rpms_of(root: &Path, key: &str) -> bool {
    root.join("yum/packages").join(key[24..].to_lowercase()).is_dir()
}

fn named_primary(root: &Path) -> String {
    let repomd = fs::read_to_string(root.join("yum/repodata/repomd.xml")).unwrap();
    let href = repomd.split('"').find(|word| word.ends_with("-primary.xml.gz")).unwrap();
    run(Command::new("zcat").arg(root.join("yum").join(href)))
}

//! The key: its fingerprint without gpg, and what is compared with what.

use std::fs;

use crate::host::{Host, Packages, key, sha256};

/// As gpg 2.2.40 tells them of `keys/packages.asc` and `keys/others.asc`.
const PACKAGES: &str = "100183039822423db52c2907bd14663471510c6c";
const OTHERS: &str = "59fe917e2f993909a7481b94602e8c36ce93aa16";

fn read(host: &Host, key: &str) -> String {
    fs::write(host.path("key.asc"), key).unwrap();
    let said = host
        .run("work=tmp; if read_key key.asc; then echo $fingerprint $is_alone; else echo none; fi");
    said.went_well();
    said.stdout.trim().to_owned()
}

#[test]
fn a_fingerprint_needs_no_gpg() {
    Host::each(Packages::Apt, |host| {
        assert_eq!(read(host, &key("packages")), format!("{PACKAGES} yes"));
        assert_eq!(read(host, &key("others")), format!("{OTHERS} yes"));
        let with_headers = key("packages").replacen("\n\n", "\nVersion: 1\nComment: x\n\n", 1);
        assert_eq!(read(host, &with_headers), format!("{PACKAGES} yes"));
        assert_eq!(read(host, &key("packages").replace('\n', "\r\n")), format!("{PACKAGES} yes"));
        assert_eq!(read(host, &format!("A key:\n{}", key("packages"))), format!("{PACKAGES} yes"));
    });
}

#[test]
fn a_second_key_is_noticed() {
    Host::each(Packages::Apt, |host| {
        assert_eq!(read(host, &key("both")), PACKAGES);
        assert_eq!(read(host, &key("subkey")), OTHERS);
        // rpm reads each block of a file.
        assert_eq!(read(host, &(key("packages") + &key("others"))), "none");
    });
}

#[test]
fn what_is_no_key_is_refused() {
    Host::each(Packages::Apt, |host| {
        let whole = key("packages");
        let cut = whole.split_once("\n=").unwrap().0;
        let half = format!("{}\n-----END PGP PUBLIC KEY BLOCK-----\n", &whole[..whole.len() / 2]);
        for text in ["", "<html>404</html>\n", "-----BEGIN\n\n%%%%\n", &half, &whole[1..]] {
            assert_eq!(read(host, text), "none", "{text}");
        }
        // Its checksum, which is missing here, says nothing of who made it.
        assert_eq!(read(host, cut), format!("{PACKAGES} yes"));
    });
}

/// Has `verify_key` look at a key as that of https://pools.test.
fn verify(host: &Host, name: &str, pinned: &str, given: &str) -> crate::host::Said {
    host.serve("key.asc", &key(name));
    host.run(&format!(
        "SERVER_URL=https://pools.test KEY_SHA256={pinned} work=tmp\n\
         read_options --key-fingerprint '{given}'\n\
         judge_fingerprint\n\
         key=server/packages/key.asc\n\
         verify_key"
    ))
}

#[test]
fn the_key_has_to_be_the_expected_one() {
    Host::each(Packages::Apt, |host| {
        host.serve("key.asc", &key("packages"));
        let sum = sha256(host, "key.asc");
        let wrong = "0".repeat(64);
        // With the digits as gpg and other tools print them.
        let spaced = "1001 8303 9822 423D B52C  2907 BD14 6634 7151 0C6C";
        for (pinned, given) in [
            (sum.as_str(), PACKAGES),
            ("", PACKAGES),
            ("", spaced),
            ("", sum.as_str()),
            (sum.as_str(), sum.as_str()),
        ] {
            let said = verify(host, "packages", pinned, given);
            assert!(said.code == 0 && said.stderr.is_empty(), "{said:?}");
        }
        for (pinned, given) in
            [(wrong.as_str(), PACKAGES), (sum.as_str(), OTHERS), ("", OTHERS), ("", wrong.as_str())]
        {
            let said = verify(host, "packages", pinned, given);
            said.refused(9, "is not the expected one");
        }
    });
}

#[test]
fn a_fingerprint_does_not_speak_for_what_stands_behind_the_key() {
    Host::each(Packages::Apt, |host| {
        for (name, given) in [("both", PACKAGES), ("subkey", OTHERS)] {
            verify(host, name, "", given).refused(9, "give the SHA-256 of the file");
            host.serve("key.asc", &key(name));
            let sum = sha256(host, "key.asc");
            verify(host, name, &sum, given).went_well();
            verify(host, name, "", &sum).went_well();
        }
    });
}

#[test]
fn the_served_sum_is_for_that_server_alone() {
    Host::each(Packages::Apt, |host| {
        host.serve("key.asc", &key("packages"));
        let said = host.run(
            "SERVER_URL=https://pools.test KEY_SHA256=0000 work=tmp\n\
             read_options --url https://other.test\n\
             key=server/packages/key.asc\n\
             verify_key",
        );
        said.went_well();
        assert!(said.stderr.contains("not compared with anything"), "{said:?}");
    });
}

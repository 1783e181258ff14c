//! Which setup program the script runs as root, whoever may write to what lies
//! between it and its server.

use std::fs;

use crate::host::{Host, Packages, Said, sha256};
use crate::keys::{Keys, PROGRAM};

/// Replaces the program and whatever beside it anybody could replace, too.
fn replace(host: &Host) {
    let good = fs::read_to_string(host.path("server/packages").join(PROGRAM)).unwrap();
    host.serve(PROGRAM, &format!("{good}echo evil >>$host/calls\n"));
    let sum = sha256(host, PROGRAM);
    host.serve(&format!("{PROGRAM}.sha256"), &format!("{sum}  {PROGRAM}\n"));
}

#[track_caller]
fn not_run(host: &Host, said: &Said, code: i32, why: &str) {
    said.refused(code, why);
    let calls = host.calls();
    assert!(!calls.lines().any(|call| call.starts_with("scalr-agent-setup ")), "{calls}");
    assert!(host.files().is_empty(), "{:?}", host.files());
}

#[test]
fn a_served_script_runs_only_the_program_that_its_server_had() {
    Host::each(Packages::Apt, |host| {
        let (sum, key) = (sha256(host, PROGRAM), sha256(host, "scalr-agent.asc"));
        let line = format!(
            "SERVER_URL=https://pools.test KEY_SHA256={key} \
             SETUP_SHA256='aarch64:{key} x86_64:{sum}'; main"
        );
        host.run(&line).went_well();
        host.run(&line.replace(&sum, &sum.to_uppercase())).went_well();
        fs::write(host.path("calls"), "").unwrap();
        replace(host);
        let said = host.run(&line);
        not_run(host, &said, 9, "is not the one that this script was served with");
        said.refused(9, "fetch the script again: https://pools.test/install.sh");
        let said = host.run(&format!("{line} --uninstall"));
        not_run(host, &said, 9, "is not the one that this script was served with");
    });
}

#[test]
fn a_known_key_has_to_have_signed_the_program() {
    let keys = Keys::new();
    Host::each(Packages::Apt, |host| {
        keys.publish(host);
        let good = fs::read_to_string(host.path("server/packages").join(PROGRAM)).unwrap();
        let file = sha256(host, "scalr-agent.asc");
        let spaced = format!("{} {}", &keys.own[..20].to_lowercase(), &keys.own[20..]);
        let fingerprints = [&keys.own, &spaced, &file];
        let install = |fingerprint: &str| {
            fs::write(host.path("calls"), "").unwrap();
            host.install(&format!("--key-fingerprint '{fingerprint}'"))
        };
        for fingerprint in fingerprints {
            install(fingerprint).went_well();
        }
        // Signed by somebody else, with the key of that one beside it or instead.
        replace(host);
        for fingerprint in fingerprints {
            not_run(host, &install(fingerprint), 9, "is not signed with the repository's key");
        }
        keys.sign(host, &[&keys.other]);
        for public in [keys.public(&[&keys.other]), keys.public(&[&keys.own, &keys.other])] {
            host.serve("scalr-agent.asc", &public);
            for fingerprint in fingerprints {
                not_run(host, &install(fingerprint), 9, "the repository's key is not the expected");
            }
        }
        // While one key takes the other's place, both sign.
        host.serve(PROGRAM, &good);
        keys.sign(host, &[&keys.own, &keys.other]);
        for fingerprint in [&keys.own, &keys.other, &sha256(host, "scalr-agent.asc")] {
            install(fingerprint).went_well();
        }
        host.without_tool("gpgv");
        not_run(host, &install(&keys.own), 6, "this host has no gpgv");
    });
}

#[test]
fn a_served_script_verifies_a_bundle_with_its_server_s_key() {
    let keys = Keys::new();
    Host::each(Packages::Apt, |host| {
        keys.publish(host);
        let sum = sha256(host, "scalr-agent.asc");
        fs::create_dir(host.path("bundle")).unwrap();
        std::os::unix::fs::symlink(host.path("server/packages"), host.path("bundle/repository"))
            .unwrap();
        let line = format!(
            "SERVER_URL=https://pools.test KEY_SHA256={sum} SETUP_SHA256=x86_64:0; main \
             --offline bundle"
        );
        host.run(&line).went_well();
        fs::write(host.path("calls"), "").unwrap();
        replace(host);
        keys.sign(host, &[&keys.other]);
        host.serve("scalr-agent.asc", &keys.public(&[&keys.other]));
        not_run(host, &host.run(&line), 9, "the repository's key is not the expected one");
    });
}

#[test]
fn plain_http_is_for_this_host_alone() {
    Host::each(Packages::Apt, |host| {
        for url in [
            "http://pools.test",
            "http://127.0.0.1.pools.test",
            "http://localhost.pools.test:8080",
            "http://localhost:80@pools.test",
            "http://[::1].pools.test",
        ] {
            let said = host.run(&format!("main --url '{url}'"));
            not_run(host, &said, 2, "is not encrypted");
            said.refused(2, "Give the server's https:// address");
        }
        for url in ["http://localhost", "http://127.0.0.1:8080/", "http://[::1]:80"] {
            host.run(&format!("main --dry-run --url '{url}'"))
                .refused(8, "cannot download http://");
        }
    });
}

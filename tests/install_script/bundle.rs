//! `--offline`: an installation from a folder.

use std::fs;

use crate::host::{Host, Packages};

/// An unpacked bundle in `bundle/`.
fn unpack(host: &Host) {
    let repository = host.path("bundle/repository");
    fs::create_dir_all(&repository).unwrap();
    for name in ["scalr-agent.asc", "scalr-agent-setup-x86_64", "scalr-agent-setup-x86_64.sha256"] {
        fs::copy(host.path("server/packages").join(name), repository.join(name)).unwrap();
    }
    host.tool("curl", "echo \"curl $*\" >>\"$host/calls\"; exit 7\n");
}

#[test]
fn a_bundle_needs_no_network_and_leaves_no_repository() {
    Host::each(Packages::Apt, |host| {
        unpack(host);
        host.install("--offline bundle").went_well();
        let calls = host.calls();
        assert!(!calls.contains("curl"), "{calls}");
        for call in calls.lines().filter(|call| call.starts_with("apt-get")) {
            assert!(call.contains("-o Dir::Etc::sourceparts=/dev/null "), "{call}");
            assert!(call.contains("/bundle.sources -o "), "{call}");
            assert!(call.contains("-o Dir::State::lists="), "{call}");
        }
        assert!(!host.path("root/agent.sources").exists() && !host.path("root/key.asc").exists());
    });
    Host::each(Packages::Dnf, |host| {
        unpack(host);
        host.install("--offline bundle").went_well();
        for call in host.calls().lines().filter(|call| call.starts_with("dnf")) {
            assert!(call.contains("--setopt=reposdir="), "{call}");
        }
        assert!(!host.path("root/agent.repo").exists());
        // rpm keeps the key, by which --uninstall finds it again.
        assert!(host.path("root/RPM-GPG-KEY").exists());
    });
}

#[test]
fn a_bundle_is_verified_like_a_server() {
    Host::each(Packages::Apt, |host| {
        unpack(host);
        let before = host.files();
        let wrong = "0".repeat(64);
        host.install(&format!("--offline bundle --key-fingerprint {wrong}"))
            .refused(9, "is not the expected one");
        host.run(&format!("KEY_SHA256={wrong}; main --offline bundle"))
            .refused(9, "is not the expected one");
        fs::write(host.path("bundle/repository/scalr-agent-setup-x86_64"), "").unwrap();
        host.install("--offline bundle").refused(9, "was damaged on its way");
        fs::remove_file(host.path("bundle/repository/scalr-agent-setup-x86_64")).unwrap();
        host.install("--offline bundle").refused(2, "is this bundle for another processor?");
        assert_eq!(host.files(), before);
    });
}

#[test]
fn a_failure_names_what_a_bundle_does_not_have() {
    for packages in [Packages::Apt, Packages::Dnf] {
        Host::each(packages, |host| {
            unpack(host);
            let before = host.files();
            let said = host.install_with("--offline bundle", &[("failing", "package")]);
            said.refused(6, "a bundle has the agent only");
            assert_eq!(host.files(), before);
            assert!(host.calls().matches("update").count() < 2, "{}", host.calls());
        });
    }
}

#[test]
fn a_bundle_can_stay_as_a_repository() {
    Host::each(Packages::Apt, |host| {
        unpack(host);
        host.run("main --offline bundle --repository-only").went_well();
        let source = fs::read_to_string(host.path("root/agent.sources")).unwrap();
        let folder = host.path("bundle").canonicalize().unwrap();
        let line = format!("\nURIs: file://{}/repository/apt\n", folder.display());
        assert!(source.contains(&line), "{source}");
    });
}

#[test]
fn a_folder_that_apt_could_not_name_is_refused() {
    Host::each(Packages::Apt, |host| {
        unpack(host);
        fs::rename(host.path("bundle"), host.path("my bundle")).unwrap();
        host.install("--offline 'my bundle'").refused(2, "to one of letters");
    });
}

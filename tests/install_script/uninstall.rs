//! `--uninstall`: nothing stays, whatever is still there.

use std::fs;

use crate::host::{Host, Packages};

const BOTH: [Packages; 2] = [Packages::Apt, Packages::Dnf];

#[test]
fn nothing_stays() {
    for packages in BOTH {
        Host::each(packages, |host| {
            let before = host.files();
            host.install("").went_well();
            host.run("main --uninstall --purge").went_well();
            assert!(host.calls().contains("scalr-agent-setup uninstall --purge\n"));
            assert_eq!(host.files(), before, "{}", host.calls());
            host.run("main --uninstall").went_well();
        });
    }
}

#[test]
fn a_dry_run_removes_nothing() {
    for packages in BOTH {
        Host::each(packages, |host| {
            host.install("").went_well();
            let before = host.files();
            let said = host.run_with("main --uninstall --dry-run", &[("user", "1000")], "");
            said.went_well();
            assert_eq!(host.files(), before);
            assert!(host.calls().contains("scalr-agent-setup uninstall --dry-run\n"));
            assert!(said.stdout.contains("Would run: rm -f "), "{said:?}");
        });
    }
}

#[test]
fn a_refusal_stops_it() {
    for packages in BOTH {
        Host::each(packages, |host| {
            host.install("").went_well();
            let before = host.files();
            let said = host.run_with(
                "main --uninstall",
                &[("failing", "uninstall"), ("exit_code", "3")],
                "",
            );
            said.refused(3, "nothing more has been removed");
            assert_eq!(host.files(), before);
        });
    }
}

#[test]
fn a_failure_does_not() {
    for packages in BOTH {
        Host::each(packages, |host| {
            let before = host.files();
            host.install("").went_well();
            let said = host.run_with("main --uninstall", &[("failing", "uninstall")], "");
            said.refused(1, "not everything could be removed");
            assert_eq!(host.files(), before);
        });
    }
}

#[test]
fn where_the_package_is_gone_the_setup_program_is_fetched_for_what_it_recorded() {
    Host::each(Packages::Apt, |host| {
        fs::write(host.path("root/setup.json"), "{}").unwrap();
        fs::write(host.path("root/key.asc"), key_text()).unwrap();
        host.run("main --uninstall --url https://pools.test").went_well();
        assert!(host.calls().contains("scalr-agent-setup uninstall\n"), "{}", host.calls());
        assert!(!host.path("root/key.asc").exists());

        // Without a server to fetch it from.
        fs::write(host.path("root/key.asc"), key_text()).unwrap();
        let said = host.run("main --uninstall");
        said.refused(1, "give --url https://SERVER");
        assert!(!host.path("root/key.asc").exists());
        let said = host.run_with(
            "main --uninstall --url https://pools.test",
            &[("failing", "download")],
            "",
        );
        said.refused(1, "cannot download");
    });
}

fn key_text() -> String {
    crate::host::key("packages")
}

#[test]
fn the_package_and_its_repository_can_stay() {
    Host::each(Packages::Apt, |host| {
        host.install("").went_well();
        let before = host.files();
        host.run("main --uninstall --keep-package --force").went_well();
        assert!(host.calls().contains("scalr-agent-setup uninstall --keep-package --force\n"));
        assert_eq!(host.files(), before);
    });
}

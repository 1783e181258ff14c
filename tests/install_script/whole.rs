//! The whole script: what it calls, leaves and undoes.

use crate::host::{Host, Packages, key};
use std::fs;

const BOTH: [Packages; 2] = [Packages::Apt, Packages::Dnf];

/// The calls that change something.
fn changing_calls(host: &Host) -> Vec<String> {
    let reads = ["curl ", "scalr-agent-setup --version", "scalr-agent-setup check"];
    let calls = host.calls();
    let calls = calls.lines().filter(|call| !reads.iter().any(|read| call.starts_with(read)));
    calls.map(str::to_owned).collect()
}

#[test]
fn it_checks_adds_the_repository_installs_and_hands_over() {
    Host::each(Packages::Apt, |host| {
        let said = host.install_with(
            "--concurrency 2 --agent-name='it is' --engine=bundled --ignore disk --verbose -- --new x",
            &[("SCALR_AGENT_TOKEN", "secret")],
        );
        said.went_well();
        assert!(said.stdout.contains("\ntoken secret\n"), "{said:?}");
        let calls = host.calls();
        assert!(!calls.contains("secret"), "{calls}");
        let check = "scalr-agent-setup check --before-install --url https://pools.test \
                     --concurrency 2 --ignore disk --engine bundled --verbose\n";
        assert!(calls.contains(check), "{calls}");
        let changing = changing_calls(host);
        assert_eq!(changing.len(), 3, "{changing:?}");
        assert!(changing[0].starts_with("apt-get update -q -o Dir::Etc::sourcelist="));
        assert!(changing[1].starts_with("apt-get install -y -q -o DPkg::Lock"), "{changing:?}");
        assert_eq!(
            changing[2],
            "scalr-agent-setup install --url https://pools.test --concurrency 2 \
             --agent-name it is --engine bundled --ignore disk --new x --verbose"
        );
        let files = host.files();
        assert_eq!(files[&host.path("root/key.asc")], key("packages"));
        let source = &files[&host.path("root/agent.sources")];
        assert!(source.contains("\nURIs: https://pools.test/packages/apt\n"), "{source}");
        assert!(source.contains("/root/key.asc\n"), "{source}");
        assert!(!files.keys().any(|file| file.starts_with(host.path("tmp"))), "{files:?}");
    });
}

#[test]
fn on_a_host_of_rpms_the_key_is_the_file_that_was_verified() {
    Host::each(Packages::Dnf, |host| {
        host.install("").went_well();
        let changing = changing_calls(host);
        assert!(changing[0].contains("--disablerepo=* --enablerepo=scalr-agent makecache"));
        assert!(changing[1].ends_with("install scalr-agent"), "{changing:?}");
        let repository = &host.files()[&host.path("root/agent.repo")];
        assert!(repository.contains("\nbaseurl=https://pools.test/packages/yum\n"), "{repository}");
        let key_file = host.path("root/RPM-GPG-KEY");
        assert!(repository.contains(&format!("\ngpgkey=file://{}\n", key_file.display())));
        assert_eq!(host.files()[&key_file], key("packages"));
    });
}

#[test]
fn a_second_run_writes_nothing() {
    for packages in BOTH {
        Host::each(packages, |host| {
            host.install("").went_well();
            let changed = |name: &str| fs::metadata(host.path(name)).unwrap().modified().unwrap();
            let definition =
                if packages == Packages::Apt { "root/agent.sources" } else { "root/agent.repo" };
            let before = (changed(definition), host.files());
            host.install("").went_well();
            assert_eq!((changed(definition), host.files()), before);
        });
    }
}

#[test]
fn the_repository_alone_needs_no_check() {
    Host::each(Packages::Apt, |host| {
        host.install("--repository-only").went_well();
        assert!(!host.calls().contains("scalr-agent-setup"), "{}", host.calls());
        assert_eq!(changing_calls(host).len(), 1);
        assert!(host.path("root/agent.sources").exists());
    });
}

#[test]
fn a_dry_run_names_everything_and_changes_nothing() {
    for packages in BOTH {
        Host::each(packages, |host| {
            let before = host.files();
            let said = host.install_with(
                "--dry-run --agent-name 'a b' --http-proxy http://u:pa55@proxy.test --fix",
                // Anybody may look.
                &[("user", "1000"), ("SCALR_AGENT_TOKEN", "secret")],
            );
            said.went_well();
            assert_eq!(host.files(), before);
            assert_eq!(changing_calls(host), [""; 0]);
            assert!(!host.calls().contains("--fix"), "{}", host.calls());
            for part in [
                "Would write ",
                "-----BEGIN PGP",
                if packages == Packages::Apt { "URIs: https" } else { "baseurl=https" },
                if packages == Packages::Apt { "apt-get install" } else { "dnf -y" },
                "Would run: scalr-agent-setup install --url https://pools.test \
                 --agent-name 'a b' --fix --http-proxy -\n",
            ] {
                assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
            }
            let all = said.stdout + &said.stderr + &host.calls();
            assert!(!all.contains("pa55") && !all.contains("secret"), "{all}");
        });
    }
}

#[test]
fn a_dry_run_on_a_host_that_is_not_ready_goes_on_and_says_so() {
    Host::each(Packages::Apt, |host| {
        let said = host.install_with("--dry-run", &[("failing", "check"), ("exit_code", "3")]);
        said.refused(3, "this host is not ready");
        assert!(said.stdout.contains("Would run: scalr-agent-setup install"), "{said:?}");
    });
}

#[test]
fn a_proxy_s_password_goes_on_by_standard_input() {
    Host::each(Packages::Apt, |host| {
        let said = host.install(
            "--http-proxy http://u:pa55@one.test --https-proxy http://u:pa55@two.test --no-proxy x.test",
        );
        said.went_well();
        let input = "\ninput http://u:pa55@one.test\ninput http://u:pa55@two.test\n";
        assert!(said.stdout.contains(input), "{said:?}");
        assert!(!host.calls().contains("pa55"), "{}", host.calls());
        let call = host.calls().lines().last().unwrap().to_owned();
        assert!(call.ends_with("--no-proxy x.test --http-proxy - --https-proxy -"), "{call}");
    });
}

#[test]
fn the_token_can_come_by_standard_input() {
    Host::each(Packages::Apt, |host| {
        let line = "main --url https://pools.test --token-file -";
        let said = host.run_with(line, &[], "the-token\n");
        said.went_well();
        assert!(said.stdout.contains("\ninput the-token\n"), "{said:?}");
    });
}

/// What fails, the exit code that it leads to, and what is said.
const FAILURES: [(&str, &str, i32, &str); 8] = [
    ("download", "", 8, "cannot download https://pools.test/packages/scalr-agent-setup-x86_64"),
    ("check", "3", 3, "this host is not ready; nothing has been installed"),
    ("check", "5", 5, "the checks could not be made"),
    ("update", "", 6, "the repository can't be used"),
    ("package", "", 6, "the package scalr-agent could not be installed"),
    ("install", "1", 1, "the agent could not be set up"),
    ("install", "2", 2, "the agent could not be set up"),
    ("install", "7", 7, "the agent could not be set up"),
];

#[test]
fn whatever_fails_the_host_is_as_before_and_a_second_run_succeeds() {
    for packages in BOTH {
        Host::each(packages, |host| {
            for (failing, code, wanted, why) in FAILURES {
                let before = host.files();
                let said = host.install_with("", &[("failing", failing), ("exit_code", code)]);
                said.refused(wanted, why);
                assert_eq!(host.files(), before, "{failing}: {said:?}");
            }
            host.install("").went_well();
        });
    }
}

#[test]
fn what_was_there_before_is_put_back() {
    for packages in BOTH {
        Host::each(packages, |host| {
            for name in ["key.asc", "agent.sources", "RPM-GPG-KEY", "agent.repo"] {
                fs::write(host.path("root").join(name), "another's\n").unwrap();
            }
            let before = host.files();
            host.install_with("", &[("failing", "install")]).refused(1, "could not be set up");
            assert_eq!(host.files(), before);
        });
    }
}

#[test]
fn another_key_than_the_expected_one_changes_nothing() {
    Host::each(Packages::Apt, |host| {
        host.serve("scalr-agent.asc", &key("others"));
        let pinned = crate::host::sha256(host, "scalr-agent.asc");
        host.serve("scalr-agent.asc", &key("packages"));
        let line = format!("SERVER_URL=https://pools.test KEY_SHA256={pinned}; main");
        host.run(&line).refused(9, "nothing has been changed");
        host.install_with("", &[("SCALR_AGENT_KEY_FINGERPRINT", &"0".repeat(40))])
            .refused(9, "nothing has been changed");
        assert_eq!(changing_calls(host), [""; 0]);
        assert!(host.files().is_empty());
    });
}

#[test]
fn a_package_that_was_there_is_left_by_a_failure() {
    for packages in BOTH {
        Host::each(packages, |host| {
            host.install("").went_well();
            let before = host.files();
            host.install_with("", &[("failing", "install")]).refused(1, "could not be set up");
            assert_eq!(host.files(), before);
        });
    }
}

#[test]
fn a_signal_undoes_it_too() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        Host::each(Packages::Apt, |host| {
            host.tool("apt-get", "kill -$signal $PPID\n");
            host.install_with("", &[("signal", signal)]).refused(code, "");
            assert!(host.files().is_empty(), "{:?}", host.files());
        });
    }
}

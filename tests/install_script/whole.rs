//! The whole script: what it hands over to the setup program, and what it leaves.

use std::fs::{self, File};
use std::io::pipe;
use std::process::Stdio;

use crate::host::{Host, Packages, sha256};
use crate::keys::Keys;

/// The calls of the setup program, without the one that shows that it runs.
fn calls(host: &Host) -> Vec<String> {
    let calls = host.calls();
    let of_setup = calls.lines().filter_map(|call| call.strip_prefix("scalr-agent-setup "));
    of_setup.filter(|call| *call != "--version").map(str::to_owned).collect()
}

/// Nothing of the script's own is left, and nothing else was written.
#[track_caller]
fn left_nothing(host: &Host) {
    assert!(host.files().is_empty(), "{:?}", host.files());
}

#[test]
fn it_fetches_the_setup_program_and_hands_over() {
    for packages in [Packages::Apt, Packages::Dnf] {
        Host::each(packages, |host| {
            let said = host.install_with(
                "--concurrency 2 --agent-name='it is' --engine=bundled --ignore disk --new x",
                &[("SCALR_AGENT_TOKEN", "secret")],
            );
            said.went_well();
            assert!(said.stdout.contains("\ntoken secret\n"), "{said:?}");
            assert!(!host.calls().contains("secret"), "{}", host.calls());
            assert_eq!(
                calls(host),
                ["install --upgrade --url https://pools.test --repository https://pools.test \
                  --concurrency 2 --agent-name=it is --engine=bundled --ignore disk --new x"]
            );
            left_nothing(host);
        });
    }
}

#[test]
fn nothing_stands_before_the_document_of_the_setup_program() {
    Host::each(Packages::Apt, |host| {
        assert!(host.install("").stdout.starts_with("==> Fetching"));
        for option in ["--format json", "--format=json --dry-run"] {
            let said = host.install(option);
            said.went_well();
            assert!(!said.stdout.contains("==>"), "{said:?}");
            assert!(said.stderr.contains("==> Fetching the setup program"), "{said:?}");
        }
    });
}

#[test]
fn a_proxy_s_password_goes_on_by_standard_input() {
    Host::each(Packages::Apt, |host| {
        let said = host.install(
            "--https-proxy http://u:pa55@two.test --http-proxy http://u:pa55@one.test --no-proxy x",
        );
        said.went_well();
        let input = "\ninput http://u:pa55@one.test\ninput http://u:pa55@two.test\n";
        assert!(said.stdout.contains(input), "{said:?}");
        assert!(!host.calls().contains("pa55"), "{}", host.calls());
        let call = &calls(host)[0];
        assert!(call.ends_with("--https-proxy - --http-proxy - --no-proxy x"), "{call}");
        left_nothing(host);
    });
}

#[test]
fn the_token_can_come_by_standard_input() {
    Host::each(Packages::Apt, |host| {
        let line = "main --url https://pools.test --token-file -";
        let said = host.run_with(line, &[], "the-token\n");
        said.went_well();
        assert!(said.stdout.contains("\ninput the-token\n"), "{said:?}");
        // Nothing else reads it: it may be the script.
        let said = host.run_with("main --url https://pools.test", &[], "the-script\n");
        assert!(!said.stdout.contains("the-script"), "{said:?}");
    });
}

#[test]
fn the_key_is_that_of_whoever_served_the_script_unless_another_is_named() {
    Host::each(Packages::Apt, |host| {
        let sum = "5".repeat(64);
        let program = sha256(host, "scalr-agent-setup-x86_64");
        let served = format!(
            "SERVER_URL=https://pools.test KEY_SHA256={sum} SETUP_SHA256=x86_64:{program}; main"
        );
        for (line, expected) in [
            (served.clone(), Some(sum.clone())),
            // Another server has another key.
            (format!("{served} --url https://other.test"), None),
        ] {
            fs::write(host.path("calls"), "").unwrap();
            host.tool("curl", &crate::host::fake("curl").replace("pools.test", "*.test"));
            host.run(&line).went_well();
            let call = calls(host).remove(0);
            let found = call.split_once("--key-fingerprint ").map(|(_, found)| found.to_owned());
            assert_eq!(found, expected, "{line}: {call}");
        }
    });
}

#[test]
fn a_dry_run_is_anybody_s() {
    Host::each(Packages::Apt, |host| {
        host.install_with("--dry-run", &[("user", "1000")]).went_well();
        assert!(calls(host)[0].ends_with(" --dry-run"), "{:?}", calls(host));
        left_nothing(host);
    });
}

#[test]
fn its_exit_code_is_the_setup_program_s() {
    Host::each(Packages::Apt, |host| {
        for code in ["1", "2", "3", "6", "7", "10"] {
            let said = host.install_with("", &[("failing", "install"), ("exit_code", code)]);
            assert_eq!(said.code.to_string(), code, "{said:?}");
        }
        host.install_with("", &[("failing", "download")])
            .refused(8, "cannot download https://pools.test/packages/scalr-agent-setup-x86_64");
        left_nothing(host);
    });
}

#[test]
fn a_damaged_setup_program_is_not_run() {
    Host::each(Packages::Apt, |host| {
        let wanted = sha256(host, "scalr-agent-setup-x86_64");
        host.serve("scalr-agent-setup-x86_64", "#!/bin/sh\n");
        let said = host.install("");
        said.refused(9, "was damaged on its way");
        said.refused(9, &wanted);
        assert_eq!(calls(host), [""; 0]);
        left_nothing(host);
    });
}

#[test]
fn a_login_page_in_the_place_of_the_program_is_named() {
    Host::each(Packages::Apt, |host| {
        let page = "<!doctype html>\n<title>Welcome to our network</title>\n";
        for name in ["scalr-agent-setup-x86_64", "scalr-agent-setup-x86_64.sha256"] {
            host.serve(name, page);
        }
        let said = host.install("");
        said.refused(
            8,
            "no checksum in https://pools.test/packages/scalr-agent-setup-x86_64.sha256",
        );
        assert!(!said.stderr.contains("doctype"), "{said:?}");
        assert_eq!(calls(host), [""; 0]);
        left_nothing(host);
    });
}

#[test]
fn what_a_killed_setup_program_has_left_is_undone() {
    Host::each(Packages::Apt, |host| {
        let line = "unfinished=$host/unfinished; main --url https://pools.test";
        let said = host.run_with(line, &[("killed", "install")], "");
        assert_eq!(said.code, 137, "{said:?}");
        assert_eq!(calls(host).last().unwrap(), "recover");
        assert!(!host.path("unfinished").exists());
        left_nothing(host);
    });
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("QUIT", 131), ("HUP", 129)] {
        Host::each(Packages::Apt, |host| {
            host.install_with("", &[("signal", signal)]).refused(code, "");
            left_nothing(host);
        });
    }
}

#[test]
fn it_leaves_nothing_when_nobody_reads_its_output_any_more() {
    let ended = || Stdio::from(pipe().unwrap().1);
    Host::each(Packages::Apt, |host| {
        let line = "unfinished=$host/unfinished; main --url https://pools.test";
        host.command(line).stdout(ended()).stderr(ended()).status().unwrap();
        left_nothing(host);

        // A killed setup program has left something, and the shell says so.
        let mut killed = host.command(line);
        killed.env("killed", "install").stdout(Stdio::null()).stderr(ended()).status().unwrap();
        assert_eq!(calls(host).last().unwrap(), "recover");
        assert!(!host.path("unfinished").exists());
        left_nothing(host);
    });
}

#[test]
fn an_output_that_is_closed_or_full_changes_nothing_about_how_it_ends() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    Host::each(Packages::Apt, |host| {
        for (line, code) in [
            ("main --url https://pools.test", 0),
            ("main --url https://pools.test >&-", 0),
            ("main --url https://pools.test >&- 2>&-", 0),
            ("warn no matter && main --url https://pools.test --format json", 0),
            ("main --no-such-option", 2),
        ] {
            fs::write(host.path("calls"), "").unwrap();
            let status = host.command(line).stdout(full()).stderr(full()).status().unwrap();
            assert_eq!(status.code(), Some(code), "{line}");
            let is_installed = calls(host).iter().any(|call| call.starts_with("install "));
            assert_eq!(is_installed, code == 0, "{line}: {:?}", calls(host));
            left_nothing(host);
        }
    });
}

#[test]
fn a_bundle_needs_no_network() {
    Host::each(Packages::Apt, |host| {
        let repository = host.path("my bundle/repository");
        fs::create_dir_all(&repository).unwrap();
        let program = "scalr-agent-setup-x86_64";
        let keys = Keys::new();
        keys.publish(host);
        for name in ["scalr-agent.asc", program, &format!("{program}.asc")] {
            fs::copy(host.path("server/packages").join(name), repository.join(name)).unwrap();
        }
        host.tool("curl", "echo \"curl $*\" >>\"$host/calls\"; exit 7\n");
        let line = "main --url https://pools.test --offline 'my bundle'";
        host.run(line).went_well();
        assert!(!host.calls().contains("curl"), "{}", host.calls());
        let repository = repository.canonicalize().unwrap();
        let call = calls(host).remove(0);
        let wanted = format!("--repository {} ", repository.display());
        assert!(format!("{call} ").contains(&wanted), "{call}");

        fs::write(repository.join(program), "").unwrap();
        host.run(line).refused(9, "is not signed with the repository's key");
        fs::remove_file(repository.join(program)).unwrap();
        host.run(line).refused(2, "is this bundle for another processor");
    });
}

#[test]
fn what_is_installed_removes_itself_and_what_is_gone_is_fetched() {
    Host::each(Packages::Apt, |host| {
        host.run("main --uninstall").refused(2, "give --url https://SERVER");
        host.run("main --uninstall --purge --url https://pools.test").went_well();
        assert!(host.calls().contains("curl "), "{}", host.calls());
        assert_eq!(calls(host), ["uninstall --purge"]);

        fs::write(host.path("calls"), "").unwrap();
        host.tool("scalr-agent-setup", &crate::host::fake("scalr-agent-setup"));
        host.run("main --uninstall --force").went_well();
        assert_eq!(host.calls(), "scalr-agent-setup uninstall --force\n");
        left_nothing(host);
    });
}

//! Other package managers' locks: who holds one is named, and waited for, but
//! not for ever.

use std::fs::{self, File};
use std::os::fd::AsFd as _;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::host::{Host, Packages};

/// Locks as dpkg and rpm do, for as long as the file is open.
fn lock(host: &Host) -> File {
    let file = File::create(host.path("root/lock")).unwrap();
    let all = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_SETLK(&all)).unwrap();
    file
}

fn this_process() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    format!("process {} ({})", std::process::id(), name.trim())
}

const WAIT: &str = "read_options; packages=apt; wait_for_lock";

#[test]
fn who_holds_a_lock_is_named_and_the_wait_ends() {
    Host::each(Packages::Apt, |host| {
        fs::write(host.path("root/lock"), "").unwrap();
        host.run(WAIT).went_well();
        let held = lock(host);
        let said = host.run_with(WAIT, &[("SCALR_AGENT_LOCK_WAIT", "7")], "");
        said.refused(10, &format!("{} has held", this_process()));
        assert!(said.stderr.contains("/root/lock for 8 s"), "{said:?}");
        assert_eq!(said.stdout.matches("Waiting for process").count(), 1, "{said:?}");
        assert!(said.stdout.contains("for at most 7 s"), "{said:?}");
        drop(held);
        host.run(WAIT).went_well();
    });
}

#[test]
fn a_lock_that_is_let_go_is_waited_for() {
    Host::each(Packages::Dnf, |host| {
        let pid = std::process::id().to_string();
        fs::write(host.path("root/pid"), &pid).unwrap();
        let said = host.run(
            "read_options; packages=yum\n\
             pause() { rm -f root/pid; }\n\
             wait_for_lock",
        );
        said.went_well();
        assert!(said.stdout.contains(&format!("Waiting for {}", this_process())), "{said:?}");
        // Left behind by a process that is no more, or empty.
        for text in ["4194305", "", "x"] {
            fs::write(host.path("root/pid"), text).unwrap();
            let said = host.run("read_options; packages=yum; wait_for_lock");
            assert!(said.code == 0 && said.stdout.is_empty(), "{said:?}");
        }
    });
}

const TOOL: &str = "read_options; work=tmp; package_tool tool";

#[test]
fn somebody_who_was_quicker_is_waited_for() {
    Host::each(Packages::Apt, |host| {
        host.tool(
            "tool",
            "echo tried >>\"$host/calls\"\n\
             [ \"$(grep -c tried \"$host/calls\")\" -lt 3 ] || exit 0\n\
             echo 'E: Konnte /var/lib/dpkg/lock-frontend nicht sperren' >&2\n\
             exit 100\n",
        );
        host.run(&format!("packages=apt; {TOOL}")).went_well();
        assert_eq!(host.calls(), "tried\n".repeat(3));

        host.tool("tool", "echo tried >>\"$host/calls\"; exit 200\n");
        let said =
            host.run_with(&format!("packages=dnf; {TOOL}"), &[("SCALR_AGENT_LOCK_WAIT", "3")], "");
        assert_eq!(said.code, 200);
        assert_eq!(host.calls(), "tried\n".repeat(6));
    });
}

#[test]
fn another_failure_is_not_tried_again() {
    Host::each(Packages::Apt, |host| {
        host.tool("tool", "echo tried >>\"$host/calls\"; echo 'E: no space left' >&2; exit 100\n");
        for packages in ["apt", "dnf"] {
            let said = host.run(&format!("packages={packages}; {TOOL}"));
            said.refused(100, "E: no space left");
        }
        assert_eq!(host.calls(), "tried\n".repeat(2));
    });
}

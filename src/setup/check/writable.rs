//! What packages write to: on a host whose system is an image, or is mounted read-only, none can
//! be installed.

use std::process::Command;

use anyhow::Result;

use super::{Outcome, Subject};
use crate::status::AGENT_PROGRAM;
use host::command::CommandExt as _;
use host::disk;
use host::machine::Machine;
use host::os::Family;

/// Where packages, their settings, and the records of what is installed go.
const FOLDERS: [&str; 3] = ["/usr", "/etc", "/var/lib"];

/// There where ostree booted the host: RHEL for Edge, Fedora IoT and CoreOS, and images of bootc.
const OSTREE: &str = "/run/ostree-booted";

pub(super) fn writable(subject: &Subject) -> Outcome {
    let machine = &subject.machine;
    if !machine.is_this_one() {
        return Outcome::tree();
    }
    let read_only = match read_only(machine) {
        Ok(folders) => folders,
        Err(error) => return Outcome::unknown(error),
    };
    let is_image = machine.path(OSTREE).exists();
    let is_installed = !subject.before_install && machine.path(AGENT_PROGRAM).exists();
    let is_debian = subject.os().is_ok_and(|os| os.family == Family::Debian);
    judge(&read_only, is_image, is_installed, || is_debian && apt_remounts())
}

fn read_only(machine: &Machine) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        if disk::is_read_only(&machine.path(folder))? {
            found.push(folder);
        }
    }
    Ok(found)
}

/// Whether apt has a hook that remounts `/usr` before dpkg writes there, as some hardened hosts have.
fn apt_remounts() -> bool {
    let hooks = Command::new("apt-config").args(["dump", "DPkg::Pre-Invoke"]).read();
    hooks.is_ok_and(|hooks| hooks.lines().any(remounts_usr))
}

fn remounts_usr(hook: &str) -> bool {
    let mut words = hook.split(|c: char| c.is_whitespace() || "\"';&|".contains(c));
    hook.contains("remount") && words.any(|word| ["/usr", "/usr/"].contains(&word))
}

fn judge(
    read_only: &[&str],
    is_image: bool,
    is_installed: bool,
    apt_remounts: impl FnOnce() -> bool,
) -> Outcome {
    let Some(first) = read_only.first() else {
        return Outcome::Passed(format!("{} can be written", FOLDERS.join(", ")));
    };
    if read_only == ["/usr"] && apt_remounts() {
        return Outcome::Passed("/usr is read-only, and apt remounts it to write there".into());
    }
    let folders = read_only.join(" and ");
    if is_installed {
        return Outcome::warning(format!(
            "{folders} can't be written (read-only), so the package can't be upgraded or removed"
        ));
    }
    if is_image {
        return Outcome::problem(format!(
            "this host's system is an image of ostree's, and {folders} can't be written; put the \
             package into the image, or run the agent's container image instead"
        ));
    }
    Outcome::problem(format!(
        "{folders} can't be written (read-only), so no package can be installed; if that is on \
         purpose, allow it meanwhile with `mount -o remount,rw {first}`, else `dmesg` may tell of \
         a disk with errors"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_usr_is_a_problem_before_the_installation_alone() {
        let judged = |read_only: &[&str], is_image, is_installed, remounts| {
            judge(read_only, is_image, is_installed, || remounts)
        };
        assert!(matches!(judged(&[], true, false, false), Outcome::Passed(_)));
        let Outcome::Problem(text, fix) = judged(&["/usr"], false, false, false) else { panic!() };
        assert!(text.contains("`mount -o remount,rw /usr`") && fix.is_empty(), "{text}");
        let Outcome::Problem(text, _) = judged(&["/usr"], true, false, false) else { panic!() };
        assert!(text.contains("ostree") && text.contains("container image"), "{text}");
        assert!(matches!(judged(&["/usr"], false, true, false), Outcome::Warning(..)));
        assert!(matches!(judged(&["/usr"], false, false, true), Outcome::Passed(_)));
        // apt's hook is for what dpkg unpacks, and we write settings ourselves.
        let both = judged(&["/usr", "/etc"], false, false, true);
        assert!(matches!(both, Outcome::Problem(..)), "{both:?}");
    }

    /// Lines of `apt-config dump`.
    #[test]
    fn a_hook_of_apt_has_to_remount_usr() {
        for (hook, does) in [
            (r#"DPkg::Pre-Invoke:: "mount -o remount,rw /usr";"#, true),
            (
                r#"DPkg::Pre-Invoke:: "mount -o remount,rw /usr && mount -o remount,exec /tmp";"#,
                true,
            ),
            (r#"DPkg::Pre-Invoke:: "mount -o remount,exec /tmp";"#, false),
            (r#"DPkg::Pre-Invoke:: "mount -o remount,rw /usr/local";"#, false),
            (r#"DPkg::Pre-Invoke:: "/usr/bin/logger installing";"#, false),
            (r#"DPkg::Pre-Invoke "";"#, false),
        ] {
            assert_eq!(remounts_usr(hook), does, "{hook}");
        }
    }
}

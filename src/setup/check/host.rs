//! The processor, the kernel, systemd and the temporary folder.

use std::env;
use std::path::Path;

use super::{Outcome, Subject};
use host::disk;
use host::kernel::Kernel;
use host::systemd as services;

/// The oldest systemd that the units are valid on: that of CentOS 7.
const OLDEST_SYSTEMD: u32 = 219;

/// The oldest Linux that container engines run on: that of CentOS 7.
const OLDEST_KERNEL: (u32, u32) = (3, 10);

pub(super) fn architecture(_: &Subject) -> Outcome {
    match env::consts::ARCH {
        known @ ("x86_64" | "aarch64") => Outcome::Passed(known.to_owned()),
        other => {
            Outcome::problem(format!("there are packages for x86_64 and aarch64, not {other}"))
        }
    }
}

pub(super) fn kernel(subject: &Subject) -> Outcome {
    match Kernel::of(&subject.machine) {
        Ok(Some(kernel)) => judge_kernel(&kernel),
        Ok(None) => Outcome::tree(),
        Err(error) => Outcome::unknown(error),
    }
}

pub(super) fn systemd(subject: &Subject) -> Outcome {
    let machine = &subject.machine;
    match services::version(machine) {
        None => Outcome::problem("there is no systemd, which runs the agent and its engine"),
        Some(version) if version < OLDEST_SYSTEMD => Outcome::problem(format!(
            "systemd {version} is too old; the units need {OLDEST_SYSTEMD} or newer"
        )),
        Some(_) if machine.is_this_one() && !machine.has_running_systemd() => Outcome::problem(
            "systemd is installed, but is not what started this host (a container?); \
             run the agent's container image instead",
        ),
        Some(version) => Outcome::Passed(format!("systemd {version}")),
    }
}

/// install.sh runs the setup program from there, and apt the questions of
/// packages before it unpacks them.
pub(super) fn temporary_folder(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let folder = env::temp_dir();
    let found =
        || -> anyhow::Result<_> { Ok((disk::is_noexec(&folder)?, disk::mount_point(&folder)?)) };
    match found() {
        Ok((noexec, mount)) => judge_temporary_folder(&folder, noexec, &mount),
        Err(error) => Outcome::unknown(error),
    }
}

fn judge_kernel(kernel: &Kernel) -> Outcome {
    let release = &kernel.release;
    if kernel.version() < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Outcome::problem(format!(
            "Linux {release} is too old; container engines need {major}.{minor} or newer"
        ));
    }
    let namespaces = if kernel.has_user_namespaces { "are on" } else { "are off, and not needed" };
    match kernel.has_overlay {
        Some(true) => Outcome::Passed(format!(
            "Linux {release}, which has overlay; user namespaces {namespaces}"
        )),
        Some(false) => Outcome::Problem(
            format!(
                "Linux {release} has no file system overlay, which images are kept in; install \
                 the kernel's modules and boot that kernel"
            ),
            Vec::new(),
        ),
        None => Outcome::Unknown(format!(
            "Linux {release} has not loaded the file system overlay, and its modules are not \
             here to look whether it could"
        )),
    }
}

fn judge_temporary_folder(folder: &Path, noexec: bool, mount: &Path) -> Outcome {
    let (folder, mount) = (folder.display(), mount.display());
    if noexec {
        return Outcome::Problem(
            format!(
                "programs may not be run from {folder}, so install.sh and some packages' scripts \
                 fail; for install.sh alone, TMPDIR may name another folder"
            ),
            vec![format!("mount -o remount,exec {mount}")],
        );
    }
    Outcome::Passed(format!("programs may be run from {folder}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use host::machine::Machine;

    fn looked(release: &str, filesystems: &str, modules: Option<&str>) -> Outcome {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let put = |path: &str, text: &str| {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("/proc/sys/kernel/osrelease", release);
        put("/proc/sys/user/max_user_namespaces", "0\n");
        put("/proc/filesystems", filesystems);
        if let Some(modules) = modules {
            put(&format!("/lib/modules/{}/modules.dep", release.trim()), modules);
        }
        kernel(&Subject::of(&machine).unwrap())
    }

    #[test]
    fn the_kernel_of_centos_7_will_do() {
        let overlay = "kernel/fs/overlayfs/overlay.ko.xz:\n";
        let found = looked("3.10.0-1160.el7.x86_64\n", "nodev\tproc\n\text4\n", Some(overlay));
        let Outcome::Passed(text) = found else { panic!("{found:?}") };
        assert!(text.contains("user namespaces are off"), "{text}");
        let loaded = looked("6.12.9\n", "nodev\toverlay\n", None);
        assert!(matches!(loaded, Outcome::Passed(_)), "{loaded:?}");
    }

    #[test]
    fn an_old_kernel_and_one_without_overlay_will_not() {
        let old = looked("2.6.32-754.el6.x86_64\n", "nodev\toverlay\n", None);
        assert!(matches!(&old, Outcome::Problem(text, _) if text.contains("too old")), "{old:?}");
        let none = looked("5.4.0\n", "\text4\n", Some("kernel/fs/xfs/xfs.ko:\n"));
        assert!(matches!(&none, Outcome::Problem(text, _) if text.contains("overlay")), "{none:?}");
        let unknown = looked("5.4.0\n", "\text4\n", None);
        assert!(matches!(unknown, Outcome::Unknown(_)), "{unknown:?}");
    }

    #[test]
    fn a_tree_has_no_kernel() {
        let tree = tempfile::tempdir().unwrap();
        let subject = Subject::of(&Machine::at(tree.path())).unwrap();
        assert_eq!(kernel(&subject), Outcome::tree());
    }

    #[test]
    fn a_temporary_folder_without_programs() {
        let found = judge_temporary_folder(Path::new("/tmp/mine"), true, Path::new("/tmp"));
        let Outcome::Problem(text, fix) = found else { panic!() };
        assert!(text.contains("/tmp/mine") && text.contains("TMPDIR"), "{text}");
        assert_eq!(fix, ["mount -o remount,exec /tmp"]);
    }
}

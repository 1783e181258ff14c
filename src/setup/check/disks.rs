//! The disks that images and runs are kept on.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Outcome, Subject};
use config::layout;
use host::disk as disks;

/// Below this the first images do not fit, in MB.
const LEAST_DISK: u64 = 3 * 1024;

/// With less than this, a few images and runs fill the disk, in MB.
const GOOD_DISK: u64 = 10 * 1024;

/// An image of a usual distribution with its tools has some ten thousand files.
const LEAST_INODES: u64 = 100_000;

pub(super) fn disk(subject: &Subject) -> Outcome {
    worst(subject, |folder, path| Ok(judge_free(disks::free(path)?, folder)))
}

pub(super) fn inodes(subject: &Subject) -> Outcome {
    worst(subject, |folder, path| Ok(judge_inodes(disks::inodes(path)?, folder)))
}

pub(super) fn file_types(subject: &Subject) -> Outcome {
    worst(subject, |folder, path| {
        Ok(judge_file_types(disks::tells_file_types(path)?, disks::is_xfs(path)?, folder))
    })
}

pub(super) fn noexec(subject: &Subject) -> Outcome {
    worst(subject, |folder, path| {
        Ok(judge_noexec(disks::is_noexec(path)?, folder, &disks::mount_point(path)?))
    })
}

/// Where runs and their images are kept; the host's own Docker may keep its
/// elsewhere, but that is where it does if nobody chose.
fn folders(subject: &Subject) -> [&'static str; 2] {
    let engine = if subject.is_bundled() { layout::ENGINE_DATA_DIR } else { "/var/lib/docker" };
    [engine, layout::DATA_DIR]
}

/// The worst that is found on the folders' disks; one that several are on is
/// looked at once.
fn worst(subject: &Subject, look: impl Fn(&str, &Path) -> Result<Outcome>) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut found: Vec<Outcome> = Vec::new();
    for folder in folders(subject) {
        let path = subject.machine.path(folder);
        match disks::mount_point(&path) {
            Ok(mount) if seen.contains(&mount) => continue,
            Ok(mount) => seen.push(mount),
            Err(error) => return Outcome::unknown(error),
        }
        found.push(look(folder, &path).unwrap_or_else(Outcome::unknown));
    }
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Problem(..) => 0,
        Outcome::Unknown(_) => 1,
        Outcome::Warning(..) => 2,
        Outcome::Passed(_) => 3,
        Outcome::Skipped(_) => 4,
    };
    found.into_iter().min_by_key(rank).unwrap_or_else(Outcome::tree)
}

fn judge_free(free: u64, folder: &str) -> Outcome {
    if free < LEAST_DISK {
        Outcome::problem(format!(
            "{free} MB are free for {folder}; images and runs need at least {LEAST_DISK} MB"
        ))
    } else if free < GOOD_DISK {
        Outcome::warning(format!(
            "{free} MB are free for {folder}; a few images fill that, {GOOD_DISK} MB are better"
        ))
    } else {
        Outcome::Passed(format!("{} GB are free for {folder}", free / 1024))
    }
}

fn judge_inodes(inodes: Option<(u64, u64)>, folder: &str) -> Outcome {
    match inodes {
        None => Outcome::Skipped(format!("the file system of {folder} has no limit of files")),
        Some((free, all)) if free < LEAST_INODES => Outcome::problem(format!(
            "{free} of {all} inodes are free for {folder}, so only so many files can be made \
             there, whatever room there is; images need {LEAST_INODES}: remove what is not \
             needed (`df -i {folder}` tells what is used), or use a bigger disk"
        )),
        Some((free, _)) => Outcome::Passed(format!("{free} inodes are free for {folder}")),
    }
}

fn judge_file_types(has_types: bool, is_xfs: bool, folder: &str) -> Outcome {
    match (has_types, is_xfs) {
        (true, true) => Outcome::Passed(format!("{folder} is on xfs with ftype=1")),
        (true, false) => Outcome::Passed(format!("the file system of {folder} reports file types")),
        (false, true) => Outcome::problem(format!(
            "{folder} is on an xfs with ftype=0, where overlay can't keep images, and that can't \
             be changed later: mount another disk on {folder} that was made with \
             `mkfs.xfs -n ftype=1`"
        )),
        (false, false) => Outcome::problem(format!(
            "the file system of {folder} does not report file types (d_type), so overlay can't \
             keep images there: mount another disk, of ext4 or xfs, on {folder}"
        )),
    }
}

fn judge_noexec(noexec: bool, folder: &str, mount: &Path) -> Outcome {
    if noexec {
        let mount = mount.display();
        return Outcome::Problem(
            format!(
                "{folder} is on {mount}, which is mounted noexec: no program of an image could be \
                 run; take noexec out of its line in /etc/fstab as well"
            ),
            vec![format!("mount -o remount,exec {mount}")],
        );
    }
    Outcome::Passed(format!("programs may be run from {folder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_images() {
        assert!(matches!(judge_free(2_000, "/x"), Outcome::Problem(..)));
        assert!(matches!(judge_free(5_000, "/x"), Outcome::Warning(..)));
        assert!(matches!(judge_free(50_000, "/x"), Outcome::Passed(_)));
    }

    #[test]
    fn room_for_files() {
        assert!(matches!(judge_inodes(Some((99_999, 1_000_000)), "/x"), Outcome::Problem(..)));
        assert!(matches!(judge_inodes(Some((100_000, 1_000_000)), "/x"), Outcome::Passed(_)));
        assert!(matches!(judge_inodes(None, "/x"), Outcome::Skipped(_)));
    }

    #[test]
    fn an_xfs_without_ftype_is_a_problem() {
        let found = judge_file_types(false, true, "/var/lib/scalr-docker");
        assert!(matches!(&found, Outcome::Problem(text, _) if text.contains("-n ftype=1")));
        assert!(matches!(judge_file_types(true, true, "/x"), Outcome::Passed(_)));
    }

    #[test]
    fn a_disk_without_programs() {
        let Outcome::Problem(_, fix) = judge_noexec(true, "/var/lib/x", Path::new("/var")) else {
            panic!()
        };
        assert_eq!(fix, ["mount -o remount,exec /var"]);
    }
}

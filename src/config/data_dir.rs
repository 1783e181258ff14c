//! Which folders the agent may have for its data: it empties some in there when it starts, and
//! a purge deletes them as root.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path};

use anyhow::{Context as _, Result};

use super::layout::data;
use cli::Failure;

/// Nothing of these is the agent's, however deep.
const SYSTEM_TREES: [&str; 13] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/scalr-docker",
];

/// Shared by many: a folder of the agent's own may be in there.
const SHARED: [&str; 15] = [
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/local",
    "/var/log",
    "/var/spool",
    "/var/tmp",
];

/// The root of a disk's file system has it.
const LOST_AND_FOUND: &str = "lost+found";

/// Whether a path can be that of a data folder, whatever is there.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(is_plain) {
        return Err(format!("should be an absolute path without `..`, not `{shown}`"));
    }
    // It has to stand in a unit's drop-in.
    let is_special = |c: char| c.is_control() || "\"\\%".contains(c);
    if path.to_str().is_none_or(|text| text.contains(is_special)) {
        return Err(format!("should have no quotes, `%` or `\\` in it, unlike `{shown}`"));
    }
    if SHARED.iter().any(|shared| path == Path::new(shared))
        || SYSTEM_TREES.iter().any(|tree| path.starts_with(tree))
    {
        return Err(format!(
            "{shown} is a folder of the system; name one of the agent's own, such as \
             /srv/scalr-agent"
        ));
    }
    Ok(())
}

/// Refuses a folder that is not the agent's alone; `folder` is where `path` is for us. One
/// that is missing or empty will do, and one that an agent has used before.
///
/// # Errors
/// There is something else, a symbolic link among them (2).
pub fn refuse_foreign(folder: &Path, path: &Path) -> Result<()> {
    let shown = path.display();
    let refuse = |why: String| {
        Err(Failure::Usage.because(format!(
            "cannot keep the agent's data in {shown}: {why}\n\
             Name a folder that is missing or empty, with `scalr-agent configure --data-dir`."
        )))
    };
    let metadata = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.with_context(|| format!("cannot look at {shown}"))?,
    };
    if metadata.is_symlink() {
        let target = fs::read_link(folder)?;
        return refuse(format!("it is a symbolic link to {}", target.display()));
    }
    if !metadata.is_dir() {
        return refuse("it is not a folder".to_owned());
    }
    if fs::symlink_metadata(folder.join(data::MACHINE_ID)).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))? {
        let name = entry?.file_name();
        if name != LOST_AND_FOUND {
            return refuse(format!("somebody else's {} is in there", name.to_string_lossy()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_of_the_system_is_refused() {
        for path in [
            "/",
            "/home",
            "/etc",
            "/etc/scalr-agent",
            "/usr/local/share/x",
            "/var/lib",
            "/run/x",
            "/var/lib/scalr-docker",
            "/var/lib/scalr-docker/x",
            "data",
            "./data",
            "/srv/../etc",
            "/srv/a\nb",
            "/srv/100%",
            "/srv/\"a\"",
        ] {
            assert!(check(Path::new(path)).is_err(), "{path}");
        }
        for path in ["/var/lib/scalr-agent", "/srv/agent", "/data", "/home/ci/agent", "/mnt/a b"] {
            assert_eq!(check(Path::new(path)), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_folder_with_somebody_elses_files_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("data");
        let said = || refuse_foreign(&folder, Path::new("/srv/data")).map_err(|e| e.to_string());
        assert_eq!(said(), Ok(()), "it is missing");
        fs::create_dir_all(folder.join(LOST_AND_FOUND)).unwrap();
        assert_eq!(said(), Ok(()), "a new disk");
        // What the agent would empty.
        fs::create_dir(folder.join(data::PROVIDERS)).unwrap();
        let error = said().unwrap_err();
        assert!(error.starts_with("cannot keep the agent's data in /srv/data: "), "{error}");
        assert!(error.contains("somebody else's providers"), "{error}");
        fs::write(folder.join(data::MACHINE_ID), "").unwrap();
        assert_eq!(said(), Ok(()), "an agent has used it");
    }

    #[test]
    fn a_link_and_a_file_are_no_data_folders() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        symlink("/srv/elsewhere", &link).unwrap();
        let error = refuse_foreign(&link, &link).unwrap_err();
        assert!(error.to_string().contains("a symbolic link to /srv/elsewhere"), "{error}");
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refuse_foreign(&file, &file).is_err());
    }
}

//! Files as they were at one time: shows what another program has changed since.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::FileChange;
use super::path_state::PathState;
use crate::machine::Machine;

/// Text files and links by their paths on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    files: BTreeMap<String, PathState>,
}

impl Snapshot {
    /// The files at these places, in folders all that are below them. What is no text or
    /// cannot be read is left out.
    pub fn of(machine: &Machine, places: &[&str]) -> Self {
        let mut files = BTreeMap::new();
        let mut open: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
        while let Some(path) = open.pop() {
            match PathState::at(&machine.entry(&path)) {
                Ok(PathState::Directory { .. }) => open.extend(below(machine, &path)),
                Ok(PathState::Absent) | Err(_) => {}
                Ok(state) => drop(files.insert(path.display().to_string(), state)),
            }
        }
        Self { files }
    }

    /// What differs in `later`, each with what was here.
    pub fn changes_until(&self, later: &Self) -> Vec<FileChange> {
        let of = |snapshot: &Self, path: &String| {
            snapshot.files.get(path).cloned().unwrap_or(PathState::Absent)
        };
        let gone = self.files.keys().filter(|path| !later.files.contains_key(*path));
        later
            .files
            .keys()
            .chain(gone)
            .map(|path| (path, of(self, path), of(later, path)))
            .filter(|(_, before, now)| before != now)
            .map(|(path, before, now)| FileChange { path: path.clone(), now: now.mark(), before })
            .collect()
    }
}

fn below(machine: &Machine, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path(folder)).into_iter().flatten().flatten();
    entries.map(|entry| folder.join(entry.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_changed_and_removed_is_found() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let put = |path: &str, text: &str| {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("/etc/yum.conf", "one");
        put("/etc/yum/pluginconf.d/a.conf", "one");
        put("/etc/yum/gone", "one");
        put("/etc/other", "one");
        let places = ["/etc/yum.conf", "/etc/yum", "/etc/missing"];
        let before = Snapshot::of(&machine, &places);
        assert!(before.changes_until(&Snapshot::of(&machine, &places)).is_empty());
        put("/etc/yum/pluginconf.d/a.conf", "two");
        put("/etc/yum/new", "one");
        put("/etc/other", "two");
        fs::remove_file(machine.path("/etc/yum/gone")).unwrap();
        let changes = before.changes_until(&Snapshot::of(&machine, &places));
        let paths: Vec<&str> = changes.iter().map(FileChange::path).collect();
        assert_eq!(paths, ["/etc/yum/new", "/etc/yum/pluginconf.d/a.conf", "/etc/yum/gone"]);
    }
}

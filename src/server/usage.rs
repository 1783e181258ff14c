//! How much each workspace stores: states, configurations, and what runs left. It is measured
//! on the disk when it is asked for, and known until something is written or deleted.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::ops::AddAssign;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the server knows of the workspaces' sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage(Arc<Mutex<HashMap<String, Known>>>);

/// What a workspace stores, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// The content of state versions.
    pub states: u64,
    /// The archives of configurations.
    pub configurations: u64,
    /// Logs, saved plans, lock files and plan files.
    pub runs: u64,
}

/// How much may be stored, in bytes; none: as much as the disk has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quotas {
    pub workspace: Option<u64>,
    pub account: Option<u64>,
}

#[derive(Debug)]
enum Known {
    /// It is being measured, and has not changed since that began.
    BeingMeasured,
    Sizes(Sizes),
}

impl Usage {
    /// Something of the workspace was written or deleted.
    pub(crate) fn changed(&self, workspace_id: &str) {
        self.known().remove(workspace_id);
    }

    /// What a workspace stores below these folders.
    ///
    /// # Errors
    /// They can't be read.
    pub(crate) fn of(&self, workspace_id: &str, objects: &Path, logs: &Path) -> io::Result<Sizes> {
        if let Some(Known::Sizes(sizes)) = self.known().get(workspace_id) {
            return Ok(*sizes);
        }
        self.known().insert(workspace_id.to_owned(), Known::BeingMeasured);
        let sizes = measure(&objects.join(workspace_id), &logs.join(workspace_id))?;
        if let Some(known) = self.known().get_mut(workspace_id) {
            *known = Known::Sizes(sizes);
        }
        Ok(sizes)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().expect("nothing panics while it holds the sizes")
    }
}

impl Sizes {
    /// All together.
    pub(crate) fn total(self) -> u64 {
        self.states + self.configurations + self.runs
    }
}

impl AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.configurations += other.configurations;
        self.runs += other.runs;
    }
}

fn measure(objects: &Path, logs: &Path) -> io::Result<Sizes> {
    let folder = |name: &str| size(&objects.join(name));
    Ok(Sizes {
        states: folder("states")?,
        configurations: folder("configurations")?,
        runs: folder("plans")?
            + folder("lock-files")?
            + folder("plan-files")?
            + folder("plan-json")?
            + size(logs)?,
    })
}

/// The size of the files in a folder; 0 if there is none.
fn size(folder: &Path) -> io::Result<u64> {
    let is_gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if is_gone(&error) => return Ok(0),
        entries => entries?,
    };
    let mut size = 0;
    for entry in entries {
        match entry?.metadata() {
            // Deleted in the meantime.
            Err(error) if is_gone(&error) => {}
            metadata => size += metadata?.len(),
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_workspace_is_measured_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (objects, logs) = (folder.path().join("objects"), folder.path().join("logs"));
        let usage = Usage::default();
        let of = || usage.of("ws-1", &objects, &logs).unwrap();
        assert_eq!(of(), Sizes::default());
        let write = |file: &str, content: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("objects/ws-1/states/sv-1.json", "1");
        write("objects/ws-1/configurations/cv-1.tar.gz", "12");
        for file in ["plans/task-1.1", "lock-files/task-1.1", "plan-files/task-1.1.tar.gz"] {
            write(&format!("objects/ws-1/{file}"), "123");
        }
        write("logs/ws-1/task-1.1.log", "1234");
        write("objects/ws-2/states/sv-2.json", "another's");
        assert_eq!(of(), Sizes::default(), "nobody said that it has changed");
        usage.changed("ws-1");
        assert_eq!(of(), Sizes { states: 1, configurations: 2, runs: 13 });
        assert_eq!(of().total(), 16);
    }
}

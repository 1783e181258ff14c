//! By what the server tells this machine from others whose agents have the same name, and
//! the agent whether its journal is of this boot.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tracing::warn;

use cli::untrusted_file;
use cli::whole_file::WholeFile;
use config::data_dir::refuse_foreign;
use config::layout::data;
use host::file_lock::FileLock;
use protocol::Identity;

/// A new random UUID each time it is read; the other one is the same until the next boot.
const RANDOM_ID: &str = "/proc/sys/kernel/random/uuid";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Takes a data folder into use, and gives this machine's identity: the machine id in the
/// folder shows from now on that it is an agent's. The folder is this agent's until the lock is
/// dropped, which a crash does as well: two agents with one journal would end each other's tasks.
///
/// # Errors
/// It is not the agent's alone (2), another agent uses it, or it can't be made.
pub(crate) fn claim(data_dir: &Path) -> Result<(Identity, Option<FileLock>)> {
    // The package makes the default one, for the setup program's records as well.
    if data_dir != Path::new(config::DATA_DIR) {
        refuse_foreign(data_dir, data_dir)?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make {}", data_dir.display()))?;
    let identity = of(data_dir)?;
    let path = data_dir.join(data::MACHINE_ID);
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock = match FileLock::take(file) {
        Ok(lock) => Some(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "cannot use the data folder {}: another agent uses it\n\
             Stop that agent, or give this one a folder of its own: two containers need two \
             volumes.",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            warn!("cannot lock {}, so no second agent may use its folder: {error}", path.display());
            None
        }
    };
    Ok((identity, lock))
}

/// The identity that is kept in the data folder, made if there is none, and of this boot: a
/// cloned machine has a copy of the first. A copy of the folder on the same machine is another
/// file on the disk, as when a container's volume is copied.
///
/// # Errors
/// It can't be read or made.
fn of(data_dir: &Path) -> Result<Identity> {
    let file = data_dir.join(data::MACHINE_ID);
    let machine_id = match untrusted_file::read_text(&file) {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", file.display()));
        }
        _ => make(&file)?,
    };
    let place = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Identity { machine_id, boot_id: format!("{}-{}", read(BOOT_ID)?, place.ino()) })
}

fn make(file: &Path) -> Result<String> {
    let id = read(RANDOM_ID)?;
    WholeFile::at(file).write(format!("{id}\n"))?;
    Ok(id)
}

fn read(file: &str) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_folder_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("providers/theirs");
        fs::create_dir_all(&theirs).unwrap();
        let error = claim(folder.path()).unwrap_err();
        assert!(error.to_string().contains("somebody else's providers"), "{error}");
        assert!(theirs.exists() && !folder.path().join("machine-id").exists());
        let own = folder.path().join("own");
        claim(&own).unwrap();
        fs::create_dir(own.join("providers")).unwrap();
        claim(&own).unwrap();
    }

    #[test]
    fn a_data_folder_has_one_agent_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path()).unwrap();
        let error = claim(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another agent uses it"), "{error}");
        let identity = first.0.clone();
        drop(first);
        assert_eq!(claim(folder.path()).unwrap().0, identity);
    }

    #[test]
    fn a_machine_keeps_its_identity_and_another_folder_has_another_one() {
        let data = tempfile::tempdir().unwrap();
        let first = of(data.path()).unwrap();
        assert_eq!(first.machine_id.len(), 36);
        assert_eq!(of(data.path()).unwrap(), first);
        let other = of(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(other.machine_id, first.machine_id);
        let copied = tempfile::tempdir().unwrap();
        fs::copy(data.path().join(data::MACHINE_ID), copied.path().join(data::MACHINE_ID)).unwrap();
        let copied = of(copied.path()).unwrap();
        assert_eq!(copied.machine_id, first.machine_id);
        assert_ne!(copied.boot_id, first.boot_id);
        // Cut off by a crash.
        fs::write(data.path().join(data::MACHINE_ID), "").unwrap();
        assert_ne!(of(data.path()).unwrap().machine_id, first.machine_id);
    }
}

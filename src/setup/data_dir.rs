//! The agent's data folder, where a setting names another than the package's.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::created::{self, OPEN, Opened};
use cli::Failure;
use config::data_dir::refuse_foreign;
use config::{Settings, layout};
use host::changes::Changes;
use host::disk;
use host::machine::Machine;
use host::users;

/// The service has other folders in these places (`PrivateTmp=`).
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];

/// The folder that is not the package's own.
pub(crate) fn custom(settings: &Settings) -> Option<&Path> {
    settings.data_dir.as_deref().filter(|folder| *folder != Path::new(layout::DATA_DIR))
}

/// Refuses a folder that the agent's service cannot have.
///
/// # Errors
/// It is not the agent's alone, is somebody else's, or lacks the folder above it.
pub(crate) fn refuse_unusable(machine: &Machine, folder: &Path) -> Result<()> {
    let shown = folder.display();
    let refuse = |why: String| {
        Err(Failure::Usage.because(format!("cannot keep the agent's data in {shown}: {why}")))
    };
    if let Some(place) = PRIVATE.iter().find(|place| folder.starts_with(place)) {
        return refuse(format!("the service has a {place} of its own, which goes when it ends"));
    }
    let path = machine.entry(folder);
    refuse_foreign(&path, folder)?;
    match fs::metadata(&path) {
        _ if disk::is_read_only(&path)? => refuse("its disk is mounted read-only".to_owned()),
        Err(_) if !path.parent().is_some_and(Path::is_dir) => {
            refuse("the folder above it is missing; make that first".to_owned())
        }
        Ok(found) if !is_roots(&found) && !is_agents(machine, &found)? => {
            refuse(format!("it belongs to the user {}; give it to root", found.uid()))
        }
        _ => Ok(()),
    }
}

/// Makes the folder, and lets the agent in: like the package's own it is root's, and the
/// agent's group may write to it.
///
/// # Errors
/// It is unusable, or can't be made.
pub(crate) fn put(changes: &mut Changes, settings: &Settings) -> Result<()> {
    let Some(folder) = custom(settings) else { return Ok(()) };
    let machine = changes.machine().clone();
    refuse_unusable(&machine, folder)?;
    let path = machine.entry(folder);
    let command = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument).arg(&path);
        command
    };
    created::record_data_folder(changes, folder, !path.exists())?;
    if !path.exists() {
        changes.make_directory(folder)?;
    }
    let Some(group) = users::group_id(&machine, layout::AGENT)? else { return Ok(()) };
    let Ok(found) = fs::metadata(&path) else { return Ok(()) };
    let is_open = found.gid() == group && found.mode() & 0o070 == 0o070;
    if !users::are_root() || !is_roots(&found) || is_open {
        return Ok(());
    }
    let mode = found.mode() & 0o7777;
    let opened = Opened { folder: folder.to_owned(), group: found.gid(), mode };
    created::record_opened(changes, &opened)?;
    changes.run(
        format!("give {} to the agent's group", folder.display()),
        command("chgrp", &group.to_string()),
        Some(command("chgrp", &found.gid().to_string())),
    )?;
    changes.run(
        format!("let the agent's group write to {}", folder.display()),
        command("chmod", &format!("{OPEN:o}")),
        Some(command("chmod", &format!("{mode:o}"))),
    )
}

fn is_roots(found: &Metadata) -> bool {
    found.uid() == 0 || !users::are_root()
}

fn is_agents(machine: &Machine, found: &Metadata) -> Result<bool> {
    let id = users::user_id(machine, layout::AGENT).context("cannot look up the agent's user")?;
    Ok(id == Some(found.uid()))
}

//! Makes the container of a run as its image and the settings want it.

use std::path::Path;

use anyhow::Result;
use tracing::warn;

use super::input_archive::Archive;
use super::paths;
use crate::context::Context;
use crate::engine::ContainerSpec;

/// Makes containers.
pub(super) struct ContainerMaker<'a> {
    pub(super) context: &'a Context,
    /// A folder for archives on their way into a container.
    pub(super) scratch: &'a Path,
}

impl ContainerMaker<'_> {
    /// Makes the container, read-only but for its folders where that is wanted and
    /// can be.
    pub(super) async fn create(&self, spec: ContainerSpec) -> Result<String> {
        let (engine, user) = (&self.context.engine, self.context.user);
        // Root is asked for by those who install packages before a plan.
        if !self.context.config.writable_root.unwrap_or(user.uid == 0) {
            let mut read_only = ContainerSpec { read_only: true, ..spec.clone() };
            read_only.folders.push(paths::TMP.to_owned());
            if user.uid != 0 {
                // Nothing else can be put into a container whose files are read-only.
                // It is root's as in the image, so the run can't write there.
                read_only.folders.push(paths::ETC.to_owned());
            }
            let id = engine.create(read_only).await?;
            if user.uid == 0 || self.seen_image(&id).await?.has_open_tmp {
                return Ok(id);
            }
            // The volume is as the image's folder is, or root's alone if there is
            // none, and the engine changes neither.
            let image = &spec.image;
            warn!(image, "the image has no /tmp for everybody, so its files are not read-only");
            engine.remove(&id).await?;
        }
        let id = engine.create(spec).await?;
        // Programs expect it, and small images lack it.
        if !self.seen_image(&id).await?.has_open_tmp {
            let mut archive = Archive::new(self.scratch, "/", user)?;
            archive.directory(paths::TMP, 0o1777)?;
            engine.upload(&id, "/", archive.finish()?).await?;
        }
        Ok(id)
    }
}

//! Volumes that are filled once and only read from then on.

use std::collections::{BTreeSet, HashMap};
use std::io;

use anyhow::{Context as _, Result, bail};
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{Engine, is_missing, status};

/// An image with nothing in it. A volume is filled through a container of it, so
/// that no image of a run has a part in what other runs execute.
pub(super) const EMPTY_IMAGE: &str = "scalr-empty:1";

/// An archive with nothing in it, as `tar(5)` has it: two blocks of zeros.
const EMPTY_ARCHIVE: &[u8] = &[0; 1024];

/// Where a volume is in the container that it is filled through.
const FILLED_AT: &str = "/volume";

/// A volume as a container sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadOnlyVolume {
    /// Its name.
    pub name: String,
    /// Where it is in the container.
    pub target: String,
}

impl ReadOnlyVolume {
    pub(super) fn mount(self) -> Mount {
        Mount { read_only: Some(true), ..mount(self.name, self.target) }
    }
}

impl Engine {
    /// Makes the volume `name` with what is in `archive`, a tar. One of that name
    /// that is there already is replaced.
    ///
    /// # Errors
    /// A container uses the volume of that name, the archive ends too early, or
    /// the engine's disk is full.
    pub(crate) async fn fill_volume(
        &self,
        name: &str,
        labels: &HashMap<String, String>,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        if !self.remove_volume(name).await? {
            bail!("volume {name} is in use");
        }
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        let cannot = || format!("cannot make volume {name}");
        self.docker.create_volume(request).await.with_context(cannot)?;
        self.ensure_empty_image().await?;
        let body = ContainerCreateBody {
            image: Some(EMPTY_IMAGE.to_owned()),
            // Never started, so it need not be there.
            entrypoint: Some(vec!["/none".to_owned()]),
            labels: Some(labels.clone()),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount(name.to_owned(), FILLED_AT.to_owned())]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let container = self
            .docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .with_context(cannot)?
            .id;
        let options = UploadToContainerOptionsBuilder::default().path(FILLED_AT).build();
        let filled = self
            .docker
            .upload_to_container(&container, Some(options), bollard::body_try_stream(archive))
            .await
            .with_context(|| format!("cannot fill volume {name}"));
        self.remove(&container).await?;
        if filled.is_err() {
            self.remove_volume(name).await?;
        }
        filled
    }

    /// Removes a volume; false when a container uses it.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn remove_volume(&self, name: &str) -> Result<bool> {
        match self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove volume {name}")),
        }
    }

    /// The names of all volumes that have the label `key=value`.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn volumes(&self, key: &str, value: &str) -> Result<BTreeSet<String>> {
        let filters = HashMap::from([("label", vec![format!("{key}={value}")])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let answer =
            self.docker.list_volumes(Some(options)).await.context("cannot list volumes")?;
        Ok(answer.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }

    pub(super) async fn ensure_empty_image(&self) -> Result<()> {
        if self.image_id(EMPTY_IMAGE).await?.is_some() {
            return Ok(());
        }
        let (repository, tag) = EMPTY_IMAGE.split_once(':').context("the name has a tag")?;
        let options =
            CreateImageOptionsBuilder::default().from_src("-").repo(repository).tag(tag).build();
        let archive = bollard::body_full(Bytes::from_static(EMPTY_ARCHIVE));
        let mut news = std::pin::pin!(self.docker.create_image(Some(options), Some(archive), None));
        while let Some(news) = news.next().await {
            news.with_context(|| format!("cannot make image {EMPTY_IMAGE}"))?;
        }
        Ok(())
    }
}

fn mount(source: String, target: String) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(source),
        target: Some(target),
        // An empty volume would get what the image has there.
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

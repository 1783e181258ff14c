//! How much a container has on the engine's disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bollard::query_parameters::InspectContainerOptionsBuilder;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Engine, TIMEOUT_SECONDS};

/// The newest API whose answer is [`Answer`] is 1.51; 1.44 is the oldest that Docker 29
/// has. From 1.42 on the engine can be asked for volumes alone.
const NEWEST_API: usize = 44;

/// The sizes of all volumes in bytes, by their names, and when that was.
pub(super) type Sizes = Mutex<Option<(Instant, Arc<HashMap<String, u64>>)>>;

/// Of the answer to `GET /system/df`, which bollard reads only in its newest form.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    usage_data: Option<Usage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    /// In bytes; -1: unknown.
    size: i64,
}

impl Engine {
    /// How much a container has in its volumes and in its copy of its image's files, in
    /// bytes. A sparse file counts with its whole length. The sizes of volumes may be as old
    /// as `max_age`: the engine reads all its volumes for them.
    ///
    /// # Errors
    /// The engine doesn't answer, or reads its volumes for somebody else.
    pub(crate) async fn disk_used(&self, id: &str, max_age: Duration) -> Result<u64> {
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let container = self.docker.inspect_container(id, Some(options)).await;
        let container = container.context("cannot look at the container's files")?;
        let sizes = self.volume_sizes(max_age).await?;
        let mounts = container.mounts.unwrap_or_default().into_iter();
        let volumes = mounts.filter(|mount| mount.rw == Some(true)).filter_map(|mount| mount.name);
        let in_volumes: u64 = volumes.filter_map(|name| sizes.get(&name)).sum();
        Ok(in_volumes + u64::try_from(container.size_rw.unwrap_or(0)).unwrap_or(0))
    }

    async fn volume_sizes(&self, max_age: Duration) -> Result<Arc<HashMap<String, u64>>> {
        let mut known = self.sizes.lock().await;
        if let Some((at, sizes)) = &*known
            && at.elapsed() < max_age
        {
            return Ok(Arc::clone(sizes));
        }
        let api = self.docker.client_version().minor_version.min(NEWEST_API);
        let cannot = "cannot get the sizes of the engine's volumes";
        let request = self.http.get(format!("http://engine/v1.{api}/system/df?type=volume"));
        let request = request.timeout(Duration::from_secs(TIMEOUT_SECONDS));
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let answer: Answer = answer.context(cannot)?.json().await.context(cannot)?;
        let size =
            |volume: Volume| Some((volume.name, u64::try_from(volume.usage_data?.size).ok()?));
        let sizes = answer.volumes.unwrap_or_default().into_iter().filter_map(size);
        let sizes = Arc::new(sizes.collect());
        *known = Some((Instant::now(), Arc::clone(&sizes)));
        Ok(sizes)
    }
}

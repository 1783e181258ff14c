//! Images, and the room that they take.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt as _;

use super::{Engine, is_missing, status};

impl Engine {
    /// The id of `image`; none when it is not on the engine.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn image_id(&self, image: &str) -> Result<Option<String>> {
        match self.docker.inspect_image(image).await {
            Ok(image) => Ok(image.id),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at image {image}")),
        }
    }

    /// Pulls `image` from its registry; `progress` gets the bytes that
    /// are there, and the bytes of all layers known so far.
    ///
    /// # Errors
    /// The registry can't be reached, doesn't have it, or wants a password.
    pub(crate) async fn pull(
        &self,
        image: &str,
        credentials: Option<DockerCredentials>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        // Without a tag the engine would pull all there are.
        let name = image.rsplit('/').next().unwrap_or(image);
        let image =
            if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
        let options = CreateImageOptionsBuilder::default().from_image(&image).build();
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        let mut news = std::pin::pin!(self.docker.create_image(Some(options), None, credentials));
        while let Some(news) = news.next().await {
            let news = news.with_context(|| format!("cannot pull image {image}"))?;
            let detail =
                news.progress_detail.and_then(|detail| Some((detail.current?, detail.total?)));
            // The same numbers tell of the unpacking afterwards.
            let is_download = news.status.as_deref() == Some("Downloading");
            if let (true, Some(layer), Some((current, total))) = (is_download, news.id, detail) {
                let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
                layers.insert(layer, (bytes(current), bytes(total)));
                progress(layers.values().map(|l| l.0).sum(), layers.values().map(|l| l.1).sum());
            }
        }
        Ok(())
    }

    /// Takes a name from an image, which goes with its last name; false when a
    /// container uses it.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn remove_image(&self, image: &str) -> Result<bool> {
        let options = RemoveImageOptionsBuilder::default().build();
        match self.docker.remove_image(image, Some(options), None).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove image {image}")),
        }
    }
}

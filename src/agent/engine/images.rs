//! Images, and the room that they take.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Engine, is_missing, status};
use protocol::RanImage;

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

    /// The id of a container's image, if the engine tells it.
    ///
    /// # Errors
    /// The container is gone, or the engine doesn't answer.
    pub(crate) async fn image_id_of(&self, container: &str) -> Result<Option<String>> {
        let container = self.docker.inspect_container(container, None).await;
        Ok(container.context("cannot look at the container's image")?.image)
    }

    /// The image of a container.
    ///
    /// # Errors
    /// The container is gone, or the engine doesn't answer.
    pub(crate) async fn image_of(&self, container: &str) -> Result<RanImage> {
        let cannot = "cannot look at the container's image";
        let container = self.docker.inspect_container(container, None).await.context(cannot)?;
        let name = container.config.and_then(|config| config.image).context(cannot)?;
        let id = container.image.context(cannot)?;
        let image = match self.docker.inspect_image(&id).await {
            Ok(image) => image,
            // A container keeps an image from going, but not one that is removed by force.
            Err(error) if is_missing(&error) => ImageInspect::default(),
            Err(error) => return Err(error).context(cannot),
        };
        let content = content_of(&image);
        let digests = image.repo_digests.unwrap_or_default();
        Ok(RanImage { digest: digest_of(&name, &digests), name, id, content })
    }

    /// The id of `image` if it is there and has this content, as [`RanImage::content`].
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn id_with_content(
        &self,
        image: &str,
        content: &str,
    ) -> Result<Option<String>> {
        match self.docker.inspect_image(image).await {
            Ok(image) if content_of(&image).as_deref() == Some(content) => Ok(image.id),
            Ok(_) => Ok(None),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at image {image}")),
        }
    }

    /// Asks the registry of `image` for it, by the engine, and pulls nothing.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub(crate) async fn look_up(
        &self,
        image: &str,
        credentials: Option<DockerCredentials>,
    ) -> Result<()> {
        let found = self.docker.inspect_registry_image(image, credentials).await;
        found.map(drop).with_context(|| format!("cannot look up image {image}"))
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

/// What [`RanImage::content`] says.
fn content_of(image: &ImageInspect) -> Option<String> {
    let layers = image.root_fs.as_ref()?.layers.as_ref()?;
    let config = image.config.clone().unwrap_or_default();
    let parts = json!([
        image.os,
        image.architecture,
        layers,
        config.env,
        config.entrypoint,
        config.cmd,
        config.working_dir,
        config.user,
    ]);
    Some(hex::encode(Sha256::digest(parts.to_string())))
}

/// The digest that an image has in the registry that its name is of; an image may have been
/// pulled from several.
fn digest_of(name: &str, digests: &[String]) -> Option<String> {
    let repository = repository_of(name);
    let of_name = digests.iter().find(|digest| repository_of(digest) == repository);
    of_name.or(digests.first()).cloned()
}

/// A name without its tag and digest, as engines shorten those of Docker Hub.
fn repository_of(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name[last..].find(':').map_or(name, |colon| &name[..last + colon]);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_the_images_own_registry() {
        let digests = |digests: &[&str]| -> Vec<String> {
            digests.iter().map(|digest| (*digest).to_owned()).collect()
        };
        let all = digests(&["mirror.test:5000/terraform@sha256:1", "terraform@sha256:2"]);
        for (name, digest) in [
            ("terraform", "terraform@sha256:2"),
            ("terraform:1.11", "terraform@sha256:2"),
            ("docker.io/library/terraform:1.11", "terraform@sha256:2"),
            ("terraform@sha256:2", "terraform@sha256:2"),
            ("mirror.test:5000/terraform", "mirror.test:5000/terraform@sha256:1"),
            ("mirror.test:5000/terraform:1.11", "mirror.test:5000/terraform@sha256:1"),
            // Given another name on its host.
            ("local/tools:1", "mirror.test:5000/terraform@sha256:1"),
        ] {
            assert_eq!(digest_of(name, &all).as_deref(), Some(digest), "{name}");
        }
        assert_eq!(digest_of("local/tools:1", &[]), None, "it has never been in a registry");
    }
}

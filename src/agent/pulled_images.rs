//! The images that this agent has pulled, and their removal when nobody has
//! used them for long or the disk fills up. What others put on the engine is
//! never touched.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, RwLockReadGuard};
use tracing::{info, warn};

use crate::engine::Engine;
use crate::json_file;
use cli::untrusted_file;
use config::layout::data;

/// How often the clean-up looks.
const BETWEEN_CLEAN_UPS: Duration = Duration::from_secs(600);

/// When images go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// That long after their last use.
    pub age: Duration,
    /// Earlier, the longest unused first, while the engine's disk has less free
    /// than this, in bytes.
    pub free: u64,
}

/// What this agent has pulled.
#[derive(Debug)]
pub(crate) struct Images {
    file: PathBuf,
    /// Read-locked while an image is on its way into a container.
    in_use: RwLock<()>,
    pulled: std::sync::Mutex<BTreeMap<String, Pulled>>,
}

/// An image, under the name that it was pulled by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pulled {
    /// Its id then: the name may since have been given to another one.
    id: String,
    /// When it was last used, in seconds since 1970.
    used_at: u64,
}

impl Images {
    /// What is written down in `data_dir`.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        let file = data_dir.join(data::IMAGES);
        let pulled = match untrusted_file::read(&file, json_file::LARGEST) {
            // A damaged file only means that these images stay.
            Ok(json) => serde_json::from_slice(&json).unwrap_or_else(|error| {
                warn!("{} is damaged, so it is begun again: {error}", file.display());
                BTreeMap::new()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        Ok(Self { file, in_use: RwLock::default(), pulled: pulled.into() })
    }

    /// Keeps the clean-up from removing anything while the guard lives.
    pub(crate) async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.in_use.read().await
    }

    /// Remembers that this agent has pulled `image`.
    ///
    /// # Errors
    /// It can't be written down.
    pub(crate) fn pulled(&self, image: &str, id: String) -> Result<()> {
        self.change(|pulled| {
            pulled.insert(image.to_owned(), Pulled { id, used_at: now() });
        })
    }

    /// Remembers that `image` is used now, if this agent has pulled it.
    ///
    /// # Errors
    /// It can't be written down.
    pub(crate) fn used(&self, image: &str) -> Result<()> {
        self.change(|pulled| {
            if let Some(image) = pulled.get_mut(image) {
                image.used_at = now();
            }
        })
    }

    /// Removes images from time to time, for ever.
    pub(crate) async fn clean_up(
        &self,
        engine: &Engine,
        limits: Limits,
    ) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(BETWEEN_CLEAN_UPS).await;
            if let Err(error) = self.clean_up_once(engine, limits).await {
                warn!("cannot clean up images: {error:#}");
            }
        }
    }

    async fn clean_up_once(&self, engine: &Engine, limits: Limits) -> Result<()> {
        for (image, pulled) in self.by_age() {
            // Not waited for: tasks that come later would wait behind us.
            let Ok(_nobody_begins) = self.in_use.try_write() else { return Ok(()) };
            let unused = Duration::from_secs(now().saturating_sub(pulled.used_at));
            if unused < limits.age && engine.free_space().await?.bytes >= limits.free {
                continue;
            }
            // Used since the list was made, or another image by now.
            if self.by_age().iter().all(|(name, known)| *name != image || *known != pulled) {
                continue;
            }
            let present = engine.image_id(&image).await?;
            if present.as_ref() == Some(&pulled.id) && !engine.remove_image(&image).await? {
                continue;
            }
            info!(image, "removed an image that was not used for {} s", unused.as_secs());
            self.change(|pulled| {
                pulled.remove(&image);
            })?;
        }
        Ok(())
    }

    /// All of them, the longest unused first.
    fn by_age(&self) -> Vec<(String, Pulled)> {
        let pulled = self.pulled.lock().expect("nothing panics while it holds the images").clone();
        let mut pulled: Vec<_> = pulled.into_iter().collect();
        pulled.sort_by_key(|(_, image)| image.used_at);
        pulled
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Pulled>)) -> Result<()> {
        let mut pulled = self.pulled.lock().expect("nothing panics while it holds the images");
        let mut new = pulled.clone();
        change(&mut new);
        if *pulled != new {
            json_file::write_durably(&self.file, &new)?;
            *pulled = new;
        }
        Ok(())
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pulled_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path()).unwrap();
        images.pulled("run:1", "sha256:1".into()).unwrap();
        images.used("somebody-elses:1").unwrap();
        let again = Images::open(folder.path()).unwrap().by_age();
        assert_eq!(again, images.by_age());
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("images.json"), "{\"run").unwrap();
        assert!(Images::open(folder.path()).unwrap().by_age().is_empty());
    }
}

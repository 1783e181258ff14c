//! Which volumes are whole, and when they were last used: `DATA/providers.json`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::provider::Provider;
use crate::json_file;
use cli::untrusted_file;
use config::layout::data;

/// A number by chance, of the kernel's making.
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// The volumes that this agent has filled.
#[derive(Debug)]
pub(super) struct List {
    file: PathBuf,
    known: std::sync::Mutex<Known>,
}

/// All volumes, by their names.
pub(super) type Volumes = BTreeMap<String, Volume>;

/// A volume that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Volume {
    /// Its content.
    pub content: Content,
    /// How much that is.
    pub bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub used_at: u64,
}

/// The content of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    /// A provider that the agent has downloaded.
    Downloaded {
        /// Which one.
        provider: Provider,
        /// What Terraform calls its hash when it is unpacked: `h1:…`.
        h1: String,
    },
    /// All of one provider that the mirror's folder has.
    Mirrored {
        /// `HOST/NAMESPACE/NAME`.
        address: String,
        /// How it was in the folder.
        fingerprint: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Several agents may use one engine: by this, one knows its own volumes.
    owner: String,
    volumes: Volumes,
}

impl List {
    /// What is written down in `data_dir`.
    ///
    /// # Errors
    /// The file can't be read, or not be begun.
    pub(super) fn open(data_dir: &Path) -> Result<Self> {
        let file = data_dir.join(data::PROVIDER_LIST);
        let known = match untrusted_file::read(&file, json_file::LARGEST) {
            // The volumes of one that is damaged stay behind.
            Ok(json) => serde_json::from_slice(&json)
                .inspect_err(|error| {
                    warn!("{} is damaged, so it is begun again: {error}", file.display());
                })
                .ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let known = match known {
            Some(known) => known,
            None => {
                let owner = std::fs::read_to_string(UUID).context("cannot make an id")?;
                let known = Known { owner: owner.trim().to_owned(), volumes: Volumes::new() };
                // Before there is a volume that would be nobody's without it.
                json_file::write_durably(&file, &known)?;
                known
            }
        };
        Ok(Self { file, known: known.into() })
    }

    /// By which this agent's volumes are known from others'.
    pub(super) fn owner(&self) -> String {
        self.lock().owner.clone()
    }

    /// All that are whole.
    pub(super) fn volumes(&self) -> Volumes {
        self.lock().volumes.clone()
    }

    /// Changes the list, on disk first.
    ///
    /// # Errors
    /// It can't be written down.
    pub(super) fn change(&self, change: impl FnOnce(&mut Volumes)) -> Result<()> {
        let mut known = self.lock();
        let mut new = known.clone();
        change(&mut new.volumes);
        if *known != new {
            json_file::write_durably(&self.file, &new)?;
            *known = new;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the volumes")
    }
}

/// When volumes go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How much all downloaded ones may have together, in bytes.
    pub bytes: u64,
    /// That long after its last use one goes anyhow.
    pub age: Duration,
}

/// The names of those that are to go at `now` (seconds since 1970), the longest
/// unused first. Of those that `stays` does not name all go, but the limits are
/// not for what is mirrored: the mirror's folder has no limit either.
pub(super) fn to_go(
    volumes: &Volumes,
    limits: Limits,
    now: u64,
    stays: impl Fn(&Content) -> bool,
) -> Vec<String> {
    let mut by_age: Vec<_> = volumes.iter().collect();
    by_age.sort_by_key(|(_, volume)| volume.used_at);
    let is_downloaded = |volume: &Volume| matches!(volume.content, Content::Downloaded { .. });
    let downloaded = by_age.iter().filter(|(_, volume)| is_downloaded(volume));
    let mut bytes: u64 = downloaded.map(|(_, volume)| volume.bytes).sum();
    let mut going = Vec::new();
    for (name, volume) in by_age {
        let is_old = now.saturating_sub(volume.used_at) > limits.age.as_secs();
        let is_over = is_downloaded(volume) && (is_old || bytes > limits.bytes);
        if is_over || !stays(&volume.content) {
            if is_downloaded(volume) {
                bytes -= volume.bytes;
            }
            going.push(name.clone());
        }
    }
    going
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A volume with a version of null, for tests.
    pub(crate) fn downloaded(version: &str, bytes: u64, used_at: u64) -> Volume {
        let provider = Provider::new("registry.terraform.io/hashicorp/null", version).unwrap();
        let content = Content::Downloaded { provider, h1: format!("h1:{version}") };
        Volume { content, bytes, used_at }
    }

    fn mirrored(fingerprint: &str) -> Volume {
        let content =
            Content::Mirrored { address: "h/n/t".into(), fingerprint: fingerprint.into() };
        Volume { content, bytes: 1000, used_at: 0 }
    }

    fn named<const N: usize>(volumes: [(&str, Volume); N]) -> Volumes {
        volumes.into_iter().map(|(name, volume)| (name.to_owned(), volume)).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let volumes = named([
            ("a", downloaded("1.0.0", 40, 300)),
            ("b", downloaded("2.0.0", 40, 100)),
            ("c", downloaded("3.0.0", 40, 200)),
        ]);
        let go = |bytes, seconds, now| {
            to_go(&volumes, Limits { bytes, age: Duration::from_secs(seconds) }, now, |_| true)
        };
        assert_eq!(go(120, 1000, 400), [""; 0]);
        assert_eq!(go(119, 1000, 400), ["b"]);
        assert_eq!(go(79, 1000, 400), ["b", "c"]);
        assert_eq!(go(0, 1000, 400), ["b", "c", "a"]);
        assert_eq!(go(120, 150, 400), ["b", "c"]);
        // A clock that was set back is no reason.
        assert_eq!(go(120, 150, 0), [""; 0]);
    }

    #[test]
    fn of_a_mirror_goes_what_is_no_longer_in_it() {
        let volumes = named([
            ("a", downloaded("1.0.0", 40, 1000)),
            ("b", mirrored("now")),
            ("c", mirrored("before")),
        ]);
        let limits = Limits { bytes: 100, age: Duration::from_secs(10) };
        let stays = |content: &Content| match content {
            Content::Downloaded { .. } => true,
            Content::Mirrored { fingerprint, .. } => fingerprint == "now",
        };
        assert_eq!(to_go(&volumes, limits, 1000, stays), ["c"]);
    }

    #[test]
    fn what_is_whole_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let list = List::open(folder.path()).unwrap();
        list.change(|volumes| drop(volumes.insert("a".into(), downloaded("1.0.0", 1, 2)))).unwrap();
        let again = List::open(folder.path()).unwrap();
        assert_eq!(again.volumes(), list.volumes());
        assert_eq!(again.owner(), list.owner());
        std::fs::write(folder.path().join("providers.json"), "{").unwrap();
        assert!(List::open(folder.path()).unwrap().volumes().is_empty());
    }
}

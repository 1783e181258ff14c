//! Providers that runs find instead of downloading them.
//!
//! Each version is in a volume of its own, which the agent fills and runs read.
//! A volume is listed when it is whole, and never changes after that; the engine
//! removes none that a container has. So runs may begin, end and overlap with all
//! that happens here, and nothing that a run does gets into a volume: the agent
//! downloads for itself what a plan's lock file names.
//!
//! A volume has a provider twice. The unpacked one is used where it is: Terraform
//! has nothing to unpack, nor to copy. But it can be known again by its `h1:` hash
//! alone, and a lock file may have only `zh:` hashes, or an `h1:` of another
//! platform: then a run gets the packed one, which Terraform verifies by either.

mod archive;
mod cli_config;
mod folder;
mod list;
mod lock_file;
mod package;
mod provider;
mod source;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio::io::DuplexStream;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio_util::io::{ReaderStream, SyncIoBridge};
use tracing::{debug, info, warn};

use crate::engine::{Engine, ReadOnlyVolume};
use crate::https::Https;
use crate::{registry, trusted};
use config::layout::data;
use config::{Config, ProviderMirror};
use folder::Mirrored;
use list::{Content, Limits, List, Volume, Volumes};
use lock_file::Locked;
use provider::Provider;
use source::{Origin, Source};

/// How often the clean-up looks.
const BETWEEN_CLEAN_UPS: Duration = Duration::from_secs(600);

/// The label of all that is made here; its value is the list's owner.
const LABEL: &str = "scalr.providers";

/// Where volumes are in a run's container: a folder for each.
const IN_RUN: &str = "/scalr/providers";

/// How many volumes a run gets when no lock file tells which it needs.
const MOST_VOLUMES: usize = 64;

/// How many providers wait for their download; what is more comes with a later
/// plan.
const MOST_WANTED: usize = 256;

/// The largest package, in bytes.
const LARGEST_PACKAGE: u64 = 2 * 1024 * 1024 * 1024;

/// How much of a package is on its way to the engine, in bytes.
const PIPE: usize = 256 * 1024;

/// How much larger than its package a provider is, at the most, when it is there
/// twice: by this it is judged whether it fits.
const UNPACKED_FACTOR: u64 = 6;

/// The providers of this agent.
#[derive(Debug)]
pub(crate) struct Providers {
    list: List,
    source: Source,
    mirror: ProviderMirror,
    platform: String,
    limits: Limits,
    /// How much of the engine's disk stays free, in bytes.
    free: u64,
    /// For what is on its way into a volume; emptied at the start.
    downloads: PathBuf,
    wanted: Mutex<BTreeSet<Provider>>,
    /// Rung when something is wanted.
    rung: Notify,
    /// Held while a volume is filled.
    filling: tokio::sync::Mutex<()>,
    /// Read-locked while volumes are on their way into a container.
    in_use: RwLock<()>,
}

/// The providers of a run. None of them is removed while this lives.
#[derive(Debug)]
pub(crate) struct Provided<'a> {
    /// To be mounted.
    pub volumes: Vec<ReadOnlyVolume>,
    /// Terraform's CLI configuration that names them; none when there is nothing
    /// that it does not do by itself.
    pub cli_config: Option<String>,
    _held: RwLockReadGuard<'a, ()>,
}

impl Providers {
    /// The providers that are kept already.
    ///
    /// # Errors
    /// The data folder can't be used; HTTPS can't be set up.
    pub(crate) fn open(config: &Config, https: &Https) -> Result<Self> {
        let origin = match &config.provider_mirror {
            ProviderMirror::Network(url) => Origin::Mirror(url.clone()),
            _ => Origin::Registries(config.provider_registries.clone()),
        };
        let downloads = config.data_dir.join(data::PROVIDERS);
        begin_empty(&downloads).with_context(|| format!("cannot use {}", downloads.display()))?;
        Ok(Self {
            list: List::open(&config.data_dir)?,
            source: Source::new(https.client(), origin)?,
            mirror: config.provider_mirror.clone(),
            platform: format!("linux_{}", registry::go_architecture()),
            limits: Limits {
                bytes: config.provider_cache_limit,
                age: config.provider_cache_max_age,
            },
            free: config.image_min_free,
            downloads,
            wanted: Mutex::default(),
            rung: Notify::new(),
            filling: tokio::sync::Mutex::default(),
            in_use: RwLock::default(),
        })
    }

    /// Whether Terraform gets providers from nowhere else than from a mirror.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.mirror != ProviderMirror::None
    }

    /// The providers of a run with this lock file.
    ///
    /// # Errors
    /// The engine doesn't answer, or the mirror's folder can't be used.
    pub(crate) async fn provide(
        &self,
        engine: &Engine,
        lock_file: Option<&[u8]>,
    ) -> Result<Provided<'_>> {
        let held = self.in_use.read().await;
        let chosen: Vec<(String, &str)> = match &self.mirror {
            ProviderMirror::Folder(folder) => self.mirrored(engine, folder).await?,
            _ if self.limits.bytes == 0 => Vec::new(),
            _ => {
                // One that is not understood is Terraform's to complain of.
                let locked = lock_file.and_then(|text| lock_file::read(text).ok());
                let present = engine.volumes(LABEL, &self.list.owner()).await?;
                let mut volumes = self.list.volumes();
                volumes.retain(|name, _| present.contains(name));
                choose(&volumes, locked.as_ref())
            }
        };
        let (mut volumes, mut folders) = (Vec::new(), Vec::new());
        for (number, (name, folder)) in chosen.into_iter().enumerate() {
            let target = format!("{IN_RUN}/{number}");
            folders.push(format!("{target}/{folder}").trim_end_matches('/').to_owned());
            volumes.push(ReadOnlyVolume { name, target });
        }
        let has_something = !volumes.is_empty() || self.is_mirrored();
        let cli_config = has_something.then(|| cli_config::text(&folders, &self.mirror));
        Ok(Provided { volumes, cli_config, _held: held })
    }

    /// Takes note of what a plan has used, which its lock file tells: the agent gets what
    /// it does not have.
    pub(crate) fn note(&self, lock_file: &Path) {
        if self.limits.bytes == 0 || matches!(self.mirror, ProviderMirror::Folder(_)) {
            return;
        }
        let locked = match lock_file::open(lock_file) {
            Ok(locked) => locked,
            Err(error) => return warn!("no providers are kept of a plan: {error:#}"),
        };
        let noted = self.list.change(|volumes| {
            for volume in volumes.values_mut() {
                if let Content::Downloaded { provider, .. } = &volume.content
                    && locked.contains_key(provider)
                {
                    volume.used_at = now();
                }
            }
        });
        if let Err(error) = noted {
            warn!("cannot take note of the providers in use: {error:#}");
        }
        let mut wanted = self.wanted.lock().expect("nothing panics while it holds what is wanted");
        for provider in locked.into_keys() {
            if wanted.len() < MOST_WANTED && self.source.serves(&provider) && !self.has(&provider) {
                wanted.insert(provider);
            }
        }
        self.rung.notify_one();
    }

    /// Downloads wanted providers and removes unused ones; never returns.
    pub(crate) async fn keep(&self, engine: &Engine) -> std::convert::Infallible {
        loop {
            if let Err(error) = self.clean_up(engine).await {
                warn!("cannot clean up providers: {error:#}");
            }
            let Some(provider) = self.next_wanted() else {
                tokio::select! {
                    () = self.rung.notified() => {}
                    () = tokio::time::sleep(BETWEEN_CLEAN_UPS) => {}
                }
                continue;
            };
            if self.has(&provider) {
                continue;
            }
            match self.get(engine, &provider).await {
                Ok(()) => info!(%provider, "got a provider for later runs"),
                Err(error) => warn!(%provider, "runs go on without a copy of it: {error:#}"),
            }
        }
    }

    fn next_wanted(&self) -> Option<Provider> {
        self.wanted.lock().expect("nothing panics while it holds what is wanted").pop_first()
    }

    fn has(&self, wanted: &Provider) -> bool {
        self.list.volumes().values().any(|volume| {
            matches!(&volume.content, Content::Downloaded { provider, .. } if provider == wanted)
        })
    }

    async fn get(&self, engine: &Engine, provider: &Provider) -> Result<()> {
        let package = self.source.find(provider, &self.platform).await?;
        let largest = self.limits.bytes.min(LARGEST_PACKAGE);
        let (zip, zh) = self.source.download(&package, &self.downloads, largest).await?;
        package.check_packed(&zh)?;
        let needed = self.free + zip.as_file().metadata()?.len() * UNPACKED_FACTOR;
        // An engine that does not tell is no reason to do without.
        if engine.free_space().await.is_ok_and(|free| free.bytes < needed) {
            bail!("the engine's disk has too little space");
        }
        let name = self.name(&provider.to_string());
        let _filling = self.filling.lock().await;
        let (of, platform, path) = (provider.clone(), self.platform.clone(), zip.path().to_owned());
        let pack = move |into| package::pack(&path, into, &of, &platform);
        let written = self.fill(engine, &name, pack).await?;
        let checked = package.check_unpacked(&written.h1).and_then(|()| {
            let content = Content::Downloaded { provider: provider.clone(), h1: written.h1 };
            self.add(&name, content, written.bytes)
        });
        if checked.is_err() {
            engine.remove_volume(&name).await?;
        }
        checked
    }

    /// The volumes with all that the mirror's folder has, filled where they are not.
    async fn mirrored(
        &self,
        engine: &Engine,
        folder: &Path,
    ) -> Result<Vec<(String, &'static str)>> {
        let _filling = self.filling.lock().await;
        let mirrored = self.look(folder).await?;
        let present = engine.volumes(LABEL, &self.list.owner()).await?;
        let whole = self.list.volumes();
        let mut chosen = Vec::new();
        for provider in mirrored {
            let name = self.name(&provider.fingerprint);
            if !present.contains(&name) || !whole.contains_key(&name) {
                info!(
                    provider = provider.address,
                    "bringing a provider of the mirror to the engine"
                );
                let content = Content::Mirrored {
                    address: provider.address.clone(),
                    fingerprint: provider.fingerprint.clone(),
                };
                let bytes = self.fill(engine, &name, move |into| provider.pack(into)).await?;
                self.add(&name, content, bytes)?;
            }
            chosen.push((name, ""));
        }
        Ok(chosen)
    }

    async fn look(&self, folder: &Path) -> Result<Vec<Mirrored>> {
        let (folder, platform) = (folder.to_owned(), self.platform.clone());
        tokio::task::spawn_blocking(move || folder::look(&folder, &platform, trusted::ROOT))
            .await
            .context("the look at the mirror's folder panicked")?
    }

    /// Fills a volume with what `pack` writes.
    async fn fill<T: Send + 'static>(
        &self,
        engine: &Engine,
        name: &str,
        pack: impl FnOnce(SyncIoBridge<DuplexStream>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let labels = HashMap::from([(LABEL.to_owned(), self.list.owner())]);
        // One that was given up may still have the volume.
        for found in engine.with_label(LABEL, &self.list.owner()).await? {
            engine.remove(&found.id).await?;
        }
        self.list.change(|volumes| drop(volumes.remove(name)))?;
        let (into, from) = tokio::io::duplex(PIPE);
        let packing = tokio::task::spawn_blocking(move || pack(SyncIoBridge::new(into)));
        let filled = engine.fill_volume(name, &labels, ReaderStream::new(from)).await;
        match (packing.await.context("the packing panicked")?, filled) {
            (Ok(packed), Ok(())) => Ok(packed),
            // One of the two may only be a consequence of the other.
            (Err(packed), Err(filled)) => Err(filled.context(format!("{packed:#}"))),
            (Ok(_), Err(error)) => Err(error),
            (Err(error), Ok(())) => {
                engine.remove_volume(name).await?;
                Err(error)
            }
        }
    }

    fn add(&self, name: &str, content: Content, bytes: u64) -> Result<()> {
        let volume = Volume { content, bytes, used_at: now() };
        self.list.change(|volumes| drop(volumes.insert(name.to_owned(), volume)))
    }

    /// A volume's name: no other agent's, whatever it has in it.
    fn name(&self, content: &str) -> String {
        let hash = Sha256::digest(format!("{} {} {content}", self.list.owner(), self.platform));
        format!("scalr-provider-{}", &hex::encode(hash)[..24])
    }

    /// Removes what was begun and given up, and forgets what others have removed.
    async fn forget_halves(&self, engine: &Engine) -> Result<()> {
        let _filling = self.filling.lock().await;
        for found in engine.with_label(LABEL, &self.list.owner()).await? {
            // A run's container has other labels.
            engine.remove(&found.id).await?;
        }
        let present = engine.volumes(LABEL, &self.list.owner()).await?;
        self.list.change(|volumes| volumes.retain(|name, _| present.contains(name)))?;
        let whole = self.list.volumes();
        for name in present.iter().filter(|name| !whole.contains_key(*name)) {
            engine.remove_volume(name).await?;
        }
        Ok(())
    }

    async fn clean_up(&self, engine: &Engine) -> Result<()> {
        self.forget_halves(engine).await?;
        let mirrored = match &self.mirror {
            ProviderMirror::Folder(folder) => Some(self.look(folder).await?),
            _ => None,
        };
        let stays = |content: &Content| match (content, &mirrored) {
            (Content::Downloaded { .. }, None) => true,
            (Content::Mirrored { fingerprint, .. }, Some(mirrored)) => {
                mirrored.iter().any(|now| now.fingerprint == *fingerprint)
            }
            _ => false,
        };
        for name in list::to_go(&self.list.volumes(), self.limits, now(), stays) {
            // Not waited for: runs that come later would wait behind us.
            let Ok(_nobody_begins) = self.in_use.try_write() else { return Ok(()) };
            if engine.remove_volume(&name).await? {
                debug!(volume = name, "removed a provider");
                self.list.change(|volumes| drop(volumes.remove(&name)))?;
            }
        }
        Ok(())
    }
}

/// Which volumes a run gets, and which folder of each: of a provider that the lock
/// file names, that version; without a lock file, those that were used last.
fn choose(volumes: &Volumes, locked: Option<&Locked>) -> Vec<(String, &'static str)> {
    let mut chosen: Vec<_> = volumes
        .iter()
        .filter_map(|(name, volume)| {
            let Content::Downloaded { provider, h1 } = &volume.content else { return None };
            let folder = match locked {
                None => package::UNPACKED,
                Some(locked) if locked.get(provider)?.contains(h1) => package::UNPACKED,
                Some(_) => package::PACKED,
            };
            Some((volume.used_at, name, folder))
        })
        .collect();
    chosen.sort_by_key(|(used_at, ..)| std::cmp::Reverse(*used_at));
    chosen.truncate(MOST_VOLUMES);
    chosen.into_iter().map(|(_, name, folder)| (name.clone(), folder)).collect()
}

fn begin_empty(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::list::tests::downloaded;
    use super::*;

    fn volumes() -> Volumes {
        [("a", downloaded("1.0.0", 1, 10)), ("b", downloaded("2.0.0", 1, 20))]
            .map(|(name, volume)| (name.to_owned(), volume))
            .into()
    }

    fn locked(version: &str, hashes: &[&str]) -> Locked {
        let provider = Provider::new("registry.terraform.io/hashicorp/null", version).unwrap();
        [(provider, hashes.iter().map(|hash| (*hash).to_owned()).collect())].into()
    }

    fn chosen(locked: Option<&Locked>) -> Vec<(String, &'static str)> {
        choose(&volumes(), locked)
    }

    #[test]
    fn a_run_gets_what_its_lock_file_names() {
        let one = |name: &str, folder| vec![(name.to_owned(), folder)];
        assert_eq!(
            chosen(Some(&locked("1.0.0", &["zh:1", "h1:1.0.0"]))),
            one("a", package::UNPACKED)
        );
        assert_eq!(chosen(Some(&locked("3.0.0", &["h1:3.0.0"]))), []);
        assert_eq!(chosen(Some(&Locked::new())), []);
    }

    /// Terraform would refuse the unpacked one, or could not verify it.
    #[test]
    fn a_lock_file_without_our_hash_gets_the_package() {
        for hashes in [&["zh:1"][..], &["h1:of-another-platform", "zh:1"], &[]] {
            let locked = locked("2.0.0", hashes);
            assert_eq!(chosen(Some(&locked)), [("b".to_owned(), package::PACKED)], "{hashes:?}");
        }
    }

    #[test]
    fn without_a_lock_file_the_last_used_come_first() {
        let chosen = chosen(None);
        assert_eq!(chosen, ["b", "a"].map(|name| (name.to_owned(), package::UNPACKED)));
    }
}

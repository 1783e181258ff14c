//! Containers: made, started, signalled, waited for and removed.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StatsOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tracing::warn;

use super::disk_limit::{DiskLimits, size};
use super::{Engine, ReadOnlyVolume, is_answer, is_gone, is_missing, status};

/// How many processes and threads a run may have. A large provider has some
/// hundreds; a fork bomb has more.
const PIDS_LIMIT: i64 = 2048;

/// What a run's container is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerSpec {
    /// Its name, unique on the engine.
    pub name: String,
    /// The image, present on the engine.
    pub image: String,
    /// The program and its arguments; the image's own entry point is not used.
    pub command: Vec<String>,
    /// `NAME=VALUE`, visible to everybody who may ask the engine: no secrets.
    pub environment: Vec<String>,
    /// `UID:GID`, or a name that the image knows.
    pub user: String,
    /// Where the program starts.
    pub working_directory: String,
    /// Folders on volumes of its own, which go with it. At first each is as the
    /// image has it.
    pub folders: Vec<String>,
    /// In MB, for each of these folders and for its copy of the image's files, where the
    /// engine has such limits.
    pub disk_megabytes: u64,
    /// Whether all but these folders is read-only.
    pub read_only: bool,
    /// By which it is found again.
    pub labels: HashMap<String, String>,
    /// The slot's network.
    pub network: String,
    /// In MB (1024 × 1024 bytes); the container gets no swap.
    pub memory_megabytes: u64,
    /// In processors.
    pub cpus: f64,
    /// What it can read besides its image.
    pub volumes: Vec<ReadOnlyVolume>,
    /// Whether it has an input, which ends when whoever attached to it first has gone.
    pub has_input: bool,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It was made and never started.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Ended {
        /// Its first process's exit code.
        exit_code: i64,
        /// Whether the kernel killed one of its processes for memory.
        oom_killed: bool,
    },
}

/// A container that was found by its labels.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// All its labels.
    pub labels: HashMap<String, String>,
}

impl Engine {
    /// Makes a container, without starting it, and gives its id.
    ///
    /// # Errors
    /// The engine refuses, for example because the name is taken.
    pub(crate) async fn create(&self, spec: ContainerSpec) -> Result<String> {
        let limits = self.disk_limits(spec.disk_megabytes).await;
        if limits == DiskLimits::default() {
            return self.create_within(spec, limits).await;
        }
        match self.create_within(spec.clone(), limits).await {
            Err(error) if is_answer(&error) => {
                let id = self.create_within(spec, DiskLimits::default()).await?;
                // Its disk is mounted otherwise now, for example.
                warn!("the engine limits no container's disk any more: {error:#}");
                self.forget_disk_limits().await;
                Ok(id)
            }
            created => created,
        }
    }

    async fn create_within(&self, spec: ContainerSpec, limits: DiskLimits) -> Result<String> {
        let memory = i64::try_from(spec.memory_megabytes * 1024 * 1024)
            .context("the memory limit is too large")?;
        let limit_of_files = match limits.files.filter(|_| !spec.read_only) {
            Some(files) => {
                Some(self.limit_of_files(files, &spec.image, spec.disk_megabytes).await?)
            }
            None => None,
        };
        let (limited, folders) = match limits.volumes {
            true => (spec.folders, Vec::new()),
            false => (Vec::new(), spec.folders),
        };
        let limited = limited.into_iter().map(|folder| limited_folder(folder, spec.disk_megabytes));
        let host = HostConfig {
            memory: Some(memory),
            // Memory and swap together: no swap.
            memory_swap: Some(memory),
            #[expect(clippy::cast_possible_truncation, reason = "a few processors")]
            nano_cpus: Some((spec.cpus * 1e9) as i64),
            pids_limit: Some(PIDS_LIMIT),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(spec.read_only),
            network_mode: Some(spec.network.clone()),
            mounts: Some(
                spec.volumes.into_iter().map(ReadOnlyVolume::mount).chain(limited).collect(),
            ),
            storage_opt: limit_of_files.map(size),
            // Read again from its start after a crash of ours: the one driver
            // that keeps all and gives it back.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                // Not what the engine's own settings say: of a file that is begun
                // again, a log that is made again would lack the beginning.
                config: Some(HashMap::from(
                    [("max-size", "1000g"), ("max-file", "2")]
                        .map(|(option, value)| (option.to_owned(), value.to_owned())),
                )),
            }),
            ..HostConfig::default()
        };
        let name = spec.name.clone();
        let body = ContainerCreateBody {
            image: Some(spec.image),
            entrypoint: Some(spec.command),
            cmd: Some(Vec::new()),
            env: Some(spec.environment),
            user: Some(spec.user),
            working_dir: Some(spec.working_directory),
            volumes: Some(folders),
            labels: Some(spec.labels),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            attach_stdin: Some(spec.has_input),
            open_stdin: Some(spec.has_input),
            stdin_once: Some(spec.has_input),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(
                    spec.network,
                    EndpointSettings::default(),
                )])),
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self
            .docker
            .create_container(Some(options), body)
            .await
            .with_context(|| format!("cannot make container {name}"))?;
        Ok(created.id)
    }

    /// Starts a container; one that runs already is left alone.
    ///
    /// # Errors
    /// The engine can't start it now, or ever (see [`super::is_invalid`]): the entry
    /// point is missing, for example.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        self.docker
            .start_container(id, None)
            .await
            .context("cannot start the container, whose image has to have /bin/sh")
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// The name is taken, or the engine doesn't answer.
    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        let renamed = self.docker.rename_container(id, options).await;
        renamed.with_context(|| format!("cannot rename the container to {name}"))
    }

    /// Sends `signal` (`SIGINT`) to a container's first process; nothing
    /// happens when it has ended.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match self.docker.kill_container(id, Some(options)).await {
            Err(error) if is_missing(&error) || status(&error) == Some(409) => Ok(()),
            other => other.with_context(|| format!("cannot send {signal} to the container")),
        }
    }

    /// Waits until a container is no longer running, through restarts of the
    /// engine, and tells how it ended.
    ///
    /// # Errors
    /// The container is gone, or the engine stays away for some minutes.
    pub(crate) async fn ended(&self, id: &str) -> Result<Condition> {
        loop {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            // Its answer is not used: a restart of the engine ends it, and an
            // exit code other than 0 comes as an error.
            let mut wait = std::pin::pin!(self.docker.wait_container(id, Some(options)));
            while wait.next().await.is_some() {}
            let condition = self.settled(id).await?;
            if matches!(condition, Condition::Ended { .. }) {
                return Ok(condition);
            }
        }
    }

    /// How a container is, asked until the engine answers: it may be restarting.
    ///
    /// # Errors
    /// The container is gone, or the engine stays away for some minutes.
    pub(crate) async fn settled(&self, id: &str) -> Result<Condition> {
        let inspect = || self.condition(id);
        inspect
            .retry(
                ExponentialBuilder::default()
                    .with_min_delay(Duration::from_millis(200))
                    .with_max_delay(Duration::from_secs(10))
                    .with_max_times(30),
            )
            .when(|error| !is_gone(error))
            .await
    }

    /// How a container is.
    ///
    /// # Errors
    /// It is gone (see [`is_gone`]), or the engine doesn't answer.
    pub(crate) async fn condition(&self, id: &str) -> Result<Condition> {
        let state = self
            .docker
            .inspect_container(id, None)
            .await
            .context("cannot look at the container")?
            .state
            .context("the engine reports no state")?;
        let never_started =
            state.status == Some(bollard::models::ContainerStateStatusEnum::CREATED);
        Ok(if never_started {
            Condition::Created
        } else if state.running == Some(true) {
            Condition::Running
        } else {
            Condition::Ended {
                exit_code: state.exit_code.unwrap_or(-1),
                oom_killed: state.oom_killed == Some(true),
            }
        })
    }

    /// How much memory a container uses that the kernel can't take back, in
    /// bytes: not the cache of files. None when the engine does not tell, as of
    /// one that has ended.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn memory_used(&self, id: &str) -> Result<Option<u64>> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut answers = std::pin::pin!(self.docker.stats(id, Some(options)));
        let Some(answer) = answers.next().await else { return Ok(None) };
        let memory = answer.context("cannot look at the container's memory")?.memory_stats;
        Ok(memory.and_then(|memory| Some(unreclaimable(memory.usage?, &memory.stats?))))
    }

    /// All containers, running or not, that have the label `key=value`.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn with_label(&self, key: &str, value: &str) -> Result<Vec<Found>> {
        let filters = HashMap::from([("label", vec![format!("{key}={value}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers =
            self.docker.list_containers(Some(options)).await.context("cannot list containers")?;
        Ok(containers
            .into_iter()
            .filter_map(|container| {
                let name = container.names.unwrap_or_default().into_iter().next();
                Some(Found {
                    id: container.id?,
                    name: name.unwrap_or_default().trim_start_matches('/').to_owned(),
                    labels: container.labels.unwrap_or_default(),
                })
            })
            .collect())
    }

    /// Removes a container with its anonymous volumes, killing it if it runs;
    /// one that is gone already is fine.
    ///
    /// # Errors
    /// The engine doesn't answer or can't remove it.
    pub(crate) async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: somebody else is removing it.
            Err(error) if is_missing(&error) || status(&error) == Some(409) => Ok(()),
            other => other.context("cannot remove the container"),
        }
    }
}

/// A folder on a volume that goes with its container, as those of `volumes` do.
fn limited_folder(target: String, megabytes: u64) -> Mount {
    let driver = MountVolumeOptionsDriverConfig {
        name: Some("local".to_owned()),
        options: Some(size(megabytes)),
    };
    Mount {
        typ: Some(MountType::VOLUME),
        target: Some(target),
        volume_options: Some(MountVolumeOptions {
            driver_config: Some(driver),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

/// `usage` less the files in memory, as the kernel names them in `memory.stat`:
/// in control groups of version 1 with those of the groups inside
/// (`total_inactive_file`), in version 2 without the prefix.
fn unreclaimable(usage: u64, stats: &HashMap<String, u64>) -> u64 {
    let files = ["inactive_file", "active_file"]
        .into_iter()
        .filter_map(|name| stats.get(&format!("total_{name}")).or_else(|| stats.get(name)));
    usage.saturating_sub(files.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_are_not_counted() {
        let stats = |pairs: &[(&str, u64)]| {
            pairs.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
        };
        let first =
            stats(&[("inactive_file", 1), ("total_inactive_file", 20), ("total_active_file", 10)]);
        assert_eq!(unreclaimable(100, &first), 70);
        assert_eq!(unreclaimable(100, &stats(&[("inactive_file", 20), ("active_file", 5)])), 75);
    }
}

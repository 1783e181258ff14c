//! The container engine: Docker's API, 1.37 (Docker 18) or newer, on a local
//! socket.

mod volumes;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};
use bollard::auth::DockerCredentials;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkCreateRequest,
    NetworkingConfig,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, StatsOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tracing::warn;

use cli::Failure;

pub(crate) use volumes::ReadOnlyVolume;

/// How long the engine may take to answer, in seconds; not how long a
/// container may run.
const TIMEOUT_SECONDS: u64 = 120;

/// How many processes and threads a run may have. A large provider has some
/// hundreds; a fork bomb has more.
const PIDS_LIMIT: i64 = 2048;

/// How much is read of a file that is small, in bytes, unless the run has made it
/// large: what it did is then not understood, and the agent stays small.
const SMALL_FILE: u64 = 1024 * 1024;

/// What a container writes, in order, until it ends.
pub(crate) type Output = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// An engine on a socket.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    docker: Docker,
}

/// What a run's container is made of.
#[derive(Clone, Debug)]
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
    /// All its labels.
    pub labels: HashMap<String, String>,
}

impl Engine {
    /// Connects to the engine at `socket` (`unix:///path`) and agrees on a
    /// version with it.
    ///
    /// # Errors
    /// Nothing answers there, we may not use the socket, or it is no local
    /// socket.
    pub(crate) async fn connect(socket: &str) -> Result<Self> {
        let Some(path) = socket.strip_prefix("unix://") else {
            return Err(Failure::Usage.because(format!(
                "the engine's socket `{socket}` is not of the form unix:///path"
            )));
        };
        let docker = Docker::connect_with_unix(path, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
            .with_context(|| unreachable(socket))?;
        let docker = docker.negotiate_version().await.with_context(|| unreachable(socket))?;
        Ok(Self { docker })
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// It doesn't.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.docker.ping().await.map(drop).context("the engine does not answer")
    }

    /// Sees to it that the bridge network `name` is there.
    ///
    /// The engine takes its addresses from its default address pools.
    ///
    /// # Errors
    /// The engine can't make it, its address pools being used up for example.
    pub(crate) async fn ensure_network(&self, name: &str) -> Result<()> {
        match self.docker.inspect_network(name, None).await {
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at network {name}"));
            }
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            // An interface's name has at most 15 characters.
            options: Some(HashMap::from([(
                "com.docker.network.bridge.name".to_owned(),
                name.chars().take(15).collect(),
            )])),
            ..NetworkCreateRequest::default()
        };
        self.docker
            .create_network(request)
            .await
            .map(drop)
            .with_context(|| format!("cannot make network {name}"))
    }

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

    /// Pulls `image` from its registry; `progress` is told what is there of it,
    /// and what of it is known to come, in bytes.
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

    /// How much is free on the disk of the engine's data, in bytes.
    ///
    /// # Errors
    /// The engine doesn't answer, or its folder is not on this host.
    pub(crate) async fn free_bytes(&self) -> Result<u64> {
        let info = self.docker.info().await.context("cannot ask the engine for its folder")?;
        let folder = info.docker_root_dir.context("the engine does not tell its folder")?;
        let disk = nix::sys::statvfs::statvfs(folder.as_str())
            .with_context(|| format!("cannot look at the disk of {folder}"))?;
        Ok(disk.blocks_available() * disk.fragment_size())
    }

    /// Makes a container, without starting it, and gives its id.
    ///
    /// # Errors
    /// The engine refuses, for example because the name is taken.
    pub(crate) async fn create(&self, spec: ContainerSpec) -> Result<String> {
        let memory = i64::try_from(spec.memory_megabytes * 1024 * 1024)
            .context("the memory limit is too large")?;
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
            mounts: Some(spec.volumes.into_iter().map(ReadOnlyVolume::mount).collect()),
            // Read again from its start after a crash of ours: the one driver
            // that keeps all and gives it back.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                // Not what the engine's own settings say: of a file that is begun
                // anew, a log that is made again would lack the beginning.
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
            volumes: Some(spec.folders),
            labels: Some(spec.labels),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
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

    /// Unpacks a tar archive below `folder` of a container, one that can be written
    /// to; owners and modes are the archive's.
    ///
    /// # Errors
    /// The engine refuses, its disk being full for example.
    pub(crate) async fn upload(&self, id: &str, folder: &str, archive: File) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(folder).build();
        let archive = ReaderStream::new(tokio::fs::File::from_std(archive));
        self.docker
            .upload_to_container(id, Some(options), bollard::body_try_stream(archive))
            .await
            .context("cannot put files into the container")
    }

    /// Whether a container has the folder `path` and every user can write there.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn is_open_folder(&self, id: &str, path: &str) -> Result<bool> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(id, Some(options)).await {
            Ok(info) => Ok(is_open_folder(info.file_mode)),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot look at {path} in the container"))
            }
        }
    }

    /// A small regular file of a container, at most its first 1 MiB; none when there is no
    /// such file.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn read(&self, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.unpack(id, path, |file| {
            let mut content = Vec::new();
            file.take(SMALL_FILE).read_to_end(&mut content)?;
            Ok(content)
        })
        .await
    }

    /// Copies a regular file of a container, however large, into an empty one here;
    /// tells whether there is one.
    ///
    /// # Errors
    /// The engine doesn't answer, or `to` can't be written.
    pub(crate) async fn copy_out(&self, id: &str, path: &str, mut to: File) -> Result<bool> {
        let copied = self.unpack(id, path, move |file| io::copy(file, &mut to)).await?;
        Ok(copied.is_some())
    }

    /// Gives `read` a regular file of a container, which the engine packs into an
    /// archive; none when there is no such file, or something else in its place.
    async fn unpack<T: Send + 'static>(
        &self,
        id: &str,
        path: &str,
        read: impl FnOnce(&mut dyn io::Read) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let cannot = format!("cannot get {path} out of the container");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream =
            Box::pin(self.docker.download_from_container(id, Some(options)).peekable());
        // A refusal comes first; as it is, it says whether the engine is away.
        match stream.as_mut().peek().await {
            Some(Err(error)) if is_missing(error) => return Ok(None),
            Some(Err(_)) => {
                let refused = stream.next().await.context("it was there just now")?;
                return Err(refused.expect_err("it was an error just now")).context(cannot);
            }
            _ => {}
        }
        let archive = SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other)));
        let path = path.to_owned();
        let unpacked = tokio::task::spawn_blocking(move || {
            let mut archive = tar::Archive::new(archive);
            let mut entry =
                archive.entries()?.next().context("the engine sent an empty archive")??;
            if !entry.header().entry_type().is_file() {
                warn!("{path} in the container is not a regular file, so it is left there");
                return Ok(None);
            }
            anyhow::Ok(Some(read(&mut entry)?))
        });
        unpacked.await.context("unpacking panicked")?.context(cannot)
    }

    /// What a container writes from now on; to be asked for before it is
    /// started, so that nothing is missed.
    ///
    /// # Errors
    /// The engine refuses.
    pub(crate) async fn attach(&self, id: &str) -> Result<Output> {
        let options =
            AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let attached = self
            .docker
            .attach_container(id, Some(options))
            .await
            .context("cannot attach to the container")?;
        Ok(Box::pin(attached.output.map(|output| {
            output
                .map(bollard::container::LogOutput::into_bytes)
                .context("lost the container's output")
        })))
    }

    /// All that a container has written since its start, and goes on to write. The
    /// engine ends it with the container, be it at the end of what that wrote or not.
    pub(crate) fn output_from_start(&self, id: &str) -> Output {
        self.kept_output(id, true)
    }

    /// All that a container which has ended wrote.
    pub(crate) fn whole_output(&self, id: &str) -> Output {
        self.kept_output(id, false)
    }

    fn kept_output(&self, id: &str, follow: bool) -> Output {
        let options = LogsOptionsBuilder::default()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .tail("all")
            .build();
        // The stream borrows the client, and outlives this call.
        let docker = self.docker.clone();
        let id = id.to_owned();
        let (send, receive) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut output = std::pin::pin!(docker.logs(&id, Some(options)));
            while let Some(chunk) = output.next().await {
                let chunk = chunk
                    .map(bollard::container::LogOutput::into_bytes)
                    .context("lost the container's output");
                if send.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        Box::pin(futures_util::stream::unfold(receive, |mut receive| async move {
            receive.recv().await.map(|chunk| (chunk, receive))
        }))
    }

    /// Starts a container; one that runs already is left alone.
    ///
    /// # Errors
    /// The engine can't start it now, or ever (see [`is_invalid`]): the entry
    /// point is missing, for example.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        self.docker
            .start_container(id, None)
            .await
            .context("cannot start the container, whose image has to have /bin/sh")
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
            .context("the engine tells no state")?;
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
                Some(Found { id: container.id?, labels: container.labels.unwrap_or_default() })
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

/// Whether a mode as Go has it (`fs.FileMode`: the kind is in the upper bits) is
/// that of a folder that every user can write to.
fn is_open_folder(mode: u32) -> bool {
    const FOLDER: u32 = 1 << 31;
    const WRITE_AND_ENTER: u32 = 0o003;
    mode & FOLDER != 0 && mode & WRITE_AND_ENTER == WRITE_AND_ENTER
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

/// Whether an error of this module means that the container is not there.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<bollard::errors::Error>().is_some_and(is_missing)
}

/// Whether an error of this module means that the engine did not answer: it may be
/// restarting.
pub(crate) fn is_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<bollard::errors::Error>().is_some_and(|error| status(error).is_none())
}

/// Whether an error of this module means that the engine was asked for what can't
/// be: to start a program that the image does not have, for example.
pub(crate) fn is_invalid(error: &anyhow::Error) -> bool {
    error.downcast_ref::<bollard::errors::Error>().and_then(status) == Some(400)
}

fn is_missing(error: &bollard::errors::Error) -> bool {
    status(error) == Some(404)
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn unreachable(socket: &str) -> String {
    format!(
        "no container engine answers at {socket}; look at `systemctl status scalr-docker`, or name another with `scalr-agent configure --engine`"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::Request;

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

    #[test]
    fn modes_are_those_that_an_engine_tells() {
        // Seen: drwxrwxrwt, and drwxr-xr-x.
        assert!(is_open_folder(2_148_532_735));
        assert!(!is_open_folder(2_147_484_141));
        // A file, and a symbolic link, that everybody can write to.
        assert!(!is_open_folder(0o666));
        assert!(!is_open_folder((1 << 27) | 0o777));
    }

    /// An engine that knows no newer API than that of Docker 18.03.
    #[tokio::test]
    async fn an_old_engine_is_spoken_to_as_it_understands() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let answer = move |request: Request| async move {
            seen.lock().unwrap().push(request.uri().path().to_owned());
            r#"{"Version": "18.03.1-ce", "ApiVersion": "1.37", "MinAPIVersion": "1.12"}"#
        };
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, engine).await });

        let engine = Engine::connect(&format!("unix://{}", socket.display())).await.unwrap();
        engine.ensure_network("slot").await.unwrap();
        // By no version at all, which is the engine's own; or by the one it named.
        for path in asked.lock().unwrap().iter() {
            assert!(!path.starts_with("/v1.") || path.starts_with("/v1.37/"), "{path}");
        }
    }
}

//! What the engine itself limits on its disk: its local volumes where the disk counts by
//! projects (xfs with `pquota`), and a container's copy of its image's files where its
//! storage driver can (overlay2 on such an xfs, btrfs, zfs). It does not tell which, so it
//! is asked for both once, and refuses what it cannot do.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::models::{ContainerCreateBody, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::CreateContainerOptions;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::volumes::EMPTY_IMAGE;
use super::{Engine, is_answer};

/// What an engine limits; unknown until it was asked.
pub(super) type Known = Mutex<Option<DiskLimits>>;

/// What an engine can limit of what a container has on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskLimits {
    /// Each of its volumes.
    pub(super) volumes: bool,
    /// Its copy of its image's files.
    pub(super) files: Option<Files>,
}

/// What counts against the limit of a container's copy of its image's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// What it has written.
    Written,
    /// That, and the image: a limit of btrfs is for all that a subvolume refers to.
    WrittenAndImage,
}

impl Engine {
    /// Which limits of `megabytes` the engine enforces. An engine that does not answer
    /// enforces none, and is asked again the next time.
    pub(super) async fn disk_limits(&self, megabytes: u64) -> DiskLimits {
        let mut known = self.disk_limits.lock().await;
        if let Some(limits) = *known {
            return limits;
        }
        let asked = async {
            let files = match self.limits_files(megabytes).await? {
                true => Some(self.counted_files().await?),
                false => None,
            };
            let volumes = self.limits_volumes(megabytes).await?;
            anyhow::Ok(DiskLimits { volumes, files })
        };
        match asked.await {
            Ok(limits) => *known.insert(limits),
            Err(error) => {
                warn!("cannot ask the engine for its disk limits: {error:#}");
                DiskLimits::default()
            }
        }
    }

    /// Whether the engine enforces any limit of `megabytes`.
    pub(crate) async fn limits_disk(&self, megabytes: u64) -> bool {
        self.disk_limits(megabytes).await != DiskLimits::default()
    }

    /// The limit for a container's copy of the files of `image`, in MB, so that it can write
    /// `megabytes`.
    pub(super) async fn limit_of_files(
        &self,
        files: Files,
        image: &str,
        megabytes: u64,
    ) -> Result<u64> {
        if files == Files::Written {
            return Ok(megabytes);
        }
        let cannot = || format!("cannot get the size of image {image}");
        let image = self.docker.inspect_image(image).await.with_context(cannot)?;
        let bytes = u64::try_from(image.size.unwrap_or_default()).unwrap_or_default();
        Ok(megabytes + bytes.div_ceil(1024 * 1024))
    }

    async fn counted_files(&self) -> Result<Files> {
        let info = self.docker.info().await.context("cannot ask the engine for its driver")?;
        Ok(match info.driver.as_deref() {
            Some("btrfs") => Files::WrittenAndImage,
            _ => Files::Written,
        })
    }

    /// Does without limits from now on: the engine has refused what it had said it can.
    pub(super) async fn forget_disk_limits(&self) {
        *self.disk_limits.lock().await = Some(DiskLimits::default());
    }

    async fn limits_volumes(&self, megabytes: u64) -> Result<bool> {
        let request = VolumeCreateRequest {
            driver: Some("local".to_owned()),
            driver_opts: Some(size(megabytes)),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker.create_volume(request).await;
        let Some(volume) = or_refused("volumes", made)? else { return Ok(false) };
        self.remove_volume(&volume.name).await
    }

    async fn limits_files(&self, megabytes: u64) -> Result<bool> {
        self.ensure_empty_image().await?;
        let body = ContainerCreateBody {
            image: Some(EMPTY_IMAGE.to_owned()),
            // Never started, so it need not be there.
            entrypoint: Some(vec!["/none".to_owned()]),
            host_config: Some(HostConfig {
                storage_opt: Some(size(megabytes)),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(None::<CreateContainerOptions>, body).await;
        let Some(container) = or_refused("files", made)? else { return Ok(false) };
        self.remove(&container.id).await?;
        Ok(true)
    }
}

/// The option `size` of storage drivers and of local volumes.
pub(super) fn size(megabytes: u64) -> HashMap<String, String> {
    HashMap::from([("size".to_owned(), format!("{megabytes}m"))])
}

/// What was made; none if the engine has refused to.
fn or_refused<T>(what: &str, made: Result<T, bollard::errors::Error>) -> Result<Option<T>> {
    match made.map_err(anyhow::Error::from) {
        Ok(made) => Ok(Some(made)),
        Err(error) if is_answer(&error) => {
            info!(what, "the engine has no disk limit: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{Method, StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::ContainerSpec;

    /// What Docker 20.10.24 answers where the disk does not count by projects.
    const NO_VOLUMES: &str = "create v1: quota size requested but no quota support";
    const NO_FILES: &str =
        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";

    /// An engine that enforces `limits`, and the bodies of what was to be made.
    #[derive(Clone)]
    struct Fake {
        limits: Arc<Mutex<DiskLimits>>,
        driver: &'static str,
        bodies: Arc<Mutex<Vec<Value>>>,
    }

    impl Fake {
        fn with(limits: DiskLimits) -> Self {
            let driver = match limits.files {
                Some(Files::WrittenAndImage) => "btrfs",
                _ => "overlay2",
            };
            Self { limits: Arc::new(Mutex::new(limits)), driver, bodies: Arc::default() }
        }

        async fn engine(&self, folder: &std::path::Path) -> Engine {
            let socket = folder.join("docker.sock");
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let fake = self.clone();
            let router =
                Router::new().fallback(async move |method: Method, uri: Uri, body: Bytes| {
                    fake.answer(&method, &uri, &body)
                });
            tokio::spawn(async move { axum::serve(listener, router).await });
            Engine::connect(&format!("unix://{}", socket.display())).await.unwrap()
        }

        fn answer(&self, method: &Method, uri: &Uri, body: &[u8]) -> Response {
            let limits = *self.limits.lock().unwrap();
            let refused = |why: &str| {
                let body = json!({"message": why}).to_string();
                (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
            };
            if method != Method::POST || !uri.path().ends_with("/create") {
                // 90 MB and a little more.
                return json!({
                    "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Id": "sha256:1",
                    "Size": 94_371_841, "Driver": self.driver,
                })
                .to_string()
                .into_response();
            }
            let body: Value = serde_json::from_slice(body).unwrap();
            self.bodies.lock().unwrap().push(body.clone());
            let options = &body["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"];
            if !limits.volumes && (body["DriverOpts"].is_object() || options.is_object()) {
                return refused(NO_VOLUMES);
            }
            if limits.files.is_none() && body["HostConfig"]["StorageOpt"].is_object() {
                return refused(NO_FILES);
            }
            r#"{"Id": "c1", "Warnings": [], "Name": "v1", "Driver": "local", "Mountpoint": "/v1",
                "Labels": {}, "Scope": "local", "Options": {}}"#
                .into_response()
        }

        /// What was last made.
        fn last(&self) -> Value {
            self.bodies.lock().unwrap().last().unwrap().clone()
        }
    }

    fn spec(read_only: bool) -> ContainerSpec {
        ContainerSpec {
            name: "task-1".to_owned(),
            image: "run:1".to_owned(),
            command: vec!["/bin/sh".to_owned()],
            environment: Vec::new(),
            user: "1:1".to_owned(),
            working_directory: "/".to_owned(),
            folders: vec!["/scalr".to_owned()],
            disk_megabytes: 192,
            read_only,
            labels: HashMap::new(),
            network: "slot".to_owned(),
            memory_megabytes: 512,
            cpus: 1.0,
            volumes: Vec::new(),
            has_input: false,
        }
    }

    #[tokio::test]
    async fn a_container_has_the_limits_that_its_engine_can_enforce() {
        let (own, all) = (Some(Files::Written), Some(Files::WrittenAndImage));
        for (volumes, files, of_files) in [
            (false, None, ""),
            (true, None, ""),
            (false, own, "192m"),
            (true, own, "192m"),
            (false, all, "283m"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let fake = Fake::with(DiskLimits { volumes, files });
            let engine = fake.engine(folder.path()).await;
            for read_only in [false, true] {
                engine.create(spec(read_only)).await.unwrap();
                let made = fake.last();
                let mount = &made["HostConfig"]["Mounts"][0];
                assert_eq!(made["Volumes"].to_string().contains("/scalr"), !volumes, "{made}");
                assert_eq!(mount["Target"] == "/scalr", volumes, "{made}");
                let options = &mount["VolumeOptions"]["DriverConfig"]["Options"];
                assert_eq!(*options == json!({"size": "192m"}), volumes, "{made}");
                // It cannot write to the image's files.
                let limit = &made["HostConfig"]["StorageOpt"]["size"];
                let expected = if read_only { "" } else { of_files };
                assert_eq!(limit.as_str().unwrap_or_default(), expected, "{made}");
            }
            assert_eq!(engine.limits_disk(192).await, volumes || files.is_some());
            // Two questions, once, and two containers.
            assert_eq!(fake.bodies.lock().unwrap().len(), 4);
        }
    }

    #[tokio::test]
    async fn an_engine_that_enforces_no_limit_any_more_fails_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::with(DiskLimits { volumes: true, files: Some(Files::Written) });
        let engine = fake.engine(folder.path()).await;
        engine.create(spec(false)).await.unwrap();
        *fake.limits.lock().unwrap() = DiskLimits::default();
        engine.create(spec(false)).await.unwrap();
        assert!(fake.last()["HostConfig"]["StorageOpt"].is_null());
        assert!(!engine.limits_disk(192).await);
    }
}

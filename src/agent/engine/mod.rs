//! The container engine: Docker's API, 1.37 (Docker 18) or newer, on a local
//! socket.

mod containers;
mod disk_limit;
mod disk_usage;
mod files;
mod free_space;
mod host_network;
mod images;
mod output;
mod volumes;

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backon::{ConstantBuilder, Retryable as _};
use bollard::models::NetworkCreateRequest;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use tracing::warn;

use cli::Failure;

pub(crate) use containers::{Condition, ContainerSpec};
pub(crate) use files::{LARGE_FILE, SMALL_FILE, is_unusable};
pub(crate) use free_space::FreeSpace;
use host::engine::Identity;
pub(crate) use host_network::is_in_container;
pub(crate) use output::{Input, Output};
pub(crate) use volumes::ReadOnlyVolume;

/// How long the engine may take to answer, in seconds; not how long a
/// container may run.
const TIMEOUT_SECONDS: u64 = 120;

/// How long an engine may be away when the agent starts: it may be restarting, too. Less
/// than the watchdog of the agent's unit, 60 s.
const RESTART_OF_THE_ENGINE: Duration = Duration::from_secs(40);

/// The option of a network that names its bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// An engine on a socket.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    docker: Docker,
    /// For what bollard does not read.
    http: reqwest::Client,
    sizes: Arc<disk_usage::Sizes>,
    disk_limits: Arc<disk_limit::Known>,
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
        // An error means that a provider is in place already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No authority is read for what is never encrypted.
        let plain = reqwest::Client::builder().tls_certs_only([]);
        let http = plain.unix_socket(path).no_proxy().build();
        let http = http.context("cannot set up calls to the engine")?;
        Ok(Self { docker, http, sizes: Arc::default(), disk_limits: Arc::default() })
    }

    /// Connects as [`Engine::connect`], and waits for an engine that is restarting.
    ///
    /// # Errors
    /// As [`Engine::connect`], or the engine stays away.
    pub(crate) async fn connect_when_up(socket: &str) -> Result<Self> {
        let begun = Instant::now();
        let mut is_logged = false;
        (|| Self::connect(socket))
            .retry(
                ConstantBuilder::default()
                    .with_delay(Duration::from_millis(500))
                    .without_max_times(),
            )
            .when(|error| is_away(error) && begun.elapsed() < RESTART_OF_THE_ENGINE)
            .notify(|error, _| {
                if !std::mem::replace(&mut is_logged, true) {
                    warn!("{error:#}; waiting for it up to {} s", RESTART_OF_THE_ENGINE.as_secs());
                }
            })
            .await
    }

    /// Refuses an engine that runs cannot use.
    ///
    /// # Errors
    /// It is one of those (2), or does not answer.
    pub(crate) async fn refuse_unsupported(&self, socket: &str) -> Result<()> {
        let identity = Identity::of(&self.get("/version").await?, &self.get("/info").await?)?;
        match identity.refusal() {
            Some(refusal) => Err(Failure::Usage
                .because(format!("runs cannot use the engine at {socket}: {refusal}"))),
            None => Ok(()),
        }
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        let answer = self.http.get(format!("http://docker{path}")).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let body = async { answer?.bytes().await };
        body.await.with_context(|| format!("the engine does not answer to GET {path}"))
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// It doesn't.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.docker.ping().await.map(drop).context("the engine does not answer")
    }

    /// Sees to it that the bridge network `name` is there, with a bridge of that
    /// name: the firewall's rules go by it.
    ///
    /// The engine takes its addresses from its default address pools.
    ///
    /// # Errors
    /// The engine can't make it, its address pools being used up for example.
    pub(crate) async fn ensure_network(&self, name: &str) -> Result<()> {
        // An interface's name has at most 15 characters.
        let bridge: String = name.chars().take(15).collect();
        match self.docker.inspect_network(name, None).await {
            Ok(found)
                if found.options.as_ref().and_then(|all| all.get(BRIDGE_NAME)) == Some(&bridge) =>
            {
                return Ok(());
            }
            Ok(_) => self.docker.remove_network(name).await.with_context(|| {
                format!("cannot remove network {name}, whose bridge is not called {bridge}")
            })?,
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at network {name}"));
            }
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([(BRIDGE_NAME.to_owned(), bridge)])),
            ..NetworkCreateRequest::default()
        };
        self.docker
            .create_network(request)
            .await
            .map(drop)
            .with_context(|| format!("cannot make network {name}"))
    }
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

/// Whether an error of this module is what the engine answered, or a registry by it.
pub(crate) fn is_answer(error: &anyhow::Error) -> bool {
    error.downcast_ref::<bollard::errors::Error>().and_then(status).is_some()
}

/// Whether an error of this module means that the engine was asked for what can't
/// be: to start a program that the image does not have, for example.
pub(crate) fn is_invalid(error: &anyhow::Error) -> bool {
    error.downcast_ref::<bollard::errors::Error>().and_then(status) == Some(400)
}

/// Whether an error means that a disk is full, this host's or the engine's.
pub(crate) fn is_disk_full(error: &anyhow::Error) -> bool {
    let is_ours = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| is_ours(error.kind()))
            // What the engine, and what it calls, say of it.
            || cause.to_string().contains("no space left on device")
    })
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
    let path = Path::new(socket.trim_start_matches("unix://"));
    if access(path, AccessFlags::W_OK) == Err(Errno::EACCES) {
        let group = fs::metadata(path).map_or_else(|_| "?".to_owned(), |it| it.gid().to_string());
        return format!(
            "the agent's user may not use the engine at {socket}, whose group is {group}\n\
             As a service, run `scalr-agent-setup units` and restart the agent; as a container, \
             start it with --group-add {group}."
        );
    }
    format!(
        "no container engine answers at {socket}; look at `systemctl status scalr-docker`, or name another with `scalr-agent configure --engine`"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::extract::Request;

    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_restarting_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let address = format!("unix://{}", socket.display());
        // What a killed engine leaves: nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let start = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            std::fs::remove_file(&socket).unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let answer = || async { r#"{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}"# };
            let engine = axum::Router::new().fallback(answer);
            tokio::spawn(async move { axum::serve(listener, engine).await });
        };
        let (engine, ()) = tokio::join!(Engine::connect_when_up(&address), start);
        engine.unwrap();
    }

    #[tokio::test]
    async fn a_network_whose_bridge_has_another_name_is_replaced() {
        for (bridge, calls) in [
            ("slot", vec!["GET /networks/slot"]),
            ("other", vec!["GET /networks/slot", "DELETE /networks/slot", "POST /networks/create"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("docker.sock");
            let asked = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&asked);
            let answer = move |request: Request| async move {
                let path = request.uri().path();
                if let Some((_, path)) = path.split_once("/networks/") {
                    seen.lock().unwrap().push(format!("{} /networks/{path}", request.method()));
                }
                format!(
                    r#"{{"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Id": "1", "Warning": "",
                        "Options": {{"{BRIDGE_NAME}": "{bridge}"}}}}"#
                )
            };
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let engine = axum::Router::new().fallback(answer);
            tokio::spawn(async move { axum::serve(listener, engine).await });

            let engine = Engine::connect(&format!("unix://{}", socket.display())).await.unwrap();
            engine.ensure_network("slot").await.unwrap();
            assert_eq!(*asked.lock().unwrap(), calls);
        }
    }

    #[tokio::test]
    async fn an_engine_that_runs_cannot_use_is_refused() {
        let podman: [&str; 2] = [
            include_str!("../../host/recorded/engines/podman-4.3.1-version.json"),
            include_str!("../../host/recorded/engines/podman-4.3.1-info.json"),
        ];
        let docker = [
            r#"{"Version": "18.03.1-ce", "ApiVersion": "1.37", "MinAPIVersion": "1.12"}"#,
            r#"{"SecurityOptions": ["name=seccomp,profile=default"]}"#,
        ];
        for (answers, refused) in [(podman, true), (docker, false)] {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("docker.sock");
            let answer = move |request: Request| async move {
                answers[usize::from(request.uri().path().ends_with("/info"))]
            };
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let engine = axum::Router::new().fallback(answer);
            tokio::spawn(async move { axum::serve(listener, engine).await });
            let address = format!("unix://{}", socket.display());
            let engine = Engine::connect(&address).await.unwrap();
            let said = engine.refuse_unsupported(&address).await;
            assert_eq!(said.is_err(), refused, "{said:?}");
            if let Err(error) = said {
                assert_eq!(Failure::of(&error), Failure::Usage);
                assert!(error.to_string().contains("it is Podman 4.3.1"), "{error}");
            }
        }
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
            r#"{"Version": "18.03.1-ce", "ApiVersion": "1.37", "MinAPIVersion": "1.12",
                "Options": {"com.docker.network.bridge.name": "slot"}}"#
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

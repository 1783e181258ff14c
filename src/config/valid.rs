//! Settings that can be worked with: complete, in range, defaults filled in.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use url::Url;

use super::{Firewall, KEYS, LogFormat, OnStop, Settings, checks, defaults, layout};
use cli::Failure;
use protocol::Secret;

/// The registries that Terraform and OpenTofu have by default.
const PROVIDER_REGISTRIES: [&str; 2] = ["registry.terraform.io", "registry.opentofu.org"];

const MEBIBYTE: u64 = 1024 * 1024;

/// Where runs get their providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderMirror {
    /// From the registries.
    None,
    /// From a mirror that speaks Terraform's network mirror protocol; the path ends
    /// with `/`.
    Network(Url),
    /// From a folder on the agent's host, and from nowhere else.
    Folder(PathBuf),
}

/// Settings that an agent can run with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's address; its path is `/`.
    pub url: Url,
    /// The pool's token.
    pub token: Secret,
    /// The agent's name in its pool; none: the host's.
    pub agent_name: Option<String>,
    /// How many tasks run at once, at least 1.
    pub concurrency: u32,
    /// Memory of a task's container, in MB.
    pub memory: u64,
    /// Processors of a task's container.
    pub cpu: f64,
    /// How much a run may have on the engine's disk, in MB.
    pub disk: u64,
    /// The user inside a task's container; none: [`crate::layout::RUN_USER`].
    pub user: Option<String>,
    /// Whether a run may change its image's files; none: only as root.
    pub writable_root: Option<bool>,
    /// Whether a container is started ahead of the next run.
    pub prepare_ahead: bool,
    /// The image for tasks whose workspace and pool have none.
    pub image: String,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// The folder of the agent's own hooks; none: it has none.
    pub hooks_dir: Option<PathBuf>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// How long after their last use the images that it pulled are removed.
    pub image_max_age: Duration,
    /// How much free disk there is to be, in bytes; else images go earlier.
    pub image_min_free: u64,
    /// How much is kept of downloaded providers, in bytes; 0: nothing.
    pub provider_cache_limit: u64,
    /// How long after their last use they are removed.
    pub provider_cache_max_age: Duration,
    /// The registries that the agent gets providers from.
    pub provider_registries: Vec<String>,
    /// Where runs get their providers instead.
    pub provider_mirror: ProviderMirror,
    /// A file in the form of docker's config.json, for registries that want a
    /// password.
    pub registry_auth: Option<PathBuf>,
    /// Where logs and results wait for the server.
    pub data_dir: PathBuf,
    /// The path of the engine's socket.
    pub engine: PathBuf,
    /// How the firewall rules of runs are verified.
    pub firewall: Firewall,
    /// The effect of a stop on running tasks.
    pub on_stop: OnStop,
    /// How long an interrupted task may take to end.
    pub grace: Duration,
    /// How long a drain waits before it interrupts.
    pub drain: Duration,
    /// The longest log of a task, in MB.
    pub log_limit: u64,
    /// How the agent's own log looks.
    pub log_format: LogFormat,
    /// The OpenTelemetry collector that metrics and traces go to; none: they
    /// go nowhere.
    pub telemetry_url: Option<Url>,
    /// A file with headers for it, a line each.
    pub telemetry_headers: Option<PathBuf>,
    /// Whether it logs more.
    pub debug: bool,
}

impl Settings {
    /// The settings with the defaults filled in.
    ///
    /// # Errors
    /// `url` or `token` is missing, or as [`Settings::check`].
    pub fn resolve(self) -> Result<Config> {
        self.check()?;
        let (url, token) = match (self.url, self.token) {
            (Some(url), Some(token)) => (url, token),
            (url, token) => {
                let missing: Vec<&str> = [("url", url.is_none()), ("token", token.is_none())]
                    .iter()
                    .filter_map(|(name, missing)| missing.then_some(*name))
                    .collect();
                return Err(Failure::Usage.because(format!(
                    "not configured: no {}; run scalr-agent configure --url=… --token=…",
                    missing.join(" and no ")
                )));
            }
        };
        let engine = self.engine.as_deref().unwrap_or(layout::ENGINE_SOCKET);
        Ok(Config {
            url,
            token,
            agent_name: self.agent_name,
            concurrency: self.concurrency.unwrap_or(defaults::CONCURRENCY),
            memory: self.memory.unwrap_or(defaults::MEMORY),
            cpu: self.cpu.unwrap_or(defaults::CPU),
            disk: self.disk.unwrap_or(defaults::DISK),
            user: self.user,
            writable_root: self.writable_root,
            prepare_ahead: self.prepare_ahead.unwrap_or(true),
            image: self.image.unwrap_or_else(|| defaults::IMAGE.to_owned()),
            ca_cert: self.ca_cert,
            hooks_dir: self.hooks_dir,
            hook_timeout: Duration::from_secs(self.hook_timeout.unwrap_or(defaults::HOOK_TIMEOUT)),
            image_max_age: days(self.image_max_age.unwrap_or(defaults::IMAGE_MAX_AGE)),
            image_min_free: self.image_min_free.unwrap_or(defaults::IMAGE_MIN_FREE) * MEBIBYTE,
            provider_cache_limit: self
                .provider_cache_limit
                .unwrap_or(defaults::PROVIDER_CACHE_LIMIT)
                * MEBIBYTE,
            provider_cache_max_age: days(
                self.provider_cache_max_age.unwrap_or(defaults::PROVIDER_CACHE_MAX_AGE),
            ),
            provider_registries: PROVIDER_REGISTRIES
                .iter()
                .map(|host| (*host).to_owned())
                .chain(self.provider_registries.iter().flat_map(|hosts| checks::hosts_in(hosts)))
                .collect(),
            provider_mirror: match self.provider_mirror {
                None => ProviderMirror::None,
                Some(text) => checks::mirror(&text).map_err(|wrong| {
                    Failure::Usage.because(format!("`provider_mirror`: {wrong}"))
                })?,
            },
            registry_auth: self.registry_auth,
            data_dir: self.data_dir.unwrap_or_else(|| layout::DATA_DIR.into()),
            engine: engine.trim_start_matches("unix://").into(),
            firewall: self.firewall.unwrap_or_default(),
            on_stop: self.on_stop.unwrap_or_default(),
            grace: Duration::from_secs(
                self.grace_shutdown_timeout.unwrap_or(defaults::GRACE_SHUTDOWN_TIMEOUT),
            ),
            drain: Duration::from_secs(self.drain_timeout.unwrap_or(defaults::DRAIN_TIMEOUT)),
            log_limit: self.log_limit.unwrap_or(defaults::LOG_LIMIT),
            log_format: self.log_format.unwrap_or_default(),
            telemetry_url: self.telemetry_url,
            telemetry_headers: self.telemetry_headers,
            debug: self.debug.unwrap_or(false),
        })
    }

    /// Whether what is set makes sense; what is missing does not matter.
    ///
    /// # Errors
    /// The first setting that is out of range or not of its form.
    pub fn check(&self) -> Result<()> {
        for key in KEYS {
            (key.check)(self)
                .map_err(|wrong| Failure::Usage.because(format!("`{}`: {wrong}", key.name)))?;
        }
        Ok(())
    }
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = settings("url = 'https://pools.example.com'\ntoken = 't'").resolve().unwrap();
        assert_eq!((config.concurrency, config.memory, config.cpu), (1, 512, 1.0));
        assert_eq!(config.engine, Path::new("/run/scalr-docker/docker.sock"));
        assert_eq!(config.grace, Duration::from_secs(60));
    }

    #[test]
    fn what_is_missing_is_named_with_the_command() {
        let error = settings("").resolve().unwrap_err();
        assert_eq!(
            error.to_string(),
            "not configured: no url and no token; run scalr-agent configure --url=… --token=…"
        );
        assert_eq!(Failure::of(&error), Failure::Usage);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for wrong in [
            "url = 'http://pools.example.com'",
            "url = 'ftp://pools.example.com'",
            "url = 'https://me:pw@pools.example.com'",
            "url = 'https://pools.example.com/api'",
            "token = ''",
            "token = 'two words'",
            "agent_name = ' '",
            "concurrency = 0",
            "memory = 3",
            "cpu = 0.0",
            "cpu = nan",
            "disk = 63",
            "user = '-x'",
            "user = 'a b'",
            "user = ''",
            "user = '1:2:3'",
            "image = ''",
            "image = 'a b'",
            "data_dir = 'data'",
            "hooks_dir = 'hooks'",
            "hook_timeout = 0",
            "provider_cache_max_age = 0",
            "provider_registries = 'https://registry.example.com'",
            "provider_registries = 'registry.example.com/path'",
            "provider_registries = 'user@registry.example.com'",
            "provider_mirror = 'mirror'",
            "provider_mirror = 'http://mirror.example.com/'",
            "provider_mirror = 'https://me:pw@mirror.example.com/'",
            "provider_mirror = 'https://mirror.example.com/?a=b'",
            "registry_auth = 'config.json'",
            "engine = 'tcp://1.2.3.4:2375'",
            "ca_cert = '/no/such/file.pem'",
            "grace_shutdown_timeout = 0",
            "telemetry_url = 'grpc://collector:4317'",
            "telemetry_url = 'https://me:pw@collector'",
            "telemetry_url = 'https://collector/?key=pw'",
            "telemetry_url = 'http://collector'\ntelemetry_headers = '/etc/headers'",
            "telemetry_headers = 'headers'",
        ] {
            let error = settings(wrong).check().expect_err(wrong);
            let name = wrong.split(' ').next().unwrap();
            assert!(error.to_string().starts_with(&format!("`{name}`: ")), "{error}");
        }
    }

    #[test]
    fn settings_that_make_sense_are_taken() {
        for right in [
            "url = 'http://127.0.0.1:8080'",
            "url = 'http://[::1]:8080'",
            "url = 'http://localhost'",
            "url = 'https://pools.example.com:8443/'",
            "user = 'root'",
            "user = '1000:1000'",
            "image = 'registry.example.com:5000/terraform:{version}'",
            "cpu = 0.5",
            "provider_cache_limit = 0",
            "provider_registries = 'registry.example.com, other.example.com:8443'",
            "provider_mirror = '/srv/mirror'",
            "telemetry_url = 'http://collector:4318'",
            "telemetry_url = 'https://collector/otlp'\ntelemetry_headers = '/etc/headers'",
        ] {
            settings(right).check().expect(right);
        }
    }
}

//! Settings that can be worked with: complete, in range, defaults filled in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use url::{Host, Url};

use super::{DATA_DIR, ENGINE, LogFormat, OnStop, Settings};
use cli::Failure;
use protocol::Secret;

/// The longest path that a Unix socket's address holds (`sun_path` in
/// `unix(7)`, less the final zero).
const SOCKET_PATH_BYTES: usize = 107;

/// The registries that Terraform and OpenTofu have by default.
const PROVIDER_REGISTRIES: [&str; 2] = ["registry.terraform.io", "registry.opentofu.org"];

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
    /// The user inside a task's container; none: the agent's own.
    pub user: Option<String>,
    /// Whether a run may change its image's files; none: only as root.
    pub writable_root: Option<bool>,
    /// The image for tasks whose workspace and pool have none.
    pub image: Option<String>,
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
    /// What a stop does with running tasks.
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
        let engine = self.engine.as_deref().unwrap_or(ENGINE);
        Ok(Config {
            url,
            token,
            agent_name: self.agent_name,
            concurrency: self.concurrency.unwrap_or(1),
            memory: self.memory.unwrap_or(512),
            cpu: self.cpu.unwrap_or(1.0),
            user: self.user,
            writable_root: self.writable_root,
            image: self.image,
            ca_cert: self.ca_cert,
            hooks_dir: self.hooks_dir,
            hook_timeout: Duration::from_secs(self.hook_timeout.unwrap_or(300)),
            image_max_age: Duration::from_secs(self.image_max_age.unwrap_or(30) * 24 * 60 * 60),
            image_min_free: self.image_min_free.unwrap_or(2048) * 1024 * 1024,
            provider_cache_limit: self.provider_cache_limit.unwrap_or(4096) * 1024 * 1024,
            provider_cache_max_age: Duration::from_secs(
                self.provider_cache_max_age.unwrap_or(30) * 24 * 60 * 60,
            ),
            provider_registries: PROVIDER_REGISTRIES
                .iter()
                .map(|host| (*host).to_owned())
                .chain(self.provider_registries.iter().flat_map(|hosts| hosts_in(hosts)))
                .collect(),
            provider_mirror: match self.provider_mirror {
                None => ProviderMirror::None,
                Some(text) => mirror_of(&text).map_err(|wrong| {
                    Failure::Usage.because(format!("`provider_mirror`: {wrong}"))
                })?,
            },
            registry_auth: self.registry_auth,
            data_dir: self.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            engine: engine.trim_start_matches("unix://").into(),
            on_stop: self.on_stop.unwrap_or_default(),
            grace: Duration::from_secs(self.grace_shutdown_timeout.unwrap_or(60)),
            drain: Duration::from_secs(self.drain_timeout.unwrap_or(3600)),
            log_limit: self.log_limit.unwrap_or(256),
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
        each(&self.url, "url", url)?;
        each(&self.token, "token", token)?;
        each(&self.agent_name, "agent_name", |name| printable(name, 255))?;
        each(&self.concurrency, "concurrency", |n| within(*n, 1, 1_000))?;
        each(&self.memory, "memory", |megabytes| within(*megabytes, 32, 1_048_576))?;
        each(&self.cpu, "cpu", |cpus| within(*cpus, 0.1, 1_024.0))?;
        each(&self.user, "user", |name| user(name))?;
        each(&self.image, "image", |name| image(name))?;
        each(&self.ca_cert, "ca_cert", |file| certificates(file))?;
        each(&self.hooks_dir, "hooks_dir", |path| absolute(path))?;
        each(&self.hook_timeout, "hook_timeout", |s| within(*s, 1, 86_400))?;
        each(&self.image_max_age, "image_max_age", |days| within(*days, 1, 3_650))?;
        each(&self.image_min_free, "image_min_free", |mb| within(*mb, 0, 1_048_576))?;
        each(&self.provider_cache_limit, "provider_cache_limit", |mb| within(*mb, 0, 1_048_576))?;
        each(&self.provider_cache_max_age, "provider_cache_max_age", |days| {
            within(*days, 1, 3_650)
        })?;
        each(&self.provider_registries, "provider_registries", |hosts| registries(hosts))?;
        each(&self.provider_mirror, "provider_mirror", |text| mirror_of(text).map(drop))?;
        each(&self.registry_auth, "registry_auth", |path| absolute(path))?;
        each(&self.data_dir, "data_dir", |path| absolute(path))?;
        each(&self.engine, "engine", |address| socket(address))?;
        each(&self.grace_shutdown_timeout, "grace_shutdown_timeout", |s| within(*s, 1, 86_400))?;
        each(&self.drain_timeout, "drain_timeout", |s| within(*s, 1, 604_800))?;
        each(&self.log_limit, "log_limit", |megabytes| within(*megabytes, 1, 102_400))?;
        each(&self.telemetry_url, "telemetry_url", |url| {
            collector(url, self.telemetry_headers.is_some())
        })?;
        each(&self.telemetry_headers, "telemetry_headers", |path| absolute(path))
    }
}

fn each<T>(
    setting: &Option<T>,
    name: &str,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<()> {
    match setting.as_ref().map(check) {
        Some(Err(wrong)) => Err(Failure::Usage.because(format!("`{name}`: {wrong}"))),
        _ => Ok(()),
    }
}

fn url(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return Err("has to be https://: the token would go over it in the clear".into()),
        _ => return Err("should look like https://pools.example.com".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("should have no user and password in it".into());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("should be the server's address alone, with nothing after the host".into());
    }
    Ok(())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

fn collector(url: &Url, has_headers: bool) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if !has_headers || is_loopback(url) => {}
        "http" => {
            return Err(
                "has to be https://: telemetry_headers would go over it in the clear".into()
            );
        }
        _ => return Err("should look like http://collector:4318".into()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("should have no user and password in it: telemetry_headers is for them".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("should have nothing after the path".into());
    }
    Ok(())
}

fn token(token: &Secret) -> Result<(), String> {
    let text = token.expose();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("is empty or has characters in it that no token has".into());
    }
    Ok(())
}

fn printable(text: &str, longest: usize) -> Result<(), String> {
    if text.trim().is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        return Err(format!("should be 1 to {longest} printable characters"));
    }
    Ok(())
}

fn within<T: PartialOrd + std::fmt::Display>(n: T, least: T, most: T) -> Result<(), String> {
    if n < least || n > most || n.partial_cmp(&n).is_none() {
        return Err(format!("should be between {least} and {most}, not {n}"));
    }
    Ok(())
}

fn user(user: &str) -> Result<(), String> {
    let name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    let mut parts = user.splitn(2, ':');
    if !parts.all(name) {
        return Err(format!("should be root, a name or UID[:GID], not `{user}`"));
    }
    Ok(())
}

fn image(image: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_graphic();
    if image.is_empty() || image.starts_with('-') || !image.chars().all(plain) {
        return Err(format!("should be an image's name such as terraform:1.11, not `{image}`"));
    }
    Ok(())
}

fn certificates(file: &Path) -> Result<(), String> {
    absolute(file)?;
    let text =
        std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let mark = b"-----BEGIN CERTIFICATE-----";
    if !text.windows(mark.len()).any(|window| window == mark) {
        return Err(format!("{} holds no certificate in PEM form", file.display()));
    }
    Ok(())
}

fn hosts_in(hosts: &str) -> impl Iterator<Item = String> {
    let names = hosts.split([',', ' ']).filter(|name| !name.is_empty());
    names.map(str::to_ascii_lowercase)
}

fn registries(hosts: &str) -> Result<(), String> {
    let is_host = |host: &String| {
        Url::parse(&format!("https://{host}/"))
            .is_ok_and(|url| url[url::Position::BeforeHost..url::Position::BeforePath] == *host)
    };
    match hosts_in(hosts).find(|host| !is_host(host)) {
        Some(wrong) => Err(format!("should be hosts such as registry.example.com, not `{wrong}`")),
        None => Ok(()),
    }
}

fn mirror_of(text: &str) -> Result<ProviderMirror, String> {
    if text.starts_with('/') {
        return Ok(ProviderMirror::Folder(text.into()));
    }
    let form = "should be https://HOST/PATH/ or the absolute path of a folder";
    let mut url = Url::parse(text).map_err(|_| format!("{form}, not `{text}`"))?;
    // Not the text: it may hold a password.
    if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{form}, with no user and password in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{form}, with nothing after the path"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(ProviderMirror::Network(url))
}

fn absolute(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("should be an absolute path, not `{}`", path.display()));
    }
    Ok(())
}

fn socket(address: &str) -> Result<(), String> {
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES => Ok(()),
        Some(path) if path.len() > SOCKET_PATH_BYTES => {
            Err(format!("the socket's path is longer than {SOCKET_PATH_BYTES} bytes"))
        }
        _ => Err(format!("should look like {ENGINE}, not `{address}`")),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_mirror_is_an_address_or_a_folder() {
        let mirror = |text| mirror_of(text).unwrap();
        let network = ProviderMirror::Network("https://mirror.example.com/p/".parse().unwrap());
        assert_eq!(mirror("https://mirror.example.com/p"), network);
        assert_eq!(mirror("https://mirror.example.com/p/"), network);
        assert_eq!(mirror("/srv/mirror"), ProviderMirror::Folder("/srv/mirror".into()));
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

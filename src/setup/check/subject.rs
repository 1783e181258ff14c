//! The machine and the settings that are checked, and the answers so far.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnet::Ipv4Net;
use url::Url;

use super::Engine;
use crate::network;
use crate::proxy::of_units;
use crate::status::AGENT_PROGRAM;
use cli::Failure;
use config::Settings;
use config::defaults;
use config::layout;
use config::proxy::{self, ProxySelection, with_port};
use host::command::{CommandExt as _, within};
use host::curl::{self, Answer};
use host::machine::Machine;
use host::os::Os;
use host::rpm;
use host::systemd::Services;
use protocol::{BASE, CheckToken, Secret};

/// The machine and the settings that are checked.
pub(crate) struct Subject {
    /// The machine.
    pub machine: Machine,
    /// The settings that there are already.
    pub settings: Settings,
    /// The server, if it is known.
    pub url: Option<Url>,
    /// How many runs at once.
    pub concurrency: u32,
    /// Memory of a run, in MB.
    pub memory: u64,
    /// The engine's socket.
    pub engine: String,
    /// The proxy's variables.
    pub proxy: Vec<(String, String)>,
    /// Whether the package is not installed yet.
    pub before_install: bool,
    asked: Asked,
}

/// The command line's values, which take precedence over the settings.
pub(crate) struct Overrides {
    pub url: Option<Url>,
    pub concurrency: Option<u32>,
    /// In MB.
    pub memory: Option<u64>,
    pub engine: Option<Engine>,
    pub ca_cert: Option<PathBuf>,
}

/// What several checks want to know, and is asked for once.
#[derive(Default)]
struct Asked {
    answer: OnceCell<Result<Answer, String>>,
    active: OnceCell<Vec<String>>,
    ranges: OnceCell<Result<Vec<Ipv4Net>, String>>,
    rpms: OnceCell<Result<BTreeMap<String, String>, String>>,
}

/// The units that checks ask for.
const UNITS: [&str; 6] = [
    layout::AGENT_UNIT,
    layout::NETWORK_UNIT,
    layout::ENGINE_UNIT,
    layout::CONTAINERD_UNIT,
    "firewalld.service",
    "fapolicyd.service",
];

/// The packages that checks ask for where there is rpm.
const RPMS: [&str; 2] = ["container-selinux", "rpm-plugin-fapolicyd"];

impl Subject {
    /// The machine as its settings and units are.
    ///
    /// # Errors
    /// The settings or the units can't be read, unless that is not permitted to
    /// us.
    pub(crate) fn of(machine: &Machine) -> Result<Self> {
        let mut settings = match Settings::read(&machine.path(config::FILE)) {
            // Whoever may not read them can still check the host.
            Err(error) if Failure::of(&error) == Failure::NotPermitted => Settings::default(),
            result => result?,
        };
        settings.ca_cert = settings.ca_cert.map(|file| machine.path(file));
        Ok(Self {
            url: settings.url.clone(),
            concurrency: settings.concurrency.unwrap_or(defaults::CONCURRENCY),
            memory: settings.memory.unwrap_or(defaults::MEMORY),
            engine: settings.engine.clone().unwrap_or_else(|| config::ENGINE.to_owned()),
            proxy: of_units(machine)?,
            before_install: false,
            machine: machine.clone(),
            settings,
            asked: Asked::default(),
        })
    }

    pub(crate) fn override_settings(&mut self, overrides: Overrides) {
        let Overrides { url, concurrency, memory, engine, ca_cert } = overrides;
        self.url = url.or(self.url.take());
        self.concurrency = concurrency.unwrap_or(self.concurrency);
        self.memory = memory.unwrap_or(self.memory);
        if let Some(engine) = engine {
            engine.socket().clone_into(&mut self.engine);
        }
        self.settings.ca_cert = ca_cert.or(self.settings.ca_cert.take());
    }

    /// Where the services have no proxy yet, checks go by that of our own
    /// environment.
    pub(crate) fn use_shells_proxy(&mut self) {
        if self.proxy.is_empty() {
            self.proxy = proxy::of_environment();
        }
    }

    /// The same without remembered answers: something has been changed.
    #[must_use]
    pub(crate) fn afresh(&self) -> Self {
        Self {
            machine: self.machine.clone(),
            settings: self.settings.clone(),
            url: self.url.clone(),
            concurrency: self.concurrency,
            memory: self.memory,
            engine: self.engine.clone(),
            proxy: self.proxy.clone(),
            before_install: self.before_install,
            asked: Asked::default(),
        }
    }

    /// Whether runs use the private engine.
    pub(crate) fn is_bundled(&self) -> bool {
        self.engine == config::ENGINE
    }

    /// The operating system.
    ///
    /// # Errors
    /// It can't be found out.
    pub(crate) fn os(&self) -> Result<Os> {
        Os::of(&self.machine)
    }

    /// Whether one of [`UNITS`] is up.
    pub(crate) fn is_active(&self, unit: &str) -> bool {
        debug_assert!(UNITS.contains(&unit), "{unit} is not asked for");
        let active = || Services::of(&self.machine).active_of(&UNITS).unwrap_or_default();
        self.asked.active.get_or_init(active).iter().any(|active| active == unit)
    }

    /// The ranges that runs get, or would get, their addresses from.
    ///
    /// # Errors
    /// One collides with a route of the host, or none is free.
    pub(crate) fn ranges(&self) -> Result<&[Ipv4Net], &str> {
        let ranges = || network::range(&self.machine).map_err(|error| format!("{error:#}"));
        self.asked.ranges.get_or_init(ranges).as_deref().map_err(String::as_str)
    }

    /// The version of one of [`RPMS`]; `None` if it is not installed.
    ///
    /// # Errors
    /// rpm can't tell.
    pub(crate) fn rpm(&self, package: &str) -> Result<Option<&str>, &str> {
        debug_assert!(RPMS.contains(&package), "{package} is not asked for");
        let rpms = || rpm::installed_of(&RPMS).map_err(|error| format!("{error:#}"));
        let rpms = self.asked.rpms.get_or_init(rpms).as_ref().map_err(String::as_str)?;
        Ok(rpms.get(package).map(String::as_str))
    }

    /// The proxy by which the agent reaches `url`.
    ///
    /// # Errors
    /// A variable's value is not the URL of a proxy.
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<Url>, String> {
        let proxies = ProxySelection::of(&self.proxy).map_err(|error| error.to_string())?;
        Ok(proxies.for_url(url).cloned())
    }

    /// The server's answer to a health check.
    ///
    /// # Errors
    /// curl is missing, or `url` can't be the address of a server.
    pub(crate) fn answer(&self, url: &Url) -> Result<&Answer, &str> {
        let ask = || {
            let health = url.join("/healthz").map_err(|error| error.to_string())?;
            let ca_cert = self.settings.ca_cert.as_deref();
            curl::get(&health, &self.way_to(url)?, ca_cert).map_err(|error| format!("{error:#}"))
        };
        self.asked.answer.get_or_init(ask).as_ref().map_err(String::as_str)
    }

    /// The server's answer to whether it accepts the pool's `token`.
    ///
    /// # Errors
    /// As with [`Subject::answer`].
    pub(crate) fn answer_to_token(&self, url: &Url, token: &Secret) -> Result<Answer, String> {
        let call = url.join(&format!("{BASE}/check-token")).map_err(|error| error.to_string())?;
        let json = serde_json::to_string(&CheckToken { token: token.clone() })
            .map_err(|error| error.to_string())?;
        curl::post(&call, &json, &self.way_to(url)?, self.settings.ca_cert.as_deref())
            .map_err(|error| format!("{error:#}"))
    }

    /// The variable that sends curl where the agent goes. Not the services' own: an old curl
    /// finds no networks in NO_PROXY, and none takes the agent's default port.
    fn way_to(&self, url: &Url) -> Result<Vec<(String, String)>, String> {
        let proxy = self.proxy_for(url)?.map(|proxy| {
            let proxy = with_port(&proxy).unwrap_or_else(|| proxy.to_string());
            ("all_proxy".to_owned(), proxy)
        });
        Ok(proxy.into_iter().collect())
    }

    /// Why the installed agent does not reach the server: it refuses certificates that curl
    /// accepts. None where no agent is installed, or none that can be asked.
    pub(crate) fn refusal_of_agent(&self, url: &Url) -> Option<String> {
        let proxy = self.proxy_for(url).ok()?;
        refusal_of(AGENT_PROGRAM, url, proxy.as_ref(), self.settings.ca_cert.as_deref())
    }
}

/// What the agent's `program` says against the server, by `proxy` alone.
fn refusal_of(
    program: &str,
    url: &Url,
    proxy: Option<&Url>,
    ca_cert: Option<&Path>,
) -> Option<String> {
    /// The exit code of a probe that failed; others are of programs without this command.
    const FAILED: i32 = 1;
    if !Path::new(program).exists() {
        return None;
    }
    let mut command = within(30, program);
    command.args(["probe", url.as_str()]);
    if let Some(file) = ca_cert {
        command.arg("--ca-cert").arg(file);
    }
    for (name, _) in proxy::of_environment() {
        command.env_remove(name);
    }
    // Empty, it is the wish to use none.
    command.env("ALL_PROXY", proxy.map_or("", Url::as_str));
    let output = command.probe().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("error: ");
    (output.status.code() == Some(FAILED)).then(|| said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_programs;

    #[test]
    fn an_agent_that_fails_its_probe_says_why_and_others_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agent");
        let program = program.to_str().unwrap();
        let url = "https://pools.example.com".parse().unwrap();
        let proxy = "http://proxy:3128".parse().unwrap();
        let ask = || refusal_of(program, &url, Some(&proxy), Some(Path::new("/ca.pem")));
        assert_eq!(ask(), None);
        let becomes = |script: &str| test_programs::write(Path::new(program), script);
        becomes("echo \"error: $* by $ALL_PROXY\" >&2; exit 1");
        let said = "probe https://pools.example.com/ --ca-cert /ca.pem by http://proxy:3128/";
        assert_eq!(ask().as_deref(), Some(said));
        becomes("exit 0");
        assert_eq!(ask(), None);
        becomes("echo 'error: unrecognized subcommand' >&2; exit 2");
        assert_eq!(ask(), None);
    }
}

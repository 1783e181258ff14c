//! The proxy that the runs' engine uses, whoever set it.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use cli::Failure;
use cli::untrusted_file;
use config::Settings;
use config::layout::ENGINE_SETTINGS;
use config::proxy::{is_variable, masked_value};
use host::machine::Machine;
use host::unit;

const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// A variable of the engine's unit, or a member of `proxies` in its settings.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct EngineProxy {
    pub name: String,
    /// Without a password.
    pub value: String,
    pub file: String,
}

/// The engine that the settings name.
pub(super) struct Engine {
    pub unit: &'static str,
    settings: &'static str,
}

impl Engine {
    /// The private one, unless the settings name another one.
    ///
    /// # Errors
    /// The settings can't be read, unless that is not permitted to us.
    pub(super) fn of(machine: &Machine) -> Result<Self> {
        let settings = match Settings::read(&machine.path(config::FILE)) {
            Err(error) if Failure::of(&error) == Failure::NotPermitted => Settings::default(),
            result => result?,
        };
        Ok(match settings.engine.as_deref().is_none_or(|engine| engine == config::ENGINE) {
            true => Self { unit: "scalr-docker", settings: ENGINE_SETTINGS },
            false => Self { unit: "docker", settings: DAEMON_JSON },
        })
    }

    pub(super) fn is_bundled(&self) -> bool {
        self.settings == ENGINE_SETTINGS
    }

    /// What its unit sets, and then its settings, which take precedence.
    ///
    /// # Errors
    /// A file can't be read or understood.
    pub(super) fn proxy(&self, machine: &Machine) -> Result<Vec<EngineProxy>> {
        let set = unit::environment_of(machine, &format!("{}.service", self.unit))?;
        let set = set.into_iter().filter(|(name, _)| is_variable(name));
        let mut found: Vec<EngineProxy> = set
            .map(|(name, given)| EngineProxy {
                name,
                value: masked_value(&given.value),
                file: given.file.display().to_string(),
            })
            .collect();
        let Ok(text) = untrusted_file::read_text(machine.path(self.settings)) else {
            return Ok(found);
        };
        let json: DaemonJson = serde_json::from_str(&text)
            .with_context(|| format!("cannot understand {}", self.settings))?;
        let Proxies { http, https, no } = json.proxies;
        for (name, value) in [("http-proxy", http), ("https-proxy", https), ("no-proxy", no)] {
            found.extend(value.map(|value| EngineProxy {
                name: name.to_owned(),
                value: masked_value(&value),
                file: self.settings.to_owned(),
            }));
        }
        Ok(found)
    }
}

#[derive(Default, Deserialize)]
struct DaemonJson {
    #[serde(default)]
    proxies: Proxies,
}

#[derive(Default, Deserialize)]
struct Proxies {
    #[serde(rename = "http-proxy")]
    http: Option<String>,
    #[serde(rename = "https-proxy")]
    https: Option<String>,
    #[serde(rename = "no-proxy")]
    no: Option<String>,
}

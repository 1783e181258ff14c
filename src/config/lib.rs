//! The agent's settings: `agent.toml`, then the environment's variables.
//!
//! `scalr-agent configure` and `scalr-agent-setup install` write the file, the
//! agent reads it. [`KEYS`] is the one list of what there is.

pub mod data_dir;
pub mod defaults;
pub mod edit;
pub mod layout;
pub mod listed;
pub mod proxy;

mod checks;
#[cfg(test)]
mod document;
mod table;
mod token;
mod valid;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use cli::Failure;
use cli::untrusted_file;
use protocol::Secret;

pub use checks::{
    MAX_CERTIFICATES, address, image as check_image, is_encrypted_or_local, url as check_url,
};
pub use layout::{DATA_DIR, ENGINE_SOCKET as ENGINE, SETTINGS as FILE};
pub use table::{DefaultValue, KEYS, Key, ValueKind};
pub use token::read_token;
pub use valid::{Config, ProviderMirror};

fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    address(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

/// The settings as written down: every one may be missing. [`KEYS`] says what
/// each is.
#[allow(missing_docs)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read_address")]
    pub url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable_root: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare_ahead: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_max_age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_min_free: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_cache_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_cache_max_age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_registries: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_mirror: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_auth: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_stop: Option<OnStop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_shutdown_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_headers: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
}

/// How the firewall rules of runs are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firewall {
    /// By a service of the host's systemd.
    #[default]
    Service,
    /// By a container of the image that the agent itself runs in.
    Container,
    /// Not at all: runs have no rules.
    None,
}

/// The effect of a stop on running tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// Interrupts them.
    #[default]
    #[serde(alias = "grace-shutdown")]
    Interrupt,
    /// Waits for them.
    Drain,
}

/// How the agent's own log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Plain,
    /// An object a line.
    Json,
}

impl Settings {
    /// The settings in `file` alone; empty when there is no such file.
    ///
    /// # Errors
    /// The file can't be read, is not TOML, has an unknown key (the message
    /// names the nearest known one) or a value of the wrong kind.
    pub fn read(file: &Path) -> Result<Self> {
        Self::from_table(read_table(file)?)
            .with_context(|| format!("cannot use {}", file.display()))
    }

    /// The settings in `file`, overridden by the variables that are set.
    ///
    /// # Errors
    /// As [`Settings::read`]; also an unknown variable that starts with
    /// `SCALR_AGENT_`, and a variable whose text is not of its kind.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut table = read_table(file)?;
        Self::from_table(table.clone())
            .with_context(|| format!("cannot use {}", file.display()))?;
        for (key, variable, text) in chosen(environment)? {
            table.insert(key.name.to_owned(), key.value(variable, &text)?);
        }
        Self::from_table(table).context("cannot use the environment's variables")
    }

    /// The settings in a file's text.
    ///
    /// # Errors
    /// As [`Settings::read`].
    pub fn parse(text: &str) -> Result<Self> {
        // Not the parser's own display: it quotes the line, which may hold the token.
        let table = toml::from_str(text).ok().context("the settings are not TOML")?;
        Self::from_table(table)
    }

    /// The file's text.
    ///
    /// # Errors
    /// A value has no form in TOML (a path that is not UTF-8).
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("cannot write the settings as TOML")
    }

    fn from_table(table: toml::Table) -> Result<Self> {
        if let Some(unknown) = table.keys().find(|name| Key::named(name).is_none()) {
            let hint = did_you_mean(unknown, KEYS.iter().map(|key| key.name));
            return Err(Failure::Usage.because(format!("unknown setting `{unknown}`{hint}")));
        }
        table.clone().try_into().map_err(|error: toml::de::Error| {
            Failure::Usage.because(format!("{}{}", culprit(&table), error.message()))
        })
    }
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The settings' file.
    File,
    /// The environment's variable of this name.
    Environment(&'static str),
    /// Nobody set it.
    Default,
}

/// Where the value of each of [`KEYS`] comes from, in their order.
///
/// # Errors
/// As [`Settings::load`].
pub fn sources(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(&'static Key, Source)>> {
    let table = read_table(file)?;
    let chosen = chosen(environment)?;
    let source = |key: &'static Key| match chosen.iter().find(|(of, ..)| of.name == key.name) {
        Some((_, variable, _)) => Source::Environment(variable),
        None if table.contains_key(key.name) => Source::File,
        None => Source::Default,
    };
    Ok(KEYS.iter().map(|key| (key, source(key))).collect())
}

/// The name of the key whose value is of the wrong kind: the parser's message
/// does not tell.
fn culprit(table: &toml::Table) -> String {
    let wrong = |(name, value): &(&String, &toml::Value)| {
        let alone = toml::Table::from_iter([((*name).clone(), (*value).clone())]);
        alone.try_into::<Settings>().is_err()
    };
    table.iter().find(wrong).map_or_else(String::new, |(name, _)| format!("`{name}`: "))
}

impl Key {
    /// The value that a text stands for; `given_as` is the variable or the
    /// option that it was given in.
    fn value(&self, given_as: &str, text: &str) -> Result<toml::Value> {
        // The token is a text, so a value that is quoted here is no secret.
        let wrong = |wanted: &str| {
            Failure::Usage.because(format!("{given_as} should be {wanted}, not `{text}`"))
        };
        Ok(match self.kind {
            ValueKind::Text => text.into(),
            ValueKind::Integer => {
                toml::Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?)
            }
            ValueKind::Number => toml::Value::Float(text.parse().map_err(|_| wrong("a number"))?),
            ValueKind::Flag => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" => true.into(),
                "0" | "false" | "no" => false.into(),
                _ => return Err(wrong("true or false")),
            },
        })
    }
}

/// The variables that set something, the preferred name winning over older
/// ones; an empty one counts as not set.
fn chosen(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(&'static Key, &'static str, String)>> {
    let environment: std::collections::BTreeMap<String, String> =
        environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let known = || KEYS.iter().flat_map(|key| key.variables).copied();
    let ours = |name: &&String| name.starts_with("SCALR_AGENT_");
    if let Some(unknown) =
        environment.keys().filter(ours).find(|name| known().all(|known| known != *name))
    {
        let hint = did_you_mean(unknown, known());
        return Err(Failure::Usage.because(format!("unknown variable {unknown}{hint}")));
    }
    Ok(KEYS
        .iter()
        .filter_map(|key| {
            let name = key.variables.iter().find(|name| environment.contains_key(**name))?;
            Some((key, *name, environment[*name].clone()))
        })
        .collect())
}

fn read_table(file: &Path) -> Result<toml::Table> {
    let text = match untrusted_file::read_text(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::NotPermitted
                .because(format!("cannot read {}: {error}; run this as root", file.display())));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    // Not the parser's own display: it quotes the line, which may hold the token.
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        Failure::Usage.because(format!("{} line {line}: {}", file.display(), error.message()))
    })
}

/// A hint with the nearest of the `known` names, to end an error with.
pub fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .max_by(|a, b| {
            strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
        })
        .map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Settings::load(file.path(), environment)
    }

    #[test]
    fn the_environment_takes_precedence_over_the_file() {
        let settings = load(
            "concurrency = 2\nmemory = 256\n",
            &[("SCALR_AGENT_CONCURRENCY", "3"), ("SCALR_TOKEN", "old"), ("HOME", "/")],
        )
        .unwrap();
        assert_eq!(settings.concurrency, Some(3));
        assert_eq!(settings.memory, Some(256));
        assert_eq!(settings.token, Some(Secret::new("old")));
    }

    #[test]
    fn the_page_for_migrants_names_every_setting_and_variable() {
        let page = include_str!("../../docs/migrating.md");
        for key in KEYS {
            for name in key.variables.iter().chain([&key.name]) {
                assert!(page.contains(&format!("`{name}`")), "{name}");
            }
        }
    }

    #[test]
    fn the_preferred_variable_wins() {
        let both = [("SCALR_TOKEN", "old"), ("SCALR_AGENT_TOKEN", "new")];
        assert_eq!(load("", &both).unwrap().token, Some(Secret::new("new")));
    }

    #[test]
    fn an_unknown_name_names_the_nearest() {
        let error = load("concurency = 2", &[]).unwrap_err();
        assert!(
            format!("{error:#}")
                .ends_with("unknown setting `concurency`; did you mean `concurrency`?")
        );
        let error = load("", &[("SCALR_AGENT_NAM", "x")]).unwrap_err();
        assert!(format!("{error:#}").ends_with("did you mean `SCALR_AGENT_NAME`?"));
        assert_eq!(Failure::of(&error), Failure::Usage);
    }

    #[test]
    fn a_broken_file_does_not_show_the_token() {
        let error = load("token = \"hunter2\nurl = 3\n", &[]).unwrap_err();
        assert!(!format!("{error:#}").contains("hunter2"), "{error:#}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused() {
        let error = load("", &[("SCALR_AGENT_CONCURRENCY", "many")]).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "SCALR_AGENT_CONCURRENCY should be a whole number, not `many`"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let settings = Settings {
            url: Some("https://pools.example.com/".parse().unwrap()),
            on_stop: Some(OnStop::Drain),
            cpu: Some(1.5),
            ..Settings::default()
        };
        assert_eq!(load(&settings.to_toml().unwrap(), &[]).unwrap(), settings);
    }

    #[test]
    fn every_key_is_a_setting() {
        for key in KEYS {
            let text = match key.kind {
                ValueKind::Text => match key.name {
                    "url" | "telemetry_url" => "https://pools.example.com",
                    "on_stop" => "drain",
                    "firewall" => "container",
                    "log_format" => "json",
                    _ => "x",
                },
                _ => "1",
            };
            load("", &[(key.variables[0], text)]).expect(key.name);
        }
    }
}

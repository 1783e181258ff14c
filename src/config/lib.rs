//! The agent's settings: `agent.toml`, then the environment's variables.
//!
//! `scalr-agent configure` and `scalr-agent-setup install` write the file, the
//! agent reads it. [`KEYS`] is the one list of what there is: the names in the
//! file, their variables, their kinds and their documentation.

pub mod edit;
pub mod layout;
pub mod listed;
pub mod proxy;
mod valid;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use url::Url;

use cli::Failure;
use protocol::Secret;

pub use valid::{Config, ProviderMirror};

/// Where the settings are.
pub const FILE: &str = "/etc/scalr-agent/agent.toml";

/// The private engine's socket.
pub const ENGINE: &str = "unix:///run/scalr-docker/docker.sock";

/// Where the agent keeps its data.
pub const DATA_DIR: &str = "/var/lib/scalr-agent";

/// A setting's names, kind and documentation.
#[derive(Debug)]
pub struct Key {
    /// In the file.
    pub name: &'static str,
    /// In the environment, the preferred name first.
    pub variables: &'static [&'static str],
    /// How a variable's text is read.
    pub kind: ValueKind,
    /// One sentence for people.
    pub about: &'static str,
}

/// How a variable's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// As it is.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true`, `1`, `yes` or `false`, `0`, `no`.
    Flag,
}

/// Every setting there is. The variables' names are those that users of the
/// vendor's agent know (its public documentation).
pub const KEYS: &[Key] = &[
    Key {
        name: "url",
        variables: &["SCALR_URL"],
        kind: ValueKind::Text,
        about: "The server's address, for example https://pools.example.com",
    },
    Key {
        name: "token",
        variables: &["SCALR_AGENT_TOKEN", "SCALR_TOKEN"],
        kind: ValueKind::Text,
        about: "The pool's token",
    },
    Key {
        name: "agent_name",
        variables: &["SCALR_AGENT_NAME"],
        kind: ValueKind::Text,
        about: "The agent's name in its pool; the host's name if not set",
    },
    Key {
        name: "concurrency",
        variables: &["SCALR_AGENT_CONCURRENCY"],
        kind: ValueKind::Integer,
        about: "How many tasks run at once (1)",
    },
    Key {
        name: "memory",
        variables: &["SCALR_AGENT_CONTAINER_TASK_MEM_LIMIT"],
        kind: ValueKind::Integer,
        about: "Memory of a task's container, in MB (512)",
    },
    Key {
        name: "cpu",
        variables: &["SCALR_AGENT_CONTAINER_TASK_CPU_LIMIT"],
        kind: ValueKind::Number,
        about: "Processors of a task's container (1)",
    },
    Key {
        name: "user",
        variables: &["SCALR_AGENT_CONTAINER_TASK_USER"],
        kind: ValueKind::Text,
        about: "The user inside a task's container: root, a name or UID[:GID]; the agent's own if not set",
    },
    Key {
        name: "writable_root",
        variables: &["SCALR_AGENT_CONTAINER_TASK_WRITABLE_ROOT"],
        kind: ValueKind::Flag,
        about: "Whether a run may change its image's files; if not set, only as the user root",
    },
    Key {
        name: "image",
        variables: &["SCALR_AGENT_CONTAINER_TASK_IMAGE"],
        kind: ValueKind::Text,
        about: "The image for tasks whose workspace and pool have none; {version} stands for the Terraform version",
    },
    Key {
        name: "ca_cert",
        variables: &["SCALR_AGENT_CA_CERT"],
        kind: ValueKind::Text,
        about: "A PEM file of certificate authorities to trust besides the system's",
    },
    Key {
        name: "hooks_dir",
        variables: &["SCALR_AGENT_HOOKS_DIR"],
        kind: ValueKind::Text,
        about: "A folder with the agent's hooks, owned by root: pre-init, pre-plan, post-plan, pre-apply, post-apply",
    },
    Key {
        name: "hook_timeout",
        variables: &["SCALR_AGENT_HOOK_TIMEOUT"],
        kind: ValueKind::Integer,
        about: "How long a hook may take, in seconds (300)",
    },
    Key {
        name: "image_max_age",
        variables: &["SCALR_AGENT_IMAGE_MAX_AGE"],
        kind: ValueKind::Integer,
        about: "How many days after its last use an image that the agent pulled is removed (30)",
    },
    Key {
        name: "image_min_free",
        variables: &["SCALR_AGENT_IMAGE_MIN_FREE"],
        kind: ValueKind::Integer,
        about: "Free space on the engine's disk, in MB, below which such images go earlier (2048)",
    },
    Key {
        name: "provider_cache_limit",
        variables: &["SCALR_AGENT_PROVIDER_CACHE_LIMIT"],
        kind: ValueKind::Integer,
        about: "How much the agent keeps of Terraform's providers, in MB (4096); 0 keeps none",
    },
    Key {
        name: "provider_cache_max_age",
        variables: &["SCALR_AGENT_PROVIDER_CACHE_MAX_AGE"],
        kind: ValueKind::Integer,
        about: "How many days after its last use a provider is removed (30)",
    },
    Key {
        name: "provider_registries",
        variables: &["SCALR_AGENT_PROVIDER_REGISTRIES"],
        kind: ValueKind::Text,
        about: "Hosts of more registries that the agent gets providers from, separated by commas",
    },
    Key {
        name: "provider_mirror",
        variables: &["SCALR_AGENT_PROVIDER_MIRROR"],
        kind: ValueKind::Text,
        about: "Where runs get their providers instead of the registries: https://HOST/PATH/ or a folder on this host",
    },
    Key {
        name: "registry_auth",
        variables: &["SCALR_AGENT_REGISTRY_AUTH"],
        kind: ValueKind::Text,
        about: "A file with the registries' passwords, in the form of Docker's config.json",
    },
    Key {
        name: "data_dir",
        variables: &["SCALR_AGENT_DATA_DIR"],
        kind: ValueKind::Text,
        about: "Where logs and results wait for the server (/var/lib/scalr-agent)",
    },
    Key {
        name: "engine",
        variables: &["SCALR_AGENT_ENGINE"],
        kind: ValueKind::Text,
        about: "The Docker engine's socket (unix:///run/scalr-docker/docker.sock)",
    },
    Key {
        name: "on_stop",
        variables: &["SCALR_AGENT_WORKER_ON_STOP_ACTION"],
        kind: ValueKind::Text,
        about: "What a stop does with running tasks: interrupt (or grace-shutdown), or drain",
    },
    Key {
        name: "grace_shutdown_timeout",
        variables: &["SCALR_AGENT_WORKER_GRACE_SHUTDOWN_TIMEOUT"],
        kind: ValueKind::Integer,
        about: "How long an interrupted task may take to end before it is terminated, in seconds (60)",
    },
    Key {
        name: "drain_timeout",
        variables: &["SCALR_AGENT_WORKER_DRAIN_TIMEOUT"],
        kind: ValueKind::Integer,
        about: "How long a drain waits before it interrupts, in seconds (3600)",
    },
    Key {
        name: "log_limit",
        variables: &["SCALR_AGENT_LOG_LIMIT"],
        kind: ValueKind::Integer,
        about: "The longest log of a run's plan or apply, in MB (256); of a longer one the middle is left out",
    },
    Key {
        name: "log_format",
        variables: &["SCALR_AGENT_LOG_FORMAT"],
        kind: ValueKind::Text,
        about: "plain or json",
    },
    Key {
        name: "telemetry_url",
        variables: &["SCALR_AGENT_TELEMETRY_URL"],
        kind: ValueKind::Text,
        about: "An OpenTelemetry collector (OTLP over HTTP), for example http://collector:4318",
    },
    Key {
        name: "telemetry_headers",
        variables: &["SCALR_AGENT_TELEMETRY_HEADERS"],
        kind: ValueKind::Text,
        about: "A file with headers for the collector, such as its password, each a line `Name: value`",
    },
    Key {
        name: "debug",
        variables: &["SCALR_AGENT_DEBUG"],
        kind: ValueKind::Flag,
        about: "Log more",
    },
];

/// The settings as written down: every one may be missing. [`KEYS`] says what
/// each is.
#[allow(missing_docs)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
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
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable_root: Option<bool>,
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

/// What a stop does with running tasks.
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
        Self::from_table(table(file)?).with_context(|| format!("cannot use {}", file.display()))
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
        let mut table = table(file)?;
        Self::from_table(table.clone())
            .with_context(|| format!("cannot use {}", file.display()))?;
        for (key, variable, text) in chosen(environment)? {
            table.insert(key.name.to_owned(), key.value(variable, &text)?);
        }
        Self::from_table(table).context("cannot use the environment's variables")
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
    let table = table(file)?;
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
    /// The key of this name in the file.
    pub fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its option on a command line, without the dashes: `agent-name`.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }

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

fn table(file: &Path) -> Result<toml::Table> {
    let text = match std::fs::read_to_string(file) {
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
    fn the_environment_goes_before_the_file() {
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
                    "log_format" => "json",
                    _ => "x",
                },
                _ => "1",
            };
            load("", &[(key.variables[0], text)]).expect(key.name);
        }
    }
}

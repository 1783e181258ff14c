//! The one list of the agent's settings: name, variables, kind, default, check
//! and documentation of each in one place.

use super::{Settings, checks, data_dir, defaults, layout};
use protocol::limits::MAX_TASKS;

/// A setting: all that is known of it besides its type, which is its field's in
/// [`Settings`].
#[derive(Debug)]
pub struct Key {
    /// In the file.
    pub name: &'static str,
    /// In the environment, the preferred name first.
    pub variables: &'static [&'static str],
    /// How a variable's text is read.
    pub kind: ValueKind,
    /// What stands for its value in a usage line: its unit, where it has one.
    pub value_name: &'static str,
    /// The default; none: the documentation describes it.
    pub default: Option<DefaultValue>,
    /// Checks its value, if it is set.
    pub(crate) check: fn(&Settings) -> Result<(), String>,
    /// One sentence for people, without the default.
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

/// A setting's default.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum DefaultValue {
    Text(&'static str),
    Integer(u64),
    Number(f64),
    Flag(bool),
}

use DefaultValue::{Flag, Integer, Number, Text};

/// Every setting there is. The variables' names are those that users of the
/// vendor's agent know (its public documentation).
pub const KEYS: &[Key] = &[
    Key {
        name: "url",
        variables: &["SCALR_URL"],
        kind: ValueKind::Text,
        value_name: "URL",
        default: None,
        check: |set| checks::each(&set.url, checks::url),
        about: "The server's address, for example https://pools.example.com",
    },
    Key {
        name: "token",
        variables: &["SCALR_AGENT_TOKEN", "SCALR_TOKEN"],
        kind: ValueKind::Text,
        value_name: "TOKEN",
        default: None,
        check: |set| checks::each(&set.token, checks::token),
        about: "The pool's token",
    },
    Key {
        name: "agent_name",
        variables: &["SCALR_AGENT_NAME"],
        kind: ValueKind::Text,
        value_name: "NAME",
        default: None,
        check: |set| checks::each(&set.agent_name, |name| checks::printable(name, 255)),
        about: "The agent's name in its pool; the host's name if not set",
    },
    Key {
        name: "concurrency",
        variables: &["SCALR_AGENT_CONCURRENCY"],
        kind: ValueKind::Integer,
        value_name: "N",
        default: Some(Integer(defaults::CONCURRENCY as u64)),
        check: |set| checks::each(&set.concurrency, |n| checks::within(*n, 1, MAX_TASKS)),
        about: "How many tasks run at the same time",
    },
    Key {
        name: "memory",
        variables: &["SCALR_AGENT_CONTAINER_TASK_MEM_LIMIT"],
        kind: ValueKind::Integer,
        value_name: "MB",
        default: Some(Integer(defaults::MEMORY)),
        check: |set| checks::each(&set.memory, |mb| checks::within(*mb, 32, 1_048_576)),
        about: "Memory of a task's container, in MB",
    },
    Key {
        name: "cpu",
        variables: &["SCALR_AGENT_CONTAINER_TASK_CPU_LIMIT"],
        kind: ValueKind::Number,
        value_name: "N",
        default: Some(Number(defaults::CPU)),
        check: |set| checks::each(&set.cpu, |cpus| checks::within(*cpus, 0.1, 1_024.0)),
        about: "Processors of a task's container",
    },
    Key {
        name: "disk",
        variables: &["SCALR_AGENT_CONTAINER_TASK_DISK_LIMIT"],
        kind: ValueKind::Integer,
        value_name: "MB",
        default: Some(Integer(defaults::DISK)),
        check: |set| checks::each(&set.disk, |mb| checks::within(*mb, 64, 104_857_600)),
        about: "How much a run may have on the engine's disk, in MB; one with more is interrupted",
    },
    Key {
        name: "user",
        variables: &["SCALR_AGENT_CONTAINER_TASK_USER"],
        kind: ValueKind::Text,
        value_name: "USER",
        default: None,
        check: |set| checks::each(&set.user, |name| checks::user(name)),
        about: "The user inside a task's container: root, a name or UID[:GID]; if not set, scalr-run, or the agent's own where that is missing",
    },
    Key {
        name: "writable_root",
        variables: &["SCALR_AGENT_CONTAINER_TASK_WRITABLE_ROOT"],
        kind: ValueKind::Flag,
        value_name: "true|false",
        default: None,
        check: |_| Ok(()),
        about: "Whether a run may change its image's files; if not set, only as the user root",
    },
    Key {
        name: "image",
        variables: &["SCALR_AGENT_CONTAINER_TASK_IMAGE"],
        kind: ValueKind::Text,
        value_name: "IMAGE",
        default: Some(Text(defaults::IMAGE)),
        check: |set| checks::each(&set.image, |name| checks::image(name)),
        about: "The image for tasks whose workspace and pool have none; {version} stands for the Terraform version",
    },
    Key {
        name: "ca_cert",
        variables: &["SCALR_AGENT_CA_CERT"],
        kind: ValueKind::Text,
        value_name: "FILE",
        default: None,
        check: |set| checks::each(&set.ca_cert, |file| checks::certificates(file)),
        about: "A PEM file of certificate authorities to trust besides the system's",
    },
    Key {
        name: "hooks_dir",
        variables: &["SCALR_AGENT_HOOKS_DIR"],
        kind: ValueKind::Text,
        value_name: "DIR",
        default: None,
        check: |set| checks::each(&set.hooks_dir, |path| checks::absolute(path)),
        about: "A folder with the agent's hooks, owned by root: pre-init, pre-plan, post-plan, pre-apply, post-apply",
    },
    Key {
        name: "hook_timeout",
        variables: &["SCALR_AGENT_HOOK_TIMEOUT"],
        kind: ValueKind::Integer,
        value_name: "SECONDS",
        default: Some(Integer(defaults::HOOK_TIMEOUT)),
        check: |set| checks::each(&set.hook_timeout, |s| checks::within(*s, 1, 86_400)),
        about: "How long a hook may take, in seconds",
    },
    Key {
        name: "image_max_age",
        variables: &["SCALR_AGENT_IMAGE_MAX_AGE"],
        kind: ValueKind::Integer,
        value_name: "DAYS",
        default: Some(Integer(defaults::IMAGE_MAX_AGE)),
        check: |set| checks::each(&set.image_max_age, |days| checks::within(*days, 1, 3_650)),
        about: "How many days after its last use an image that the agent pulled is removed",
    },
    Key {
        name: "image_min_free",
        variables: &["SCALR_AGENT_IMAGE_MIN_FREE"],
        kind: ValueKind::Integer,
        value_name: "MB",
        default: Some(Integer(defaults::IMAGE_MIN_FREE)),
        check: |set| checks::each(&set.image_min_free, |mb| checks::within(*mb, 0, 1_048_576)),
        about: "Free space on the engine's disk, in MB, below which such images are removed earlier",
    },
    Key {
        name: "provider_cache_limit",
        variables: &["SCALR_AGENT_PROVIDER_CACHE_LIMIT"],
        kind: ValueKind::Integer,
        value_name: "MB",
        default: Some(Integer(defaults::PROVIDER_CACHE_LIMIT)),
        check: |set| {
            checks::each(&set.provider_cache_limit, |mb| checks::within(*mb, 0, 1_048_576))
        },
        about: "How much of Terraform's providers the agent keeps, in MB; 0 keeps none",
    },
    Key {
        name: "provider_cache_max_age",
        variables: &["SCALR_AGENT_PROVIDER_CACHE_MAX_AGE"],
        kind: ValueKind::Integer,
        value_name: "DAYS",
        default: Some(Integer(defaults::PROVIDER_CACHE_MAX_AGE)),
        check: |set| {
            checks::each(&set.provider_cache_max_age, |days| checks::within(*days, 1, 3_650))
        },
        about: "How many days after its last use a provider is removed",
    },
    Key {
        name: "provider_registries",
        variables: &["SCALR_AGENT_PROVIDER_REGISTRIES"],
        kind: ValueKind::Text,
        value_name: "HOSTS",
        default: None,
        check: |set| checks::each(&set.provider_registries, |hosts| checks::registries(hosts)),
        about: "Hosts of more registries that the agent gets providers from, separated by commas",
    },
    Key {
        name: "provider_mirror",
        variables: &["SCALR_AGENT_PROVIDER_MIRROR"],
        kind: ValueKind::Text,
        value_name: "URL|DIR",
        default: None,
        check: |set| checks::each(&set.provider_mirror, |text| checks::mirror(text).map(drop)),
        about: "Where runs get their providers instead of the registries: https://HOST/PATH/ or a folder on this host",
    },
    Key {
        name: "registry_auth",
        variables: &["SCALR_AGENT_REGISTRY_AUTH"],
        kind: ValueKind::Text,
        value_name: "FILE",
        default: None,
        check: |set| checks::each(&set.registry_auth, |path| checks::absolute(path)),
        about: "A file with the registries' passwords, in the form of Docker's config.json",
    },
    Key {
        name: "data_dir",
        variables: &["SCALR_AGENT_DATA_DIR"],
        kind: ValueKind::Text,
        value_name: "DIR",
        default: Some(Text(layout::DATA_DIR)),
        check: |set| checks::each(&set.data_dir, |path| data_dir::check(path)),
        about: "Where logs and results wait for the server",
    },
    Key {
        name: "engine",
        variables: &["SCALR_AGENT_ENGINE"],
        kind: ValueKind::Text,
        value_name: "SOCKET",
        default: Some(Text(layout::ENGINE_SOCKET)),
        check: |set| checks::each(&set.engine, |address| checks::socket(address)),
        about: "The Docker engine's socket",
    },
    Key {
        name: "firewall",
        variables: &["SCALR_AGENT_FIREWALL"],
        kind: ValueKind::Text,
        value_name: "HOW",
        default: Some(Text("service")),
        check: |_| Ok(()),
        about: "How the firewall rules of runs are verified: by the service scalr-agent-network, by a container, or none: then runs reach what this host reaches",
    },
    Key {
        name: "prepare_ahead",
        variables: &["SCALR_AGENT_PREPARE_AHEAD"],
        kind: ValueKind::Flag,
        value_name: "true|false",
        default: Some(Flag(true)),
        check: |_| Ok(()),
        about: "Whether a slot that has had a run starts the next run's container ahead, for up to 10 minutes",
    },
    Key {
        name: "on_stop",
        variables: &["SCALR_AGENT_WORKER_ON_STOP_ACTION"],
        kind: ValueKind::Text,
        value_name: "ACTION",
        default: Some(Text("interrupt")),
        check: |_| Ok(()),
        about: "What a stop does with running tasks: interrupt (or grace-shutdown), or drain",
    },
    Key {
        name: "grace_shutdown_timeout",
        variables: &["SCALR_AGENT_WORKER_GRACE_SHUTDOWN_TIMEOUT"],
        kind: ValueKind::Integer,
        value_name: "SECONDS",
        default: Some(Integer(defaults::GRACE_SHUTDOWN_TIMEOUT)),
        check: |set| checks::each(&set.grace_shutdown_timeout, |s| checks::within(*s, 1, 86_400)),
        about: "How long an interrupted task may take to end before it is terminated, in seconds",
    },
    Key {
        name: "drain_timeout",
        variables: &["SCALR_AGENT_WORKER_DRAIN_TIMEOUT"],
        kind: ValueKind::Integer,
        value_name: "SECONDS",
        default: Some(Integer(defaults::DRAIN_TIMEOUT)),
        check: |set| checks::each(&set.drain_timeout, |s| checks::within(*s, 1, 604_800)),
        about: "How long a drain waits before it interrupts, in seconds",
    },
    Key {
        name: "log_limit",
        variables: &["SCALR_AGENT_LOG_LIMIT"],
        kind: ValueKind::Integer,
        value_name: "MB",
        default: Some(Integer(defaults::LOG_LIMIT)),
        check: |set| checks::each(&set.log_limit, |mb| checks::within(*mb, 1, 102_400)),
        about: "The longest log of a run's plan or apply, in MB; a longer one loses its middle",
    },
    Key {
        name: "log_format",
        variables: &["SCALR_AGENT_LOG_FORMAT"],
        kind: ValueKind::Text,
        value_name: "FORMAT",
        default: Some(Text("plain")),
        check: |_| Ok(()),
        about: "How the agent's own log looks: plain or json",
    },
    Key {
        name: "telemetry_url",
        variables: &["SCALR_AGENT_TELEMETRY_URL"],
        kind: ValueKind::Text,
        value_name: "URL",
        default: None,
        check: |set| {
            checks::each(&set.telemetry_url, |url| {
                checks::collector(url, set.telemetry_headers.is_some())
            })
        },
        about: "An OpenTelemetry collector (OTLP over HTTP), for example http://collector:4318",
    },
    Key {
        name: "telemetry_headers",
        variables: &["SCALR_AGENT_TELEMETRY_HEADERS"],
        kind: ValueKind::Text,
        value_name: "FILE",
        default: None,
        check: |set| checks::each(&set.telemetry_headers, |path| checks::absolute(path)),
        about: "A file with headers for the collector, such as its password, each a line `Name: value`",
    },
    Key {
        name: "debug",
        variables: &["SCALR_AGENT_DEBUG"],
        kind: ValueKind::Flag,
        value_name: "true|false",
        default: Some(Flag(false)),
        check: |_| Ok(()),
        about: "Log more",
    },
];

impl Key {
    /// The key of this name in the file.
    pub fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its option on a command line, without the dashes: `agent-name`.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What `--help` says of it: its documentation and its default.
    pub fn help(&self) -> String {
        match &self.default {
            Some(default) => format!("{} [default: {}]", self.about, default.text()),
            None => self.about.to_owned(),
        }
    }
}

impl DefaultValue {
    /// As people write it.
    pub fn text(&self) -> String {
        match self {
            Text(text) => (*text).to_owned(),
            Integer(number) => number.to_string(),
            Number(number) => number.to_string(),
            Flag(flag) => flag.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn a_default_in_the_table_is_what_an_agent_runs_with() {
        let url = Some("https://pools.example.com".parse().unwrap());
        let least = Settings { url, token: Some(Secret::new("t")), ..Settings::default() };
        let mut table = toml::Table::new();
        for key in KEYS {
            if let Some(default) = &key.default {
                table.insert(key.name.to_owned(), key.value(key.name, &default.text()).unwrap());
            }
        }
        let all = Settings {
            url: least.url.clone(),
            token: least.token.clone(),
            ..Settings::from_table(table).unwrap()
        };
        let (unset, set) = (least.resolve().unwrap(), all.resolve().unwrap());
        assert_eq!(format!("{unset:?}"), format!("{set:?}"));
    }
}

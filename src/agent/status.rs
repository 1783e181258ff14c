//! `scalr-agent status`: the settings and where each comes from, the service,
//! the engine and the proxy.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::engine::Engine;
use super::proxy;
use crate::config::proxy::masked;
use crate::config::{self, ENGINE, Settings, Source};
use crate::exit::Failure;
use crate::host::machine::Machine;
use crate::host::systemd::Services;
use crate::secret::Secret;

/// Show the settings, the service, the engine and the proxy
///
/// It changes nothing. Something that is down does not make it fail; settings
/// that the agent cannot start with do (exit code 2).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  scalr-agent status
  scalr-agent status --format json
  journalctl -xe -u scalr-agent (what the service said)";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints how the agent is.
///
/// # Errors
/// The settings can't be used; the exit code is the one that the agent would end
/// with.
pub fn run(file: &Path, args: &Args) -> Result<()> {
    let (status, unusable) = look(file)?;
    let text = match args.format {
        Format::Text => status.to_text(),
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the status")?;
    unusable.map_or(Ok(()), |failure| Err(failure.into()))
}

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent's unit.
const UNIT: &str = "scalr-agent.service";

#[derive(Debug, Serialize)]
struct Status {
    config_file: String,
    /// In the order of [`config::KEYS`]; empty if they can't be read.
    settings: Vec<Setting>,
    /// Why the agent can't start with the settings.
    problem: Option<String>,
    service: Option<Service>,
    engine: EngineStatus,
    /// Variables and values, passwords masked.
    proxy: serde_json::Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    /// The token is masked; null: not set, and there is no default.
    value: Value,
    source: Source,
}

#[derive(Debug, Serialize)]
struct Service {
    unit: &'static str,
    /// systemd's `LoadState`.
    load: String,
    /// systemd's `ActiveState`.
    active: String,
}

#[derive(Debug, Serialize)]
struct EngineStatus {
    socket: String,
    answers: bool,
    problem: Option<String>,
}

fn look(file: &Path) -> Result<(Status, Option<Failure>)> {
    let read = || -> Result<_> {
        let settings = Settings::load(file, environment())?;
        Ok((listed(file, &settings)?, settings))
    };
    let mut socket = ENGINE.to_owned();
    let (settings, problem) = match read() {
        Ok((listed, settings)) => {
            if let Some(engine) = &settings.engine {
                socket.clone_from(engine);
            }
            (listed, settings.resolve().err())
        }
        Err(error) => (Vec::new(), Some(error)),
    };
    let service = Services::of(&Machine::at("/")).state(UNIT);
    let status = Status {
        config_file: file.display().to_string(),
        settings,
        problem: problem.as_ref().map(|error| format!("{error:#}")),
        service: service.map(|state| Service {
            unit: UNIT,
            load: state.load,
            active: state.active,
        }),
        engine: engine(socket)?,
        proxy: proxy::variables()
            .into_iter()
            .map(|(name, value)| (name, masked(&value).into()))
            .collect(),
    };
    Ok((status, problem.as_ref().map(Failure::of)))
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn listed(file: &Path, settings: &Settings) -> Result<Vec<Setting>> {
    let set = serde_json::to_value(shown(settings.clone()))?;
    let defaults = serde_json::to_value(defaults()?)?;
    let sources = config::sources(file, environment())?;
    Ok(sources
        .into_iter()
        .map(|(key, source)| {
            let value = set.get(key.name).or_else(|| defaults.get(key.name));
            Setting { name: key.name, value: value.cloned().unwrap_or_default(), source }
        })
        .collect())
}

/// The settings without what nobody should read.
fn shown(mut settings: Settings) -> Settings {
    settings.token = settings.token.map(|_| Secret::new("***"));
    if let Some(url) = &settings.url {
        settings.url = masked(url.as_str()).parse().ok();
    }
    settings
}

/// What holds for settings that nobody set.
fn defaults() -> Result<Settings> {
    let least = Settings {
        url: Some("https://pools.example.com".parse()?),
        token: Some(Secret::new("t")),
        ..Settings::default()
    };
    let config = least.resolve()?;
    Ok(Settings {
        concurrency: Some(config.concurrency),
        memory: Some(config.memory),
        cpu: Some(config.cpu),
        data_dir: Some(config.data_dir),
        engine: Some(format!("unix://{}", config.engine.display())),
        on_stop: Some(config.on_stop),
        grace_shutdown_timeout: Some(config.grace.as_secs()),
        drain_timeout: Some(config.drain.as_secs()),
        log_format: Some(config.log_format),
        debug: Some(config.debug),
        ..Settings::default()
    })
}

fn engine(socket: String) -> Result<EngineStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, Engine::connect(&socket)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => bail!("no answer within {} s", PATIENCE.as_secs()),
        }
    });
    let problem = answer.err().map(|error| format!("{error:#}"));
    Ok(EngineStatus { socket, answers: problem.is_none(), problem })
}

impl Status {
    fn to_text(&self) -> String {
        let mut text = format!("Settings  {}\n", self.config_file);
        for Setting { name, value, source } in &self.settings {
            let value = match value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let source = match source {
                Source::File => "file",
                Source::Environment(variable) => variable,
                Source::Default => "default",
            };
            line(&mut text, &format!("  {name:NAME_WIDTH$}  {value:VALUE_WIDTH$}  {source}"));
        }
        let usable = match &self.problem {
            None => "usable".to_owned(),
            Some(problem) => format!("not usable: {problem}"),
        };
        line(&mut text, &format!("          {usable}"));
        let service = match &self.service {
            None => "unknown: systemd does not run here".to_owned(),
            Some(service) if service.load != "loaded" => {
                format!("{} is {}", service.unit, service.load)
            }
            Some(service) => format!("{} is {}", service.unit, service.active),
        };
        line(&mut text, &format!("Service   {service}"));
        let engine = match &self.engine.problem {
            None => format!("answers at {}", self.engine.socket),
            Some(problem) => format!("does not answer: {problem}"),
        };
        line(&mut text, &format!("Engine    {engine}"));
        // Each is there in both cases; people need one.
        let mut proxy: Vec<String> = self
            .proxy
            .iter()
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        if proxy.is_empty() {
            proxy.push("none".to_owned());
        }
        line(&mut text, &format!("Proxy     {}", proxy.join("\n          ")));
        text
    }
}

/// How wide the longest setting's name is, and how wide values mostly are.
const NAME_WIDTH: usize = 22;
const VALUE_WIDTH: usize = 36;

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("a text takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn names_fit() {
        let longest = KEYS.iter().map(|key| key.name.len()).max();
        assert_eq!(longest, Some(NAME_WIDTH));
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = Settings {
            url: Some("https://me:hunter2@pools.example.com".parse().unwrap()),
            token: Some(Secret::new("hunter2")),
            ..Settings::default()
        };
        let text = serde_json::to_string(&shown(settings)).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn each_setting_with_a_default_shows_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let listed = listed(file.path(), &Settings::default()).unwrap();
        let without: Vec<&str> =
            listed.iter().filter(|one| one.value.is_null()).map(|one| one.name).collect();
        assert_eq!(without, ["url", "token", "agent_name", "user", "image", "ca_cert"]);
    }
}

//! `status`: what is installed, what runs, and how it is set up.

mod text;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::context::{Context, RECORDS};
use crate::document;
use crate::fixes::{Fixes, ListedFix};
use crate::output::Format;
use crate::secrets::Secrets;
use cli::{Failure, untrusted_file};
use config::layout;
use config::layout::AGENT_DROP_INS;
use config::layout::PROXY_SECRETS;
use config::listed::{Listed, listed};
use config::proxy::{is_variable, masked_value};
use config::{ENGINE, Settings, Source};
use host::changes;
use host::command::{CommandExt as _, within};
use host::machine::Machine;
use host::os::{Family, Os};
use host::systemd::{Services, UnitState};
use host::unit::{self, Given};
use host::{docker, dpkg, journal, rpm};

/// Our units, in the order in which people look at them.
pub(crate) const UNITS: [&str; 4] =
    ["scalr-agent", layout::NETWORK_UNIT, "scalr-docker", "scalr-containerd"];

/// The agent's program, which alone knows how it stands with its server.
pub(crate) const AGENT_PROGRAM: &str = "/usr/bin/scalr-agent";

/// How long the agent's program may take, in seconds; it waits 5 s for the
/// engine.
const PATIENCE: u32 = 15;

/// How many of the journal's last lines are looked through, and how many of
/// those that warn are shown.
const JOURNAL_LINES: usize = 1000;
const SHOWN_WARNINGS: usize = 5;

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup status
  sudo scalr-agent-setup status --format json

Exit codes: 0 the agent runs, 1 it does not. A directory tree always is 0.

The JSON is one object. In each part, problem is null, or the reason why
something is unavailable:
  schema      1; an incompatible change raises it
  setup       the version of scalr-agent-setup
  host        the operating system's name, id and version, or null
  packages    a list of name, version (null: not installed) and problem
  units       a list of name, state (active, failed, not-found, …), sub, result,
              since, pid (the last three or four null where it does not run)
              and enabled
  engine      socket, bundled (whether it is the package's), version, problem
  server      url, state (idle, busy, draining, errored, away, refused,
              deregistered), agent_id, pool_id, message, answered_at,
              answered_seconds_ago: as the agent last knew them; problem
  tasks       slots, running (a list of slot, task, attempt, kind, run,
              workspace, environment, container and, as in `scalr-agent status`,
              its phase), free_slots, reported_seconds_ago and problem
  proxy       variables (without passwords), files that set them, problem
  settings    file, values (a list of name, value, source (file, environment or
              default), variable and file; the token is masked), problem
  warnings    the last of the units' journal: entries (a list of time, unit,
              priority as in syslog, message) and problem
  fixes       made (a list of check, command, failed, files, packages, undo: what
              `check --fix` changed and what undoes it) and problem
  interrupted whether a scalr-agent-setup was killed half-way; `scalr-agent-setup
              recover` undoes what it did";

/// Show the installed packages, the services and their settings
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs `status`.
///
/// # Errors
/// The agent does not run.
pub(crate) fn run(context: &Context, _: &Args) -> Result<()> {
    let status = Status::of(&context.machine);
    match context.format {
        Format::Json => document::write(&serde_json::to_string_pretty(&status)?)?,
        Format::Text => status.print(),
    }
    if status.agent_runs() || !context.machine.is_this_one() {
        Ok(())
    } else {
        Err(Failure::Failed.into())
    }
}

/// What `status --format json` prints; the command's help describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    schema: u32,
    setup: &'static str,
    host: Option<Host>,
    packages: Vec<Package>,
    units: Vec<Unit>,
    engine: Engine,
    server: Value,
    tasks: Value,
    proxy: Proxy,
    settings: ListedSettings,
    warnings: Warnings,
    fixes: FixesMade,
    interrupted: bool,
}

#[derive(Debug, Serialize)]
struct Host {
    name: String,
    id: String,
    version: String,
}

#[derive(Debug, Serialize)]
struct Package {
    name: &'static str,
    version: Option<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct FixesMade {
    made: Vec<ListedFix>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Unit {
    name: &'static str,
    state: String,
    sub: Option<String>,
    result: Option<String>,
    since: Option<String>,
    pid: Option<u32>,
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct Engine {
    socket: String,
    bundled: bool,
    version: Option<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Proxy {
    variables: BTreeMap<String, String>,
    files: Vec<PathBuf>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct ListedSettings {
    file: &'static str,
    values: Vec<Setting>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    value: Value,
    source: &'static str,
    /// The variable that sets it.
    variable: Option<&'static str>,
    /// The file that sets it, or the variable.
    file: Option<PathBuf>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct Warnings {
    entries: Vec<Warning>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Warning {
    time: String,
    unit: String,
    priority: u8,
    message: String,
}

impl Status {
    /// Whether the agent's unit is up.
    fn agent_runs(&self) -> bool {
        self.units.iter().any(|unit| unit.name == UNITS[0] && unit.state == "active")
    }

    /// Looks at the machine. A part that can't be read says why.
    pub(crate) fn of(machine: &Machine) -> Self {
        let secrets = Secrets::of(machine);
        let os = Os::of(machine).ok();
        let family = os.as_ref().map_or(Family::Other, |os| os.family);
        let (environment, proxy) = match unit::environment(machine, AGENT_DROP_INS) {
            Ok(environment) => {
                let proxy = Proxy::of(&environment, hidden_proxy(machine));
                (environment, proxy)
            }
            Err(error) => {
                (BTreeMap::new(), Proxy::of(&BTreeMap::new(), Some(format!("{error:#}"))))
            }
        };
        let settings = ListedSettings::of(machine, &environment);
        let socket = settings.text("engine").unwrap_or(ENGINE).to_owned();
        let (server, tasks) = match ask_agent(machine, &environment) {
            Ok(answer) => answer,
            Err(error) => (problem(&error, &secrets), problem(&error, &secrets)),
        };
        let services = Services::of(machine);
        let mut status = Self {
            schema: 1,
            setup: env!("CARGO_PKG_VERSION"),
            host: os.map(|os| Host { name: os.name, id: os.id, version: os.version }),
            packages: packages(machine, family),
            units: UNITS.map(|name| Unit::of(services, name)).into(),
            engine: Engine::of(machine, socket),
            server,
            tasks,
            proxy,
            warnings: Warnings::of(machine, &secrets),
            fixes: FixesMade::on(machine),
            interrupted: changes::is_interrupted(machine, &RECORDS),
            settings,
        };
        status.server["url"] = status.settings.value("url").cloned().unwrap_or_default();
        status
    }
}

/// How the agent stands with its server, and the tasks it has.
fn ask_agent(machine: &Machine, environment: &BTreeMap<String, Given>) -> Result<(Value, Value)> {
    if !machine.is_this_one() {
        bail!("a directory tree does not run");
    }
    if !Path::new(AGENT_PROGRAM).exists() {
        bail!("scalr-agent is not installed");
    }
    let mut command = within(PATIENCE, AGENT_PROGRAM);
    command.args(["status", "--format", "json"]);
    // As its unit has it, so that it looks where the service does.
    command.envs(environment.iter().map(|(name, given)| (name, &given.value)));
    // It fails where its settings can't be used, and tells the rest all the same.
    let output = command.probe()?;
    let mut said: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("`{}` does not tell ({}): {}", command.line(), output.status, said.trim())
    })?;
    let (server, tasks) = (said["server"].take(), said["tasks"].take());
    if server.is_null() || tasks.is_null() {
        bail!("this version of scalr-agent does not tell");
    }
    Ok((server, tasks))
}

/// When the server last answered the agent; `None` if it never did or the agent does not
/// say.
pub(crate) fn server_answered_at(
    machine: &Machine,
    environment: &BTreeMap<String, Given>,
) -> Option<String> {
    let (server, _) = ask_agent(machine, environment).ok()?;
    server["answered_at"].as_str().map(str::to_owned)
}

fn problem(error: &anyhow::Error, secrets: &Secrets) -> Value {
    serde_json::json!({ "problem": secrets.mask(&format!("{error:#}")) })
}

fn packages(machine: &Machine, family: Family) -> Vec<Package> {
    let names: &[&'static str] = match family {
        // The rpm needs it where there is SELinux.
        Family::RedHat => &[layout::AGENT, "container-selinux"],
        _ => &[layout::AGENT],
    };
    let installed = |name: &str| -> Result<Option<String>> {
        if !machine.is_this_one() {
            bail!("a directory tree's packages are not looked at");
        }
        match family {
            Family::Debian => dpkg::installed(name),
            _ => rpm::installed(name),
        }
    };
    let package = |name: &&'static str| {
        let (version, problem) = value_and_problem(installed(name));
        Package { name, version: version.flatten(), problem }
    };
    names.iter().map(package).collect()
}

impl FixesMade {
    fn on(machine: &Machine) -> Self {
        let (made, problem) = value_and_problem(Fixes::on(machine).map(Fixes::listed));
        Self { made: made.unwrap_or_default(), problem }
    }
}

impl Unit {
    fn of(services: Services, name: &'static str) -> Self {
        let UnitState { load, active, sub, result, since, pid, .. } =
            services.state(name).unwrap_or_default();
        let state = match load.as_str() {
            "" => "unknown: no systemd runs here".to_owned(),
            "loaded" => active,
            _ => load,
        };
        let runs = ["active", "reloading"].contains(&state.as_str());
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            name,
            state,
            sub: given(sub),
            result: given(result),
            since: given(since).filter(|_| runs),
            pid: Some(pid).filter(|pid| *pid != 0),
            enabled: services.is_enabled(name),
        }
    }
}

impl Engine {
    fn of(machine: &Machine, socket: String) -> Self {
        let bundled = socket == ENGINE;
        let (version, problem) = value_and_problem(engine_version(machine, &socket));
        Self { socket, bundled, version, problem }
    }
}

fn engine_version(machine: &Machine, socket: &str) -> Result<String> {
    if !machine.is_this_one() {
        bail!("a directory tree does not run");
    }
    let path = Path::new(socket.trim_start_matches("unix://"));
    match nix::unistd::access(path, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => {}
        Err(nix::errno::Errno::ENOENT) => bail!("nothing listens there"),
        Err(nix::errno::Errno::EACCES) => bail!("only root and its group may ask it"),
        Err(error) => bail!("{error}"),
    }
    Ok(docker::engine_version(&docker_client()?, socket)?)
}

/// The package's own client, else the host's.
///
/// # Errors
/// There is neither.
pub(crate) fn docker_client() -> Result<PathBuf> {
    let bundled = Path::new(layout::ENGINE_PROGRAMS).join("docker");
    if bundled.exists() {
        return Ok(bundled);
    }
    which::which("docker").context("there is no docker command here")
}

impl Proxy {
    fn of(environment: &BTreeMap<String, Given>, problem: Option<String>) -> Self {
        let given = || environment.iter().filter(|(name, _)| is_variable(name));
        let mut files: Vec<PathBuf> = given().map(|(_, given)| given.file.clone()).collect();
        files.sort();
        files.dedup();
        let variables =
            given().map(|(name, given)| (name.clone(), masked_value(&given.value))).collect();
        Self { variables, files, problem }
    }
}

/// Why we can't tell the proxy: its file is there, and not for us to read.
fn hidden_proxy(machine: &Machine) -> Option<String> {
    let error = untrusted_file::read_text(machine.path(PROXY_SECRETS)).err()?;
    (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| format!("only root may read {PROXY_SECRETS}, which sets it"))
}

impl ListedSettings {
    fn of(machine: &Machine, environment: &BTreeMap<String, Given>) -> Self {
        let variables: Vec<(String, String)> =
            environment.iter().map(|(name, given)| (name.clone(), given.value.clone())).collect();
        let file = machine.path(config::FILE);
        let setting = |listed: Listed| {
            let text = listed.text();
            let (source, variable, file) = match listed.source {
                Source::File => ("file", None, Some(config::FILE.into())),
                Source::Environment(variable) => {
                    let given = environment.get(variable).map(|given| given.file.clone());
                    ("environment", Some(variable), given)
                }
                Source::Default => ("default", None, None),
            };
            Setting { name: listed.name, value: listed.value, source, variable, file, text }
        };
        let usable = || {
            let mut settings = Settings::load(&file, variables.clone())?;
            settings.ca_cert = settings.ca_cert.map(|file| machine.path(file));
            settings.resolve()
        };
        let (values, problem) = match listed(&file, variables.clone()) {
            Ok(all) => {
                let values = all.into_iter().map(setting).collect();
                (values, usable().err().map(|error| format!("{error:#}")))
            }
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        Self { file: config::FILE, values, problem }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|setting| setting.name == name).map(|setting| &setting.value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(Value::as_str)
    }
}

impl Warnings {
    fn of(machine: &Machine, secrets: &Secrets) -> Self {
        if !machine.is_this_one() {
            let problem = Some("a directory tree's journal is not looked at".to_owned());
            return Self { entries: Vec::new(), problem };
        }
        let (entries, problem) = value_and_problem(journal::entries(&UNITS, JOURNAL_LINES));
        let mut entries: Vec<Warning> = entries
            .unwrap_or_default()
            .into_iter()
            .filter(journal::Entry::warns)
            .map(|entry| Warning {
                time: entry.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                unit: entry.unit.trim_end_matches(".service").to_owned(),
                priority: entry.priority,
                message: secrets.mask(&entry.message),
            })
            .collect();
        entries.drain(..entries.len().saturating_sub(SHOWN_WARNINGS));
        Self { entries, problem }
    }
}

/// A value, or why it is missing.
fn value_and_problem<T>(result: Result<T>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    }
}

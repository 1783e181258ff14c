//! `scalr-agent status`: the settings and where each comes from, the service,
//! how it stands with its server, the running tasks, the engine and the proxy.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::connection::{self, Connection, State};
use super::engine::Engine;
use super::journal::{Journal, Record};
use super::phase::Phase;
use super::progress::{self, STALE, TaskSnapshot};
use super::proxy_variables;
use cli::Failure;
use config::layout::AGENT_UNIT;
use config::listed::{Listed, listed};
use config::proxy::masked_value;
use config::{DATA_DIR, ENGINE, Settings, Source};
use host::machine::Machine;
use host::systemd::Services;

/// Show the settings, the service, its tasks, the engine and the proxy
///
/// It changes nothing. Something that is down does not make it fail; settings
/// that the agent cannot start with do (exit code 2).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  scalr-agent status
  scalr-agent status --format json
  journalctl -xe -u scalr-agent (what the service said)

The JSON is one object: config_file, settings (name, value and source of each),
problem (why the agent can't start with them, or null), service (unit, load,
active), server (state, agent_id, pool_id, message, answered_at and
answered_seconds_ago, all as the agent last knew them; problem), tasks (slots;
free_slots, a list of their numbers; running: slot, task, attempt, kind, run,
workspace, environment and container of each, and, as the agent reported it
reported_seconds_ago, its phase (claimed, preparing, pulling_image, running,
uploading, finishing, cleaning_up), phase_seconds, waiting_for_server,
memory_bytes, log_bytes and log_bytes_acknowledged; problem), engine (socket,
answers, problem) and proxy (variables without passwords).
problem is null if the part has no problem.";

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
pub(crate) fn run(file: &Path, args: &Args) -> Result<()> {
    let (status, unusable) = look(file)?;
    let text = match args.format {
        Format::Text => status.to_text(),
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
    };
    cli::print::to_answer(format_args!("{text}"));
    unusable.map_or(Ok(()), |failure| Err(failure.into()))
}

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Status {
    config_file: String,
    /// In the order of [`config::KEYS`]; empty if they can't be read.
    settings: Vec<Listed>,
    /// Why the agent can't start with the settings.
    problem: Option<String>,
    service: Option<Service>,
    server: Server,
    tasks: Tasks,
    engine: EngineStatus,
    /// Variables and values, passwords masked.
    proxy: serde_json::Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct Service {
    unit: &'static str,
    /// systemd's `LoadState`.
    load: String,
    /// systemd's `ActiveState`.
    active: String,
}

/// How the agent stands with its server.
#[derive(Debug, Serialize)]
struct Server {
    /// None: it never tried to register, or that can't be read.
    #[serde(flatten)]
    connection: Option<Connection>,
    answered_seconds_ago: Option<i64>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tasks {
    /// How many tasks may run at once; null if the settings can't be used.
    slots: Option<u32>,
    /// The numbers of those without a task.
    free_slots: Vec<usize>,
    running: Vec<Task>,
    /// The age of the agent's report on its tasks; null: it wrote none.
    reported_seconds_ago: Option<i64>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Task {
    slot: usize,
    task: String,
    attempt: u32,
    kind: String,
    run: String,
    workspace: String,
    environment: String,
    /// None: it has not been started.
    container: Option<String>,
    /// None: the agent has not reported it.
    #[serde(flatten)]
    doing: Option<Doing>,
}

/// The agent's report on a task.
#[derive(Debug, Serialize)]
struct Doing {
    phase: Phase,
    /// How long it had been in the phase when the agent reported it.
    phase_seconds: i64,
    waiting_for_server: bool,
    memory_bytes: Option<u64>,
    log_bytes: u64,
    log_bytes_acknowledged: Option<u64>,
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
        Ok((listed(file, environment())?, settings))
    };
    let mut socket = ENGINE.to_owned();
    let mut data_dir = PathBuf::from(DATA_DIR);
    let (settings, slots, problem) = match read() {
        Ok((listed, settings)) => {
            socket = settings.engine.clone().unwrap_or(socket);
            data_dir = settings.data_dir.clone().unwrap_or(data_dir);
            match settings.resolve() {
                Ok(config) => (listed, Some(config.concurrency), None),
                Err(error) => (listed, None, Some(error)),
            }
        }
        Err(error) => (Vec::new(), None, Some(error)),
    };
    let service = Services::of(&Machine::at("/")).state(AGENT_UNIT);
    let status = Status {
        config_file: file.display().to_string(),
        settings,
        problem: problem.as_ref().map(|error| format!("{error:#}")),
        service: service.map(|state| Service {
            unit: AGENT_UNIT,
            load: state.load,
            active: state.active,
        }),
        server: server(&data_dir),
        tasks: tasks(&data_dir, slots),
        engine: engine(socket)?,
        proxy: proxy_variables::of_agent()
            .into_iter()
            .map(|(name, value)| (name, masked_value(&value).into()))
            .collect(),
    };
    Ok((status, problem.as_ref().map(Failure::of)))
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn server(data_dir: &Path) -> Server {
    let (connection, problem) = match connection::look(data_dir) {
        Ok(connection) => (connection, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let answered_at = connection.as_ref().and_then(|connection| connection.answered_at);
    let answered_seconds_ago = answered_at.map(|at| Timestamp::now().duration_since(at).as_secs());
    Server { connection, answered_seconds_ago, problem }
}

fn tasks(data_dir: &Path, slots: Option<u32>) -> Tasks {
    let mut tasks = Tasks {
        slots,
        free_slots: Vec::new(),
        running: Vec::new(),
        reported_seconds_ago: None,
        problem: None,
    };
    let (reported, records) = match (progress::look(data_dir), Journal::look(data_dir)) {
        (Ok(reported), Ok(records)) => (reported, records),
        (Err(error), _) | (_, Err(error)) => {
            tasks.problem = Some(format!("{error:#}"));
            return tasks;
        }
    };
    let reported_at = reported.as_ref().map(|reported| reported.written_at);
    // The clock may have been set back since.
    tasks.reported_seconds_ago =
        reported_at.map(|at| Timestamp::now().duration_since(at).as_secs().max(0));
    let is_taken = |slot: &usize| records.iter().any(|record| record.slot == *slot);
    tasks.free_slots = (0..slots.unwrap_or(0) as usize).filter(|slot| !is_taken(slot)).collect();
    let doing = |record: &Record| {
        let reported = reported.as_ref()?;
        let at = reported.tasks.iter().find(|at| at.is_of(&record.claimed.task))?;
        Some(Doing::of(at, reported.written_at))
    };
    tasks.running = records
        .into_iter()
        .map(|record| {
            let doing = doing(&record);
            Task::of(record, doing)
        })
        .collect();
    tasks
}

impl Doing {
    fn of(at: &TaskSnapshot, reported_at: Timestamp) -> Self {
        Self {
            phase: at.phase,
            phase_seconds: reported_at.duration_since(at.since).as_secs().max(0),
            waiting_for_server: at.waiting_for_server,
            memory_bytes: at.memory_bytes,
            log_bytes: at.log_bytes,
            log_bytes_acknowledged: at.log_bytes_acknowledged,
        }
    }
}

impl Task {
    fn of(record: Record, doing: Option<Doing>) -> Self {
        let task = record.claimed.task;
        Self {
            slot: record.slot,
            task: task.id,
            attempt: task.attempt,
            kind: task.kind.to_string(),
            run: task.run_id,
            workspace: task.workspace.name,
            environment: task.environment.name,
            container: record.container.map(|container| container.id),
            doing,
        }
    }
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
        for setting in &self.settings {
            let (name, value) = (setting.name, setting.text());
            let source = match &setting.source {
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
        line(&mut text, &format!("Server    {}", self.server.to_text()));
        line(&mut text, &format!("Tasks     {}", self.tasks.to_text()));
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

impl Server {
    fn to_text(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("unknown: {problem}");
        }
        let Some(connection) = &self.connection else {
            return "the agent has not registered yet".to_owned();
        };
        let state = match connection.state {
            State::Idle => "idle",
            State::Busy => "busy",
            State::Draining => "draining: accepting no new tasks",
            State::Errored => "errored",
            State::Away => "does not answer",
            State::Refused => "refuses the agent",
            State::Deregistered => "deregistered",
        };
        let mut text = state.to_owned();
        if let Some(message) = &connection.message {
            write!(text, ": {message}").expect("a text takes all");
        }
        if let (Some(agent), Some(pool)) = (&connection.agent_id, &connection.pool_id) {
            write!(text, "; {agent} of {pool}").expect("a text takes all");
        }
        match self.answered_seconds_ago {
            // The clock may have been set back since.
            Some(seconds) => write!(text, "; it last answered {} s ago", seconds.max(0)),
            None => write!(text, "; it never answered"),
        }
        .expect("a text takes all");
        text
    }
}

impl Tasks {
    fn to_text(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("unknown: {problem}");
        }
        let running = self.running.len();
        let mut text = match self.slots {
            Some(slots) => format!("{running} of {slots} slots busy"),
            None => format!("{running} busy"),
        };
        let stale = self.reported_seconds_ago.filter(|age| *age > STALE.as_secs().cast_signed());
        if let Some(age) = stale.filter(|_| running > 0) {
            let age = SignedDuration::from_secs(age);
            write!(text, ", as they were {age:#} ago: the agent is down, or hangs")
                .expect("a text takes all");
        }
        let free = self.free_slots.iter().map(|slot| (*slot, "free".to_owned()));
        let taken = self.running.iter().map(|task| (task.slot, task.to_text()));
        let mut slots: Vec<(usize, String)> = free.chain(taken).collect();
        slots.sort();
        for (slot, what) in slots {
            write!(text, "\n  slot {slot}  {what}").expect("a text takes all");
        }
        text
    }
}

impl Task {
    fn to_text(&self) -> String {
        let container = match &self.container {
            Some(id) => format!("container {}", id.get(..12).unwrap_or(id)),
            None => "not started".to_owned(),
        };
        let mut text = format!(
            "{} of {} in {}/{} ({} attempt {}, {container})",
            self.kind, self.run, self.environment, self.workspace, self.task, self.attempt
        );
        if let Some(doing) = &self.doing {
            write!(text, "\n          {}", doing.to_text()).expect("a text takes all");
        }
        text
    }
}

impl Doing {
    fn to_text(&self) -> String {
        let since = SignedDuration::from_secs(self.phase_seconds);
        let mut text = format!("{} for {since:#}", self.phase.text());
        if self.waiting_for_server {
            text += ", waiting for the server";
        }
        if let Some(bytes) = self.memory_bytes {
            write!(text, "; {} MB of memory", bytes / (1024 * 1024)).expect("a text takes all");
        }
        write!(text, "; log of {} bytes", self.log_bytes).expect("a text takes all");
        if let Some(bytes) = self.log_bytes_acknowledged {
            write!(text, ", {bytes} of them with the server").expect("a text takes all");
        }
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
    use config::KEYS;

    #[test]
    fn names_fit() {
        let longest = KEYS.iter().map(|key| key.name.len()).max();
        assert_eq!(longest, Some(NAME_WIDTH));
    }
}

//! How large a message and each of its fields may be. Whoever receives a message checks
//! it, the server as well as the agent.
//!
//! [`Message::check`] takes each message apart by its fields' names, so that a new field
//! does not compile before it has a bound.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    AgentMemory, Attempt, CheckToken, Claimed, EnvironmentHook, Event, Events, Finish, Heartbeat,
    Hook, Identity, Intervals, LogOffset, Named, PlanSummary, Poll, Problem, RanImage, Register,
    Registered, Resume, Resumed, Secret, Task, TaskStatus, Variable,
};

/// How many tasks an agent has at most.
pub const MAX_TASKS: u32 = 1_000;

/// The most memory that a machine may say it has, in MB: 16 EiB.
const MAX_MEMORY: u64 = 1 << 44;

/// The longest text for people, in bytes: what went wrong for example.
pub const MAX_TEXT: usize = 64 * 1024;

/// The longest name that people give, in characters. Also of tags, and of the lineage of a
/// state, which Terraform makes of 36.
pub const MAX_NAME: usize = 255;

/// The longest reason of a lock, in characters.
pub const MAX_REASON: usize = 1_000;

/// The longest log of a task, in bytes.
pub const MAX_LOG: u64 = 128 * 1024 * 1024 * 1024;

/// The largest file of a task but its state, in bytes: its configuration or plan for example.
pub const MAX_FILE: u64 = 100 * 1024 * 1024;

/// The largest state that a server may be set to take, in bytes.
pub const MAX_STATE: u64 = 1024 * 1024 * 1024;

/// How many variables a workspace has at most.
pub const MAX_VARIABLES: usize = 1_000;

/// The longest name of a variable, in bytes.
pub const MAX_KEY: usize = 256;

/// The largest value of a variable, in bytes, and also of all variables of a workspace.
pub const MAX_VALUES: usize = 4 * 1024 * 1024;

/// The longest commands of a hook, in bytes.
pub const MAX_HOOK: usize = 64 * 1024;

/// How many hooks an environment has at most.
pub const MAX_ENVIRONMENT_HOOKS: usize = 20;

/// The longest version of Terraform, in bytes.
pub const MAX_VERSION: usize = 64;

/// The longest name of an image, in bytes.
pub const MAX_IMAGE: usize = 512;

/// The longest path of a working directory, in bytes.
pub const MAX_DIRECTORY: usize = 1_024;

/// How many resources a plan has at most: more do not fit into the largest file.
const MAX_RESOURCES: u32 = 10_000_000;

/// The longest id, in bytes.
const MAX_ID: usize = 64;

/// The longest token, in bytes.
const MAX_TOKEN: usize = 512;

/// How many events an answer has at most: offers, and cancels of what the agent has and
/// of what was taken from it.
const MAX_EVENTS: usize = 4 * MAX_TASKS as usize;

const YEAR_SECONDS: u32 = 366 * 24 * 60 * 60;
const DAY_SECONDS: u32 = 24 * 60 * 60;
const HOUR_MILLISECONDS: u32 = 60 * 60 * 1_000;

/// A message of the protocol.
pub trait Message: Serialize + DeserializeOwned {
    /// The longest it may be in JSON, in bytes.
    const MAX_BYTES: usize = 1024 * 1024;

    /// Checks each field.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    fn check(&self) -> Result<(), OutOfBounds>;
}

/// A field that is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot accept the field {field}: {why}")]
pub struct OutOfBounds {
    field: String,
    why: String,
}

impl OutOfBounds {
    fn new(field: &str, why: String) -> Self {
        Self { field: field.to_owned(), why }
    }

    /// The field as the outer message knows it.
    fn inside(mut self, outer: impl Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl Message for CheckToken {
    /// Read from everybody: the token is in it.
    const MAX_BYTES: usize = 4 * 1024;

    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { token: pool_token } = self;
        token("token", pool_token)
    }
}

impl Message for Register {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self {
            name,
            version,
            os,
            driver,
            runtime,
            platform,
            concurrency,
            identity,
            memory,
            level,
        } = self;
        printable("name", name)?;
        if name.trim().is_empty() {
            return Err(OutOfBounds::new("name", "it is empty".to_owned()));
        }
        for (field, text) in [
            ("version", version),
            ("os", os),
            ("driver", driver),
            ("runtime", runtime),
            ("platform", platform),
        ] {
            printable(field, text)?;
        }
        within("concurrency", *concurrency, 1, MAX_TASKS)?;
        within("level", *level, 1, u32::MAX)?;
        if let Some(AgentMemory { host_megabytes, run_megabytes }) = memory {
            within("host_megabytes", *host_megabytes, 1, MAX_MEMORY)
                .and_then(|()| within("run_megabytes", *run_megabytes, 1, MAX_MEMORY))
                .map_err(|error| error.inside("memory"))?;
        }
        let Some(Identity { machine_id, boot_id }) = identity else { return Ok(()) };
        id("machine_id", machine_id)
            .and_then(|()| id("boot_id", boot_id))
            .map_err(|error| error.inside("identity"))
    }
}

impl Message for Registered {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { agent_id, pool_id, session_token, intervals } = self;
        id("agent_id", agent_id)?;
        id("pool_id", pool_id)?;
        token("session_token", session_token)?;
        check_intervals(intervals).map_err(|error| error.inside("intervals"))
    }
}

impl Message for Poll {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { free_slots, tasks } = self;
        within("free_slots", *free_slots, 0, MAX_TASKS)?;
        check_tasks(tasks)
    }
}

impl Message for Heartbeat {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { status: _, error_message, tasks } = self;
        longest("error_message", error_message.as_deref(), MAX_TEXT)?;
        check_tasks(tasks)
    }
}

impl Message for Events {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { events } = self;
        count("events", events.len(), MAX_EVENTS)?;
        events.iter().enumerate().try_for_each(|(at, event)| {
            check_event(event).map_err(|error| error.inside(format!("events[{at}]")))
        })
    }
}

impl Message for Attempt {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { attempt } = self;
        within("attempt", *attempt, 1, u32::MAX)
    }
}

impl Message for Resume {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { attempt, started: _ } = self;
        within("attempt", *attempt, 1, u32::MAX)
    }
}

impl Message for Resumed {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { task_token } = self;
        token("task_token", task_token)
    }
}

impl Message for Claimed {
    /// The values of variables and the environment's hooks, each character of which may take
    /// six bytes in JSON, and the rest.
    const MAX_BYTES: usize = 6 * (MAX_VALUES + MAX_ENVIRONMENT_HOOKS * MAX_HOOK) + 8 * 1024 * 1024;

    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { task, task_token, run_token } = self;
        check_task(task).map_err(|error| error.inside("task"))?;
        token("task_token", task_token)?;
        run_token.iter().try_for_each(|run_token| token("run_token", run_token))
    }
}

impl Message for LogOffset {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { offset, interval_milliseconds } = self;
        within("offset", *offset, 0, MAX_LOG)?;
        let interval = interval_milliseconds.unwrap_or_default();
        within("interval_milliseconds", interval, 0, HOUR_MILLISECONDS)
    }
}

impl Message for Finish {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self {
            attempt,
            outcome: _,
            message,
            // Whatever the engine says.
            exit_code: _,
            oom_killed: _,
            has_changes: _,
            log_bytes,
            log_sha256,
            unsaved_state,
            image,
            summary,
        } = self;
        within("attempt", *attempt, 1, u32::MAX)?;
        longest("message", message.as_deref(), MAX_TEXT)?;
        within("log_bytes", *log_bytes, 0, MAX_LOG)?;
        let is_digest = log_sha256.len() == 64
            && log_sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digest {
            let why = "it is not a SHA-256 in lower-case hex".to_owned();
            return Err(OutOfBounds::new("log_sha256", why));
        }
        longest("unsaved_state", unsaved_state.as_deref(), MAX_TEXT)?;
        check_summary(summary.unwrap_or_default()).map_err(|error| error.inside("summary"))?;
        let Some(RanImage { name, id: image_id, digest, content }) = image else { return Ok(()) };
        longest("name", Some(name), MAX_IMAGE)
            .and_then(|()| longest("id", Some(image_id), MAX_IMAGE))
            .and_then(|()| longest("digest", digest.as_deref(), MAX_IMAGE))
            .and_then(|()| longest("content", content.as_deref(), MAX_IMAGE))
            .map_err(|error| error.inside("image"))
    }
}

impl Message for Problem {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self { error, code: _ } = self;
        longest("error", Some(error), MAX_TEXT)
    }
}

impl Heartbeat {
    /// Cuts texts that are too long.
    pub fn shorten(&mut self) {
        shorten(&mut self.error_message);
    }
}

impl Finish {
    /// Cuts texts that are too long.
    pub fn shorten(&mut self) {
        shorten(&mut self.message);
        shorten(&mut self.unsaved_state);
    }
}

/// Cuts a text for people to [`MAX_TEXT`].
fn shorten(text: &mut Option<String>) {
    const CUT: &str = "… (cut: the text is too long)";
    if let Some(text) = text
        && text.len() > MAX_TEXT
    {
        text.truncate(text.floor_char_boundary(MAX_TEXT - CUT.len()));
        text.push_str(CUT);
    }
}

fn check_summary(summary: PlanSummary) -> Result<(), OutOfBounds> {
    let PlanSummary {
        additions,
        changes,
        destructions,
        replacements,
        imports,
        drifted,
        output_changes,
    } = summary;
    for (field, number) in [
        ("additions", additions),
        ("changes", changes),
        ("destructions", destructions),
        ("replacements", replacements),
        ("imports", imports),
        ("drifted", drifted),
        ("output_changes", output_changes),
    ] {
        within(field, number, 0, MAX_RESOURCES)?;
    }
    Ok(())
}

fn check_intervals(intervals: &Intervals) -> Result<(), OutOfBounds> {
    let Intervals { heartbeat_seconds, poll_seconds, log_milliseconds, state_milliseconds } =
        intervals;
    within("heartbeat_seconds", *heartbeat_seconds, 1, DAY_SECONDS)?;
    within("poll_seconds", *poll_seconds, 1, DAY_SECONDS)?;
    within("log_milliseconds", *log_milliseconds, 0, HOUR_MILLISECONDS)?;
    within("state_milliseconds", *state_milliseconds, 1, HOUR_MILLISECONDS)
}

fn check_tasks(tasks: &[TaskStatus]) -> Result<(), OutOfBounds> {
    count("tasks", tasks.len(), MAX_TASKS as usize)?;
    tasks.iter().enumerate().try_for_each(|(at, status)| {
        let TaskStatus { task_id, attempt, state: _ } = status;
        id("task_id", task_id)
            .and_then(|()| within("attempt", *attempt, 1, u32::MAX))
            .map_err(|error| error.inside(format!("tasks[{at}]")))
    })
}

fn check_event(event: &Event) -> Result<(), OutOfBounds> {
    match event {
        Event::Offer { task_id, attempt, kind: _ } | Event::Cancel { task_id, attempt } => {
            id("task_id", task_id)?;
            within("attempt", *attempt, 1, u32::MAX)
        }
        Event::Drain => Ok(()),
        Event::NewToken { session_token } => token("session_token", session_token),
        Event::NewIntervals(intervals) => check_intervals(intervals),
    }
}

fn check_task(task: &Task) -> Result<(), OutOfBounds> {
    let Task {
        id: task_id,
        attempt,
        kind: _,
        run_id,
        run_source,
        operation,
        options,
        changes_nothing: _,
        workspace,
        environment,
        platform: _,
        terraform_version,
        allow_other_terraform_version: _,
        image,
        image_id,
        image_content,
        working_directory,
        variables,
        hooks,
        environment_hooks,
        timeout_seconds,
    } = task;
    id("id", task_id)?;
    within("attempt", *attempt, 1, u32::MAX)?;
    id("run_id", run_id)?;
    printable("run_source", run_source)?;
    options
        .check(*operation)
        .map_err(|bad| OutOfBounds::new(bad.option.name(), bad.why).inside("options"))?;
    check_named(workspace).map_err(|error| error.inside("workspace"))?;
    check_named(environment).map_err(|error| error.inside("environment"))?;
    longest("terraform_version", terraform_version.as_deref(), MAX_VERSION)?;
    longest("image", image.as_deref(), MAX_IMAGE)?;
    longest("image_id", image_id.as_deref(), MAX_IMAGE)?;
    longest("image_content", image_content.as_deref(), MAX_IMAGE)?;
    within("timeout_seconds", timeout_seconds.unwrap_or(1), 1, YEAR_SECONDS)?;
    longest("working_directory", working_directory.as_deref(), MAX_DIRECTORY)?;
    count("variables", variables.len(), MAX_VARIABLES)?;
    for (at, variable) in variables.iter().enumerate() {
        let Variable { key, value: _, category: _, hcl: _, sensitive: _ } = variable;
        longest("key", Some(key), MAX_KEY)
            .map_err(|error| error.inside(format!("variables[{at}]")))?;
    }
    let values: usize = variables.iter().map(|variable| variable.value.expose().len()).sum();
    if values > MAX_VALUES {
        let why =
            format!("all values together have {values} bytes; at most {MAX_VALUES} are accepted");
        return Err(OutOfBounds::new("variables", why));
    }
    hooks.iter().try_for_each(|(hook, commands)| {
        longest(hook.name(), Some(commands), MAX_HOOK).map_err(|error| error.inside("hooks"))
    })?;
    count("environment_hooks", environment_hooks.len(), MAX_ENVIRONMENT_HOOKS)?;
    environment_hooks.iter().enumerate().try_for_each(|(at, hook)| {
        check_environment_hook(hook)
            .map_err(|error| error.inside(format!("environment_hooks[{at}]")))
    })
}

fn check_environment_hook(hook: &EnvironmentHook) -> Result<(), OutOfBounds> {
    let EnvironmentHook { name, interpreter, script, events } = hook;
    printable("name", name)?;
    longest("script", Some(script), MAX_HOOK)?;
    count("events", events.len(), Hook::ALL.len())?;
    match EnvironmentHook::is_interpreter(interpreter) {
        true => Ok(()),
        false => Err(OutOfBounds::new("interpreter", "it is not the name of a program".to_owned())),
    }
}

fn check_named(named: &Named) -> Result<(), OutOfBounds> {
    let Named { id: named_id, name } = named;
    id("id", named_id)?;
    printable("name", name)
}

/// An id becomes a part of paths and URLs.
fn id(field: &str, text: &str) -> Result<(), OutOfBounds> {
    let is_id = (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match is_id {
        true => Ok(()),
        false => {
            let why = format!("it is not an id: 1 to {MAX_ID} letters, digits and dashes");
            Err(OutOfBounds::new(field, why))
        }
    }
}

/// A token becomes a part of a header.
fn token(field: &str, token: &Secret) -> Result<(), OutOfBounds> {
    let text = token.expose();
    let is_token =
        (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_token {
        true => Ok(()),
        false => {
            let why = format!("it is not a token: 1 to {MAX_TOKEN} printable ASCII characters");
            Err(OutOfBounds::new(field, why))
        }
    }
}

fn printable(field: &str, text: &str) -> Result<(), OutOfBounds> {
    if text.chars().nth(MAX_NAME).is_some() || text.chars().any(char::is_control) {
        let why = format!("it is not at most {MAX_NAME} printable characters");
        return Err(OutOfBounds::new(field, why));
    }
    Ok(())
}

fn longest(field: &str, text: Option<&str>, max: usize) -> Result<(), OutOfBounds> {
    let length = text.map_or(0, str::len);
    if length > max {
        let why = format!("it has {length} bytes; at most {max} are accepted");
        return Err(OutOfBounds::new(field, why));
    }
    Ok(())
}

fn count(field: &str, entries: usize, max: usize) -> Result<(), OutOfBounds> {
    if entries > max {
        let why = format!("it has {entries} entries; at most {max} are accepted");
        return Err(OutOfBounds::new(field, why));
    }
    Ok(())
}

fn within<T: PartialOrd + Display>(
    field: &str,
    n: T,
    least: T,
    most: T,
) -> Result<(), OutOfBounds> {
    if n < least || n > most {
        let why = format!("it is {n}; numbers from {least} to {most} are accepted");
        return Err(OutOfBounds::new(field, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::samples;

    /// A value for a field that nobody accepts, of the field's type.
    fn excessive(value: &Value) -> Option<Value> {
        match value {
            Value::String(_) => Some("x".repeat(5 * 1024 * 1024).into()),
            Value::Number(_) => Some(u64::MAX.into()),
            Value::Array(entries) => Some(Value::Array(vec![entries[0].clone(); 10_000])),
            _ => None,
        }
    }

    /// The places of all fields and entries, as JSON pointers.
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
            }
            Value::Array(entries) => {
                entries.iter().enumerate().for_each(|(n, value)| {
                    places(value, &format!("{at}/{n}"), found);
                });
            }
            _ => {}
        }
    }

    fn assert_bounded<T: Message>(sample: &T) {
        sample.check().unwrap();
        let sample = serde_json::to_value(sample).unwrap();
        let mut found = Vec::new();
        places(&sample, "", &mut found);
        assert!(found.len() > 1, "{sample}");
        for place in found {
            let mut message = sample.clone();
            let field = message.pointer_mut(&place).unwrap();
            let Some(value) = excessive(field) else { continue };
            *field = value;
            if let Ok(message) = serde_json::from_value::<T>(message) {
                let error = message.check().expect_err(&place).to_string();
                let name = place.rsplit('/').find(|part| part.parse::<usize>().is_err()).unwrap();
                assert!(error.contains(name) || place.ends_with("/value"), "{place}: {error}");
            }
        }
    }

    #[test]
    fn each_field_of_each_message_has_a_bound() {
        assert_bounded(&samples::check_token());
        assert_bounded(&samples::register());
        assert_bounded(&samples::registered());
        assert_bounded(&samples::poll());
        assert_bounded(&samples::heartbeat());
        assert_bounded(&samples::events());
        assert_bounded(&samples::attempt());
        assert_bounded(&samples::resume());
        assert_bounded(&samples::resumed());
        assert_bounded(&samples::claimed());
        assert_bounded(&samples::log_offset());
        assert_bounded(&samples::finish());
        assert_bounded(&samples::problem());
    }

    #[test]
    fn an_id_leads_to_no_other_path() {
        for text in ["", "..", "../x", "a/b", "a b", "a?b", "a\n", "é", &"x".repeat(65)] {
            assert!(id("task_id", text).is_err(), "{text:?}");
        }
        assert!(id("task_id", "task-0123456789abcdef01").is_ok());
    }

    #[test]
    fn an_interpreter_can_be_written_into_a_shell_script() {
        for text in ["sh", "python3.11", "/usr/bin/bash", "ld-linux-x86-64.so.2", "g++"] {
            assert!(EnvironmentHook::is_interpreter(text), "{text:?}");
        }
        for text in ["", "sh -e", "$(id)", "a;b", "a\nb", "-c", "é", "a'b", &"x".repeat(256)] {
            assert!(!EnvironmentHook::is_interpreter(text), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_says_where_the_field_is() {
        let mut poll = samples::poll();
        poll.tasks[0].attempt = 0;
        assert_eq!(
            poll.check().unwrap_err().to_string(),
            "cannot accept the field tasks[0].attempt: it is 0; numbers from 1 to 4294967295 are \
             accepted"
        );
    }

    #[test]
    fn texts_are_cut_to_what_is_accepted() {
        let mut finish = Finish { message: Some("é".repeat(MAX_TEXT)), ..samples::finish() };
        assert!(finish.check().is_err());
        finish.shorten();
        finish.check().unwrap();
        assert!(finish.message.unwrap().ends_with("(cut: the text is too long)"));
    }

    #[test]
    fn the_largest_task_is_within_the_length_of_its_message() {
        let mut claimed = samples::claimed();
        let value = Secret::new("\u{1}".repeat(MAX_VALUES / MAX_VARIABLES));
        let key = "k".repeat(MAX_KEY);
        let variable = Variable { key, value, ..claimed.task.variables[0].clone() };
        claimed.task.variables = vec![variable; MAX_VARIABLES];
        for commands in claimed.task.hooks.values_mut() {
            *commands = "\u{1}".repeat(MAX_HOOK);
        }
        let script = "\u{1}".repeat(MAX_HOOK);
        let hook = EnvironmentHook { script, ..claimed.task.environment_hooks[0].clone() };
        claimed.task.environment_hooks = vec![hook; MAX_ENVIRONMENT_HOOKS];
        claimed.check().unwrap();
        let length = json!(claimed).to_string().len();
        assert!(length < Claimed::MAX_BYTES, "{length}");
    }
}

//! The status for people: one screen.

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{
    Engine, FixesMade, JOURNAL_LINES, ListedSettings, Package, Proxy, Setting, Status, Unit,
    Warnings,
};
use crate::fixes::ListedFix;
use cli::answer;

const HEADING: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How wide a heading is, and where what is under it begins.
const WIDTH: usize = 10;

/// How much of a line of the journal is shown, in characters.
const LONGEST: usize = 200;

impl Status {
    /// Prints it.
    pub(crate) fn print(&self) {
        if self.interrupted {
            answer!(
                "{BAD}An installation was killed half-way.{BAD:#} Undo what it did: \
                 scalr-agent-setup recover"
            );
        }
        let host = self.host.as_ref().map_or("unknown", |host| &host.name);
        part("Host", vec![host.to_owned()]);
        part("Packages", self.packages.iter().map(Package::line).collect());
        part("Units", self.units.iter().map(Unit::line).collect());
        part("Engine", vec![self.engine.line()]);
        part("Server", vec![server(&self.server, self.agent_runs())]);
        part("Tasks", tasks(&self.tasks));
        part("Proxy", self.proxy.lines());
        part("Settings", self.settings.lines());
        part("Warnings", self.warnings.lines());
        part("Fixes", self.fixes.lines());
    }
}

fn part(heading: &str, lines: Vec<String>) {
    for (at, line) in lines.iter().enumerate() {
        let heading = if at == 0 { heading } else { "" };
        answer!("{HEADING}{heading:WIDTH$}{HEADING:#} {line}");
    }
}

impl Package {
    fn line(&self) -> String {
        match (&self.version, &self.problem) {
            (Some(version), _) => format!("{:<26} {version}", self.name),
            (None, Some(problem)) => format!("{:<26} unknown: {problem}", self.name),
            (None, None) => format!("{:<26} {DOUBTFUL}not installed{DOUBTFUL:#}", self.name),
        }
    }
}

impl Unit {
    fn line(&self) -> String {
        let style = match self.state.as_str() {
            "active" => GOOD,
            "failed" => BAD,
            _ => DOUBTFUL,
        };
        let mut line = format!("{:<26} {style}{}{style:#}", self.name, self.state);
        match (&self.result, &self.sub) {
            (Some(result), _) if self.state == "failed" => line += &format!(" ({result})"),
            (_, Some(sub)) if sub == "auto-restart" => line += " (it is tried again)",
            _ => {}
        }
        line += &self.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
        line += &self.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        line + if self.enabled { ", starts at boot" } else { "" }
    }
}

impl FixesMade {
    fn lines(&self) -> Vec<String> {
        match &self.problem {
            Some(problem) => vec![format!("unknown: {problem}")],
            None => self.made.iter().flat_map(ListedFix::lines).collect(),
        }
    }
}

impl Engine {
    fn line(&self) -> String {
        let whose = if self.bundled { "the private one" } else { "the host's own" };
        match (&self.version, &self.problem) {
            (Some(version), _) => format!("{version}, {whose}, at {}", self.socket),
            (None, problem) => format!(
                "{DOUBTFUL}no answer{DOUBTFUL:#} at {} ({whose}): {}",
                self.socket,
                problem.as_deref().unwrap_or_default()
            ),
        }
    }
}

fn server(server: &Value, agent_runs: bool) -> String {
    let text = |name: &str| server[name].as_str();
    let url = text("url").unwrap_or("no address");
    if let Some(problem) = text("problem") {
        return format!("{url}; its state is unavailable: {problem}");
    }
    let (state, style) = match text("state") {
        None => return format!("{url}; the agent has not registered there yet"),
        Some("idle") => ("idle", GOOD),
        Some("busy") => ("busy", GOOD),
        Some("away") => ("does not answer", BAD),
        Some("refused") => ("refuses the agent", BAD),
        Some(other) => (other, DOUBTFUL),
    };
    let mut line = if agent_runs {
        format!("{url} {style}{state}{style:#}")
    } else {
        format!("{url} {DOUBTFUL}{state}{DOUBTFUL:#} when the agent last ran")
    };
    line += &text("message").map_or_else(String::new, |message| format!(": {message}"));
    if let (Some(agent), Some(pool)) = (text("agent_id"), text("pool_id")) {
        line += &format!("; {agent} of {pool}");
    }
    match server["answered_seconds_ago"].as_i64() {
        // The clock may have been set back since.
        Some(seconds) => line + &format!("; it last answered {} ago", age(seconds.max(0))),
        None => line,
    }
}

fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn tasks(tasks: &Value) -> Vec<String> {
    if let Some(problem) = tasks["problem"].as_str() {
        return vec![format!("unknown: {problem}")];
    }
    let none = Vec::new();
    let running = tasks["running"].as_array().unwrap_or(&none);
    let slots = tasks["slots"].as_u64().map_or_else(String::new, |n| format!(" of {n}"));
    let text = |task: &Value, name: &str| task[name].as_str().unwrap_or("?").to_owned();
    let task = |task: &Value| {
        format!(
            "  slot {}: {} of {} in {}/{}{}",
            task["slot"],
            text(task, "kind"),
            text(task, "run"),
            text(task, "environment"),
            text(task, "workspace"),
            match task["phase"].as_str() {
                Some(phase) => format!(", {}", phase.replace('_', " ")),
                None if task["container"].is_null() => ", not started".to_owned(),
                None => String::new(),
            }
        )
    };
    let first = format!("{}{slots} slots busy", running.len());
    std::iter::once(first).chain(running.iter().map(task)).collect()
}

impl Proxy {
    fn lines(&self) -> Vec<String> {
        if let Some(problem) = &self.problem {
            return vec![format!("unknown: {problem}")];
        }
        // Each is there in both cases; people need one.
        let mut lines: Vec<String> = Vec::new();
        for (name, value) in &self.variables {
            let line = format!("{}={value}", name.to_ascii_uppercase());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return vec!["none".to_owned()];
        }
        lines.extend(self.files.iter().map(|file| format!("  set in {}", file.display())));
        lines
    }
}

impl ListedSettings {
    /// Changed settings, a line each; the defaults together.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![match &self.problem {
            None => self.file.to_owned(),
            Some(problem) => format!("{DOUBTFUL}{problem}{DOUBTFUL:#}"),
        }];
        let (set, default): (Vec<&Setting>, Vec<&Setting>) =
            self.values.iter().partition(|setting| setting.source != "default");
        lines.extend(set.iter().map(|setting| {
            let source = match (setting.variable, &setting.file) {
                (Some(variable), Some(file)) => format!("{variable} in {}", file.display()),
                _ => setting.source.to_owned(),
            };
            format!("  {:<22} {:<32} ({source})", setting.name, setting.text)
        }));
        let mut line = "  default:".to_owned();
        for setting in default.iter().filter(|setting| !setting.value.is_null()) {
            let word = format!(" {} {},", setting.name, setting.text);
            if line.len() + word.len() > 80 - WIDTH {
                lines.push(line);
                line = "          ".to_owned();
            }
            line += &word;
        }
        if !default.is_empty() {
            lines.push(line.trim_end_matches(',').to_owned());
        }
        lines
    }
}

impl Warnings {
    fn lines(&self) -> Vec<String> {
        if let Some(problem) = &self.problem {
            return vec![format!("unknown: {problem}")];
        }
        if self.entries.is_empty() {
            return vec![format!("none in the last {JOURNAL_LINES} journal lines")];
        }
        self.entries
            .iter()
            .map(|entry| {
                let style = if entry.priority <= 3 { BAD } else { DOUBTFUL };
                let message = shortened(entry.message.trim());
                format!("{} {style}{}{style:#} {message}", entry.time, entry.unit)
            })
            .collect()
    }
}

/// The first line of a text, if it is not too long; the journal has all of it.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_server_is_shown_as_the_agent_reported_it() {
        let plain =
            |value: &Value, runs| anstream::adapter::strip_str(&server(value, runs)).to_string();
        let mut known = json!({
            "url": "https://p/", "state": "idle", "agent_id": "agent-1", "pool_id": "apool-1",
            "message": null, "answered_seconds_ago": -3, "problem": null,
        });
        let idle = "https://p/ idle; agent-1 of apool-1; it last answered 0 s ago";
        assert_eq!(plain(&known, true), idle);
        known["answered_seconds_ago"] = 7500.into();
        assert!(plain(&known, false).contains("idle when the agent last ran"));
        assert!(plain(&known, false).ends_with("2 h ago"));
        known["state"] = "refused".into();
        known["message"] = "the token was revoked".into();
        assert!(plain(&known, true).contains("refuses the agent: the token was revoked"));
        assert!(plain(&json!({"url": "https://p/"}), true).contains("not registered"));
        assert!(plain(&json!({"problem": "no"}), true).contains("unavailable: no"));
    }

    #[test]
    fn a_long_line_is_shortened() {
        assert_eq!(shortened("one\ntwo"), "one");
        assert_eq!(shortened(&"ü".repeat(300)).chars().count(), LONGEST + 1);
    }
}

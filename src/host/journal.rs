//! journalctl: what units wrote to the journal.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::command::{CommandError, CommandExt as _, within};

/// How long journalctl may take, in seconds: a journal can be large.
const PATIENCE: u32 = 20;

/// The syslog priorities up to this one are warnings and worse.
const WARNING: u8 = 4;

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub time: Timestamp,
    /// The unit that it is of, for example `scalr-agent.service`.
    pub unit: String,
    /// The syslog priority: 0 is an emergency, 3 an error, 4 a warning, 6 usual.
    pub priority: u8,
    /// The line.
    pub message: String,
}

/// The last `lines` lines of `units`, oldest first.
///
/// # Errors
/// journalctl is missing or fails; we may not read the journal.
pub fn entries(units: &[&str], lines: usize) -> Result<Vec<Entry>> {
    let mut command = within(PATIENCE, "journalctl");
    command.args(["--no-pager", "--output=json", "--lines", &lines.to_string()]);
    let output = command.args(units.iter().flat_map(|unit| ["--unit", unit])).probe()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // It prints that, and succeeds all the same where some other file is readable.
    if said.contains("not seeing messages") || said.contains("insufficient permissions") {
        bail!("only root and the group systemd-journal may read the journal");
    }
    if !output.status.success() {
        bail!("journalctl failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
}

/// The last `lines` lines of a unit as people read them, with their times.
///
/// # Errors
/// journalctl is missing or fails.
pub fn text(unit: &str, lines: usize) -> Result<String, CommandError> {
    within(PATIENCE, "journalctl")
        .args(["--no-pager", "--output=short-iso", "--unit", unit])
        .args(["--lines", &lines.to_string()])
        .read()
}

impl Entry {
    /// Whether it is a warning or worse. Of an engine only errors count, for it
    /// warns of each kernel; it says so in its text, for to the journal all its
    /// lines are alike.
    pub fn warns(&self) -> bool {
        let levels = [" level=error ", " level=fatal "];
        self.priority <= WARNING
            || self.message.starts_with("time=")
                && levels.iter().any(|level| self.message.contains(level))
    }
}

/// A line of `--output=json`; `None` for what is none, `-- No entries --` for
/// example.
fn parse(line: &str) -> Option<Entry> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| fields[name].as_str();
    let microseconds = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
    // What systemd itself says of a unit has the unit in UNIT.
    let unit = text("UNIT").or(text("_SYSTEMD_UNIT")).or(text("SYSLOG_IDENTIFIER"))?;
    Some(Entry {
        time: Timestamp::from_microsecond(microseconds).ok()?,
        unit: unit.to_owned(),
        priority: text("PRIORITY").and_then(|text| text.parse().ok()).unwrap_or(6),
        message: message(&fields["MESSAGE"])?,
    })
}

/// A text; what is not UTF-8 comes as numbers (systemd.io/JOURNAL_EXPORT_FORMATS).
fn message(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
    let bytes: Option<Vec<u8>> = value.as_array()?.iter().map(byte).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(priority: u8, message: &str) -> Entry {
        Entry {
            time: Timestamp::UNIX_EPOCH,
            unit: "x.service".to_owned(),
            priority,
            message: message.to_owned(),
        }
    }

    #[test]
    fn lines_as_journalctl_prints_them() {
        let own = r#"{"__REALTIME_TIMESTAMP":"1000000","PRIORITY":"4","MESSAGE":"hm",
            "_SYSTEMD_UNIT":"scalr-agent.service"}"#;
        let own = parse(&own.replace('\n', "")).unwrap();
        assert_eq!(
            (own.unit.as_str(), own.priority, own.message.as_str()),
            ("scalr-agent.service", 4, "hm")
        );
        assert_eq!(own.time.to_string(), "1970-01-01T00:00:01Z");
        let of_systemd = r#"{"__REALTIME_TIMESTAMP":"1","UNIT":"a.service","_SYSTEMD_UNIT":"init.scope","MESSAGE":[104,255]}"#;
        let of_systemd = parse(of_systemd).unwrap();
        assert_eq!(
            (of_systemd.unit.as_str(), of_systemd.message.as_str()),
            ("a.service", "h\u{fffd}")
        );
        assert_eq!(parse("-- No entries --"), None);
    }

    #[test]
    fn an_engine_tells_its_errors_in_its_text() {
        assert!(entry(4, "x").warns() && !entry(6, "x level=error ").warns());
        let line = "time=\"2026-01-01T00:00:00Z\" level=error msg=\"no\"";
        assert!(entry(6, line).warns());
        assert!(!entry(6, &line.replace("error", "warning")).warns());
    }
}

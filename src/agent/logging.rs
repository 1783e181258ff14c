//! The agent's own log: lines for people, or an object a line for programs.
//!
//! What is logged inside a task's [`span`] carries the task's id, the run's and
//! the attempt, once, in both forms.

use std::io::IsTerminal as _;

use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Span, Subscriber, field, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, SubscriberBuilder,
};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use cli::exit::in_journal;
use config::{Config, LogFormat};

/// Begins the log, on standard error.
pub(crate) fn start(config: &Config) {
    let look = Look {
        format: config.log_format,
        in_journal: in_journal(),
        colours: std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        debug: config.debug,
    };
    look.log(std::io::stderr).init();
}

/// What all that is logged about a task is inside of. The run's id is known from
/// the claim on; [`record_run`] adds it.
pub(crate) fn span(task: &str, attempt: u32) -> Span {
    info_span!("task", %task, run = field::Empty, attempt, trace_id = field::Empty)
}

/// Adds the run's id to a task's [`span`].
pub(crate) fn record_run(span: &Span, run: &str) {
    span.record("run", field::display(run));
}

/// How a log looks.
#[derive(Clone, Copy)]
struct Look {
    format: LogFormat,
    in_journal: bool,
    colours: bool,
    debug: bool,
}

impl Look {
    fn log<W>(self, writer: W) -> Box<dyn Subscriber + Send + Sync>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let ours = if self.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let levels = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(["agent", "config", "host"].map(|target| (target, ours)));
        let log: SubscriberBuilder = tracing_subscriber::fmt().with_target(false);
        let log = log.with_max_level(ours).with_writer(writer);
        match self.format {
            LogFormat::Json => {
                let log = log.fmt_fields(JsonFields::new()).event_format(Flat);
                if self.in_journal {
                    Box::new(log.map_event_format(WithPriority).finish().with(levels))
                } else {
                    Box::new(log.finish().with(levels))
                }
            }
            // The journal adds the time itself.
            LogFormat::Plain if self.in_journal => {
                let log = log.compact().without_time().with_ansi(false);
                Box::new(log.map_event_format(WithPriority).finish().with(levels))
            }
            LogFormat::Plain => {
                Box::new(log.compact().with_ansi(self.colours).finish().with(levels))
            }
        }
    }
}

/// Writes an event as one object without others in it: its time, level and
/// message, its fields, and those of the spans that it is in.
struct Flat;

impl<S> FormatEvent<S, JsonFields> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(of_span) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            let of_span: Map<String, Value> = serde_json::from_str(of_span).unwrap_or_default();
            // What is nearer to the event counts.
            of_span.into_iter().for_each(|(name, value)| fields.add(&name, value));
        }
        let message = fields.0.remove("message").unwrap_or_default();
        let mut line = Vec::new();
        let mut written = serde_json::Serializer::new(&mut line);
        let mut write = || {
            let mut object = written.serialize_map(None)?;
            object.serialize_entry("timestamp", &time)?;
            object.serialize_entry("level", event.metadata().level().as_str())?;
            object.serialize_entry("message", &message)?;
            for (name, value) in &fields.0 {
                object.serialize_entry(name, value)?;
            }
            object.end()
        };
        write().map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{}", String::from_utf8_lossy(&line))
    }
}

/// An event's fields, of which the first with a name counts.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.0.entry(name).or_insert_with(|| value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }
}

/// Begins each line with its priority as `sd-daemon(3)` has it, which the journal
/// takes off and files the line under: `journalctl -p warning` finds it.
struct WithPriority<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{Instrument as _, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a log of this look has of a task and of the agent.
    fn logged(format: LogFormat, in_journal: bool) -> Vec<String> {
        let lines = Lines::default();
        let look = Look { format, in_journal, colours: false, debug: false };
        let writer = lines.clone();
        tracing::subscriber::with_default(look.log(move || writer.clone()), || {
            let span = span("task-1", 2);
            span.in_scope(|| info!("task offered"));
            record_run(&span, "run-7");
            let work = async { warn!(image = "a \"b\"", bytes = 5, "cannot\npull") };
            futures_util::FutureExt::now_or_never(work.instrument(span)).unwrap();
            info!("registered");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_for_programs_is_one_flat_object() {
        let lines = logged(LogFormat::Json, false);
        let objects: Vec<Map<String, Value>> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        let [offered, failed, registered] = &objects[..] else { panic!("{lines:?}") };
        assert_eq!(failed["task"], "task-1");
        assert_eq!(failed["run"], "run-7");
        assert_eq!(failed["attempt"], 2);
        assert_eq!(
            (&failed["level"], &failed["message"]),
            (&"WARN".into(), &"cannot\npull".into())
        );
        assert_eq!((&failed["image"], &failed["bytes"]), (&"a \"b\"".into(), &5.into()));
        assert!(failed.values().all(|value| !value.is_object() && !value.is_array()), "{failed:?}");
        assert_eq!(lines[1].matches("task-1").count(), 1, "{}", lines[1]);
        assert!(lines[1].starts_with("{\"timestamp\":\""), "{}", lines[1]);
        assert!(offered.contains_key("task") && !offered.contains_key("run"), "{offered:?}");
        let names: Vec<&String> = registered.keys().collect();
        assert_eq!(names, ["level", "message", "timestamp"]);
    }

    #[test]
    fn a_line_for_people_names_task_and_run_once() {
        let lines = logged(LogFormat::Plain, true);
        assert_eq!(lines[0], "<6> INFO task: task offered task=task-1 attempt=2");
        let failed = lines[1..3].join("\n");
        assert_eq!(
            failed,
            "<4> WARN task: cannot\npull image=\"a \\\"b\\\"\" bytes=5 task=task-1 attempt=2 run=run-7"
        );
        assert_eq!(lines[3], "<6> INFO registered");
    }

    #[test]
    fn details_are_the_agents_own_and_only_where_they_are_wanted() {
        for (debug, expected) in [(false, "INFO theirs\n"), (true, "DEBUG ours\nINFO theirs\n")] {
            let lines = Lines::default();
            let look = Look { format: LogFormat::Plain, in_journal: true, colours: false, debug };
            let writer = lines.clone();
            tracing::subscriber::with_default(look.log(move || writer.clone()), || {
                tracing::debug!("ours");
                tracing::debug!(target: "hyper", "details");
                info!(target: "hyper", "theirs");
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            let text = text.replace("<6> ", "").replace("<7>", "");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn in_the_journal_an_object_has_its_priority() {
        let lines = logged(LogFormat::Json, true);
        assert!(lines[1].starts_with("<4>{\"timestamp\""), "{}", lines[1]);
    }
}

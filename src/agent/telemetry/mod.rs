//! Metrics and traces for an OpenTelemetry collector, where the settings name
//! one; `docs/telemetry.md` lists them.
//!
//! Nothing waits for a collector: what can't be sent is dropped. What goes out are
//! ids, names, numbers and times; never a variable, a message or an address.

mod collector;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::sync::oneshot;

use crate::https::Https;
use crate::phase::{Ended, Phase};
use crate::slots::Slots;
use collector::Collector;
use config::Config;
use protocol::Kind;

pub(crate) use trace::TaskTrace;

/// How long the agent's stop may take longer for the last that is to be sent.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// The bounds of the durations' histogram, in seconds: from a container's start
/// to a long apply.
const SECONDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1_800.0, 3_600.0];

/// What this agent measures. Where there is no collector, this does nothing.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: SdkTracer,
    meter: Meter,
    tasks: Counter<u64>,
    phases: Histogram<f64>,
    log_written: Counter<u64>,
    log_acknowledged: Counter<u64>,
    heartbeat_errors: Counter<u64>,
    exporting: Option<Exporting>,
}

/// What sends it.
#[derive(Debug)]
struct Exporting {
    collector: Collector,
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Telemetry {
    /// For an agent without a collector.
    pub(crate) fn off() -> Arc<Self> {
        let traces = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        Arc::new(Self::of(&traces, &SdkMeterProvider::default(), None))
    }

    /// Sends to the settings' collector, if they name one; called inside of the
    /// agent's runtime.
    ///
    /// # Errors
    /// The file with the headers can't be used, or one of the standard variables
    /// that begin with `OTEL_`.
    pub(crate) fn start(config: &Config, https: &Https) -> Result<Arc<Self>> {
        let Some(url) = &config.telemetry_url else { return Ok(Self::off()) };
        let collector = Collector::of(config, https)?;
        let to = |signal: &str| format!("{}/v1/{signal}", url.as_str().trim_end_matches('/'));
        let spans = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(to("traces"))
            .with_http_client(collector.clone())
            .build()
            .context("cannot export traces")?;
        let metrics = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(to("metrics"))
            .with_http_client(collector.clone())
            .build()
            .context("cannot export metrics")?;
        let resource = resource(config)?;
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(spans)
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_periodic_exporter(metrics)
            .build();
        let (of_traces, of_metrics) = (traces.clone(), metrics.clone());
        Ok(Arc::new(Self::of(
            &of_traces,
            &of_metrics,
            Some(Exporting { collector, traces, metrics }),
        )))
    }

    fn of(
        traces: &SdkTracerProvider,
        metrics: &SdkMeterProvider,
        exporting: Option<Exporting>,
    ) -> Self {
        let meter = metrics.meter("scalr-agent");
        let counter = |name: &'static str, unit: &'static str, about: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(about).build()
        };
        Self {
            tracer: traces.tracer("scalr-agent"),
            tasks: counter("scalr.agent.tasks", "{task}", "Tasks that ended"),
            phases: meter
                .f64_histogram("scalr.agent.task.phase.duration")
                .with_unit("s")
                .with_description("How long the phases of tasks took")
                .with_boundaries(SECONDS.to_vec())
                .build(),
            log_written: counter("scalr.agent.log.written", "By", "Bytes of the tasks' logs"),
            log_acknowledged: counter(
                "scalr.agent.log.acknowledged",
                "By",
                "Bytes of the tasks' logs that the server has",
            ),
            heartbeat_errors: counter(
                "scalr.agent.heartbeat.errors",
                "{error}",
                "Heartbeats that the server did not take",
            ),
            meter,
            exporting,
        }
    }

    /// Tells how many slots there are, and how many of them are in use.
    pub(crate) fn watch_slots(&self, slots: &Slots, configured: u32) {
        self.meter
            .i64_observable_up_down_counter("scalr.agent.slot.limit")
            .with_unit("{slot}")
            .with_description("Slots that are configured")
            .with_callback(move |limit| limit.observe(configured.into(), &[]))
            .build();
        let slots = slots.clone();
        self.meter
            .i64_observable_up_down_counter("scalr.agent.slot.count")
            .with_unit("{slot}")
            .with_description("Slots with a task, and slots that could take one now")
            .with_callback(move |count| {
                for (state, slots) in [("busy", slots.busy()), ("free", slots.free())] {
                    count.observe(slots.into(), &[KeyValue::new("slot.state", state)]);
                }
            })
            .build();
    }

    /// A task is out of hand.
    pub(crate) fn task_ended(&self, kind: Kind, ended: Ended) {
        let outcome = KeyValue::new("task.outcome", ended.name());
        self.tasks.add(1, &[KeyValue::new("task.kind", kind.to_string()), outcome]);
    }

    /// A phase of a task ended.
    pub(crate) fn phase_ended(&self, kind: Kind, phase: Phase, took: Duration) {
        let phase = KeyValue::new("task.phase", phase_name(phase));
        let kind = KeyValue::new("task.kind", kind.to_string());
        self.phases.record(took.as_secs_f64(), &[kind, phase]);
    }

    /// So many more bytes are in a task's log.
    pub(crate) fn log_written(&self, bytes: u64) {
        self.log_written.add(bytes, &[]);
    }

    /// The server has so many more bytes of a task's log.
    pub(crate) fn log_acknowledged(&self, bytes: u64) {
        self.log_acknowledged.add(bytes, &[]);
    }

    /// The server did not take a heartbeat.
    pub(crate) fn heartbeat_failed(&self) {
        self.heartbeat_errors.add(1, &[]);
    }

    /// Sends what is left, if the collector answers, and nothing after that.
    pub(crate) async fn stop(&self) {
        let Some(Exporting { collector, traces, metrics }) = &self.exporting else { return };
        if collector.is_away() {
            collector.close();
        }
        let (traces, metrics) = (traces.clone(), metrics.clone());
        let (done, ended) = oneshot::channel();
        // A thread of its own: it blocks for as long as it likes.
        std::thread::spawn(move || {
            // What could not be sent, the collector's client has logged.
            let _ = traces.shutdown();
            let _ = metrics.shutdown();
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(LAST_EXPORT, ended).await;
        collector.close();
    }
}

/// Who sends; `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource(config: &Config) -> Result<Resource> {
    let host = nix::unistd::gethostname().context("cannot ask for the host's name")?;
    let host = host.to_string_lossy().into_owned();
    let name = config.agent_name.clone().unwrap_or_else(|| host.clone());
    let resource = Resource::builder().with_service_name("scalr-agent").with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", name),
        KeyValue::new("host.name", host),
    ]);
    Ok(resource.build())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Claimed => "claim",
        Phase::Preparing => "prepare",
        Phase::PullingImage => "pull image",
        Phase::Running => "run",
        Phase::Uploading => "upload",
        Phase::Finishing => "finish",
        Phase::CleaningUp => "clean up",
    }
}

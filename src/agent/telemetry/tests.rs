//! The agent's metrics and traces, as a collector gets them: the test is the
//! collector.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::client::Client;
use crate::https::Https;
use crate::phase::{Ended, Phase};
use crate::progress::{Keeper, Progress};
use crate::slots::Slots;
use crate::telemetry::Telemetry;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use config::Settings;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use protocol::{Claimed, Outcome};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What came in: its path, its headers and its body.
type Calls = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// A collector at `/otlp` that takes everything.
struct Collector {
    url: String,
    calls: Calls,
}

impl Collector {
    async fn start() -> Self {
        let calls = Calls::default();
        let take = async |State(calls): State<Calls>, uri: Uri, headers: HeaderMap, body: Bytes| {
            calls.lock().unwrap().push((uri.path().to_owned(), headers, body));
            StatusCode::OK
        };
        let app = Router::new().fallback(take).with_state(Arc::clone(&calls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/otlp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, calls }
    }

    fn bodies(&self, path: &str) -> Vec<Bytes> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.0 == path).map(|call| call.2.clone()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.bodies("/otlp/v1/traces").into_iter();
        requests
            .map(|body| ExportTraceServiceRequest::decode(body).unwrap())
            .flat_map(|request| request.resource_spans)
            .flat_map(|of_resource| of_resource.scope_spans)
            .flat_map(|of_scope| of_scope.spans)
            .collect()
    }

    /// Who sent the traces.
    fn sender(&self) -> Vec<KeyValue> {
        let body = self.bodies("/otlp/v1/traces").remove(0);
        let mut request = ExportTraceServiceRequest::decode(body).unwrap();
        request.resource_spans.remove(0).resource.unwrap().attributes
    }

    /// The last value of each metric: its name, its attributes' values and the
    /// sum, or for a histogram the count.
    fn metrics(&self) -> Vec<(String, String, u64)> {
        let body = self.bodies("/otlp/v1/metrics").pop().unwrap();
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        let metrics = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        let mut values = Vec::new();
        for metric in metrics.flat_map(|of_scope| of_scope.metrics) {
            let mut add = |attributes: &[KeyValue], value| {
                values.push((metric.name.clone(), all(attributes), value));
            };
            match metric.data.unwrap() {
                metric::Data::Sum(sum) => {
                    for point in sum.data_points {
                        let Some(number_data_point::Value::AsInt(value)) = point.value else {
                            panic!("{point:?}")
                        };
                        add(&point.attributes, value.try_into().unwrap());
                    }
                }
                metric::Data::Histogram(histogram) => {
                    for point in histogram.data_points {
                        add(&point.attributes, point.count);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        values.sort();
        values
    }
}

/// All attributes, as `name=value` in the order of their names.
fn all(attributes: &[KeyValue]) -> String {
    let mut all: Vec<String> = attributes
        .iter()
        .map(|one| format!("{}={}", one.key, attribute(attributes, &one.key)))
        .collect();
    all.sort();
    all.join(" ")
}

fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{name} is {other:?} in {attributes:?}"),
    }
}

/// An agent that sends to `url`, with its data in `data`.
struct Agent {
    client: Client,
    telemetry: Arc<Telemetry>,
    keeper: Arc<Keeper>,
}

impl Agent {
    fn start(data: &Path, url: &str) -> Self {
        let headers = data.join("headers");
        std::fs::write(&headers, "Authorization: Bearer hunter2\n").unwrap();
        std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = Settings {
            url: Some("http://127.0.0.1:9".parse().unwrap()),
            token: Some(serde_json::from_str("\"hunter2\"").unwrap()),
            agent_name: Some("build-1".to_owned()),
            data_dir: Some(data.to_owned()),
            telemetry_url: Some(url.parse().unwrap()),
            telemetry_headers: Some(headers),
            ..Settings::default()
        };
        let config = settings.resolve().unwrap();
        let https = Https::new(None, &[]).unwrap();
        let telemetry = Telemetry::start(&config, &https).unwrap();
        let keeper = Keeper::new(data, Arc::clone(&telemetry));
        Self { client: Client::new(&config, &https).unwrap(), telemetry, keeper }
    }

    /// Takes the apply in [`CLAIMED`]; `new`, or one that an earlier agent began.
    fn take(&self, new: bool) -> Progress {
        let claimed: Claimed = serde_json::from_str(CLAIMED).unwrap();
        let client = self.client.of_task(&claimed);
        self.keeper.begin(&claimed.task, client, new.then(SystemTime::now))
    }
}

const CLAIMED: &str = r#"{"task_token": "hunter2", "task": {"id": "task-9", "attempt": 2,
    "kind": "apply", "run_id": "run-7", "run_source": "api", "operation": "apply",
    "workspace": {"id": "ws-1", "name": "network"},
    "environment": {"id": "env-1", "name": "prod"}, "terraform_version": null,
    "image": "https://me:hunter2@registry/terraform", "working_directory": null,
    "variables": [{"key": "k", "value": "hunter2", "category": "shell", "hcl": false,
        "sensitive": true}]}}"#;

/// A task whose image is pulled and whose apply fails.
async fn run_task(progress: Progress) {
    let (log, length) = watch::channel(0);
    progress.has_log(length.clone());
    let pull = progress.during(Phase::PullingImage, async { Ok::<_, ()>(()) });
    let steps = async {
        let network = progress.step("network", async { Err::<(), _>(()) });
        let (pulled, network) = tokio::join!(pull, network);
        network.unwrap_err();
        pulled
    };
    progress.during(Phase::Preparing, steps).await.unwrap();
    progress.acknowledged(0);
    let run = async {
        progress.uses_memory(5_000);
        progress.uses_memory(3_000);
        log.send_replace(70);
        progress.acknowledged(40);
        progress.ran(1, false);
        let now = SystemTime::now();
        progress.step_was("init", now - Duration::from_secs(2), now - Duration::from_secs(1));
        Err::<(), _>(())
    };
    progress.during(Phase::Running, run).await.unwrap_err();
    progress.during(Phase::Uploading, async { Ok::<_, ()>(()) }).await.unwrap();
    progress.during(Phase::Finishing, async { Ok::<_, ()>(()) }).await.unwrap();
    progress.end(Ended::With(Outcome::Errored));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_trace_has_its_phases_and_no_secret() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let agent = Agent::start(data.path(), &collector.url);
    let progress = agent.take(true);
    let trace_id = progress.trace_id().unwrap();
    run_task(progress).await;
    agent.telemetry.stop().await;

    let spans = collector.spans();
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
    };
    let status = |name: &str| named(name).status.as_ref().unwrap().code;
    let task = named("task apply");
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == trace_id), "{spans:#?}");
    for phase in ["claim", "prepare", "run", "upload", "finish"] {
        assert_eq!(named(phase).parent_span_id, task.span_id, "{phase}");
        let failed = phase == "run";
        assert_eq!(status(phase) == i32::from(SpanStatus::Error), failed, "{phase}");
        assert!(named(phase).end_time_unix_nano >= named(phase).start_time_unix_nano);
    }
    assert_eq!(named("pull image").parent_span_id, named("prepare").span_id);
    assert_eq!(named("network").parent_span_id, named("prepare").span_id);
    assert_eq!(status("network"), i32::from(SpanStatus::Error));
    let init = named("init");
    assert_eq!(init.parent_span_id, named("run").span_id);
    let second = Duration::from_secs(1).as_nanos();
    assert_eq!(u128::from(init.end_time_unix_nano - init.start_time_unix_nano), second);
    assert_eq!(spans.len(), 9, "{spans:#?}");
    assert_eq!(
        all(&task.attributes),
        "environment.name=prod process.exit.code=1 run.id=run-7 task.attempt=2 task.id=task-9 \
         task.kind=apply task.memory.peak=5000 task.oom_killed=false task.outcome=errored \
         task.resumed=false workspace.id=ws-1 workspace.name=network"
    );
    assert_eq!(status("task apply"), i32::from(SpanStatus::Error));
    let sender = collector.sender();
    assert_eq!(attribute(&sender, "service.name"), "scalr-agent");
    assert_eq!(attribute(&sender, "service.instance.id"), "build-1");

    let calls = collector.calls.lock().unwrap();
    for (path, headers, body) in calls.iter() {
        assert_eq!(headers["authorization"], "Bearer hunter2", "{path}");
        assert!(!body.windows(7).any(|part| part == b"hunter2"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_the_agent_did() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let agent = Agent::start(data.path(), &collector.url);
    let slots = Slots::new(3, 1);
    agent.telemetry.watch_slots(&slots, 3);
    let _busy = slots.take().unwrap();
    run_task(agent.take(true)).await;
    run_task(agent.take(true)).await;
    agent.telemetry.heartbeat_failed();
    agent.telemetry.stop().await;

    let metrics = collector.metrics();
    let metrics: Vec<(&str, &str, u64)> =
        metrics.iter().map(|(name, of, value)| (name.as_str(), of.as_str(), *value)).collect();
    let phase = "scalr.agent.task.phase.duration";
    assert_eq!(
        metrics,
        [
            ("scalr.agent.heartbeat.errors", "", 1),
            ("scalr.agent.log.acknowledged", "", 80),
            ("scalr.agent.log.written", "", 140),
            ("scalr.agent.slot.count", "slot.state=busy", 1),
            ("scalr.agent.slot.count", "slot.state=free", 2),
            ("scalr.agent.slot.limit", "", 3),
            (phase, "task.kind=apply task.phase=claim", 2),
            (phase, "task.kind=apply task.phase=finish", 2),
            (phase, "task.kind=apply task.phase=prepare", 2),
            (phase, "task.kind=apply task.phase=pull image", 2),
            (phase, "task.kind=apply task.phase=run", 2),
            (phase, "task.kind=apply task.phase=upload", 2),
            ("scalr.agent.tasks", "task.kind=apply task.outcome=errored", 2),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_goes_on_with_a_task_goes_on_with_its_trace() {
    let (data, collector) = (tempfile::tempdir().unwrap(), Collector::start().await);
    let before = Agent::start(data.path(), &collector.url);
    let _task = before.take(true);
    before.keeper.stop();
    before.telemetry.stop().await;
    let after = Agent::start(data.path(), &collector.url);
    run_task(after.take(false)).await;
    after.telemetry.stop().await;

    let spans = collector.spans();
    let tasks: Vec<&Span> = spans.iter().filter(|span| span.name == "task apply").collect();
    let [first, second] = tasks[..] else { panic!("{spans:#?}") };
    assert_eq!(attribute(&first.attributes, "task.outcome"), "unfinished");
    assert_eq!(attribute(&second.attributes, "task.resumed"), "true");
    assert_eq!(second.trace_id, first.trace_id);
    assert_eq!(second.parent_span_id, first.span_id);
}

/// How long a task and the stop take with a collector at this address.
async fn time(url: &str) -> (Duration, Duration) {
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start(data.path(), url);
    let begun = Instant::now();
    for _ in 0..100 {
        run_task(agent.take(true)).await;
    }
    let carried_out = begun.elapsed();
    agent.telemetry.stop().await;
    (carried_out, begun.elapsed() - carried_out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_delays_no_task_and_no_stop() {
    // It takes connections, and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = format!("http://{}", mute.local_addr().unwrap());
    for url in [mute.as_str(), "http://127.0.0.1:9", "https://127.0.0.1:9"] {
        let (tasks, stop) = time(url).await;
        assert!(tasks < Duration::from_secs(2), "{url}: {tasks:?}");
        assert!(stop < Duration::from_secs(4), "{url}: {stop:?}");
    }
}

//! What the server measures, for Prometheus; docs/metrics.md has the table.
//!
//! Counters and histograms are kept here from the start of the server on. What the database and
//! the presence of agents know already is counted when somebody asks ([`snapshot`]).

pub(crate) mod endpoint;
mod snapshot;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::clock::Millis;
use crate::store::task::{Phase, State as TaskState};

/// Of requests and of the database, in seconds. A poll is held for up to 40 s.
const FAST: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// Of tasks that wait for an agent, in seconds.
const SLOW: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The counters and histograms of a server; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    requests: Histograms<RequestLabels>,
    database: Histograms<DatabaseLabels>,
    pick_ups: Histograms<PhaseLabels>,
    ended: Family<EndedLabels, Counter>,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    /// The route's template: paths have ids in them, and there is no end of those.
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DatabaseLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndedLabels {
    phase: &'static str,
    state: &'static str,
}

/// A step of work with the database.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// Waiting for a connection to read with.
    ReadWait,
    /// Waiting for the other writers.
    WriteWait,
    /// Writing a transaction to the disk.
    Commit,
}

impl Metrics {
    /// How long it took to open a connection, to lock or to write the database.
    pub(crate) fn database(&self, operation: Operation, took: Duration) {
        let operation = match operation {
            Operation::ReadWait => "read_wait",
            Operation::WriteWait => "write_wait",
            Operation::Commit => "commit",
        };
        self.database.get_or_create(&DatabaseLabels { operation }).observe(took.as_secs_f64());
    }

    /// An agent has claimed a task, so long after the task was queued.
    pub(crate) fn picked_up(&self, phase: Phase, waited: Millis) {
        let waited = Duration::from_millis(waited.try_into().unwrap_or(0));
        let labels = PhaseLabels { phase: phase.name() };
        self.pick_ups.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// A task has ended.
    pub(crate) fn ended(&self, phase: Phase, state: TaskState) {
        let labels = EndedLabels { phase: phase.name(), state: state.name() };
        self.ended.get_or_create(&labels).inc();
    }

    fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let labels = RequestLabels {
            method: method_name(method),
            route: route.to_owned(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let fast: fn() -> Histogram = || Histogram::new(FAST);
        let slow: fn() -> Histogram = || Histogram::new(SLOW);
        let requests = Family::new_with_constructor(fast);
        let database = Family::new_with_constructor(fast);
        let pick_ups = Family::new_with_constructor(slow);
        let ended = Family::default();
        let mut registry = Registry::with_prefix("scalr_server");
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to the head of its answer",
            Unit::Seconds,
            requests.clone(),
        );
        registry.register_with_unit(
            "database_operation_duration",
            "Waiting for the database, and writing transactions to the disk",
            Unit::Seconds,
            database.clone(),
        );
        registry.register_with_unit(
            "task_pickup_duration",
            "From a task's entry into the queue to the claim of an agent",
            Unit::Seconds,
            pick_ups.clone(),
        );
        registry.register("tasks_ended", "Tasks that have ended, by how", ended.clone());
        Self { registry: Arc::new(registry), requests, database, pick_ups, ended }
    }
}

impl Debug for Metrics {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What is measured of a request.
pub(crate) struct Measured {
    method: Method,
    route: Option<MatchedPath>,
    begun: Instant,
}

impl Measured {
    /// A request begins.
    pub(crate) fn begin(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
            begun: Instant::now(),
        }
    }

    /// It is answered.
    pub(crate) fn end(&self, metrics: &Metrics, answer: &Response) {
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
        metrics.request(&self.method, route, answer.status(), self.begun.elapsed());
    }
}

/// The methods that routes have, and one name for all that a client may make up.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn made_up_methods_share_one_label() {
        let metrics = Metrics::default();
        for method in ["PURGE", "BREW", "X-1"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            metrics.request(&method, "none", StatusCode::NOT_FOUND, Duration::ZERO);
        }
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        let counts: Vec<&str> = text.lines().filter(|line| line.contains("_count{")).collect();
        let only = "scalr_server_http_request_duration_seconds_count\
                    {method=\"other\",route=\"none\",status=\"404\"} 3";
        assert_eq!(counts, [only]);
    }
}

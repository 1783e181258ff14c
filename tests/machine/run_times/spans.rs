//! The spans of an agent, from a collector that it sends them to.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1;
use prost::Message as _;
use tokio::net::TcpListener;

/// A part of a task's trace.
pub(super) struct Span {
    pub(super) trace: Vec<u8>,
    pub(super) id: Vec<u8>,
    pub(super) parent: Vec<u8>,
    pub(super) name: String,
    pub(super) begun: SystemTime,
    pub(super) ended: SystemTime,
    /// The run that the task is of, if it is a task's span.
    pub(super) run: Option<String>,
}

/// Takes all that is sent to it, and keeps the spans.
pub(super) struct Collector(Arc<Mutex<Vec<v1::Span>>>);

impl Collector {
    /// Where it is: an agent sends nothing to another host without TLS.
    pub(super) const ADDRESS: &str = "127.0.0.1:4318";

    /// Listens in the network of this thread.
    pub(super) async fn start() -> Self {
        let spans = Arc::default();
        let app = Router::new().fallback(take).with_state(Arc::clone(&spans));
        let listener = TcpListener::bind(Self::ADDRESS).await.expect("the port is free");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self(spans)
    }

    /// What it has got by now.
    pub(super) fn spans(&self) -> Vec<Span> {
        let spans = self.0.lock().expect("nothing panics while it holds the spans");
        spans.iter().map(Span::from).collect()
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<v1::Span>>>>, uri: Uri, body: Bytes) {
    if uri.path() != "/v1/traces" {
        return;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let of_scopes = request.resource_spans.into_iter().flat_map(|all| all.scope_spans);
    spans
        .lock()
        .expect("nothing panics while it holds the spans")
        .extend(of_scopes.flat_map(|of_scope| of_scope.spans));
}

impl From<&v1::Span> for Span {
    fn from(span: &v1::Span) -> Self {
        let time = |nanoseconds| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        let run = span.attributes.iter().find(|attribute| attribute.key == "run.id");
        let run = run.and_then(|run| match run.value.as_ref()?.value.as_ref()? {
            Value::StringValue(id) => Some(id.clone()),
            _ => None,
        });
        Self {
            trace: span.trace_id.clone(),
            id: span.span_id.clone(),
            parent: span.parent_span_id.clone(),
            name: span.name.clone(),
            begun: time(span.start_time_unix_nano),
            ended: time(span.end_time_unix_nano),
            run,
        }
    }
}

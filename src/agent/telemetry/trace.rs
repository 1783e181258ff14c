//! The trace of a task: a span for it, and one for each of its phases.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::SystemTime;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::{Telemetry, phase_name};
use crate::phase::{Ended, Phase};
use protocol::{Outcome, Task};

/// The field of W3C's trace context.
const TRACEPARENT: &str = "traceparent";

/// The spans of a running task.
#[derive(Debug)]
pub(crate) struct TaskTrace {
    tracer: SdkTracer,
    task: Context,
    /// The phases that it is in, each inside of the one before it.
    phases: Vec<Context>,
    memory_peak: u64,
}

impl Telemetry {
    /// A task's trace, from `offered` on; without that, an earlier agent began
    /// the task, and its `traceparent` goes on.
    pub(crate) fn begin(
        &self,
        task: &Task,
        offered: Option<SystemTime>,
        traceparent: Option<&str>,
    ) -> TaskTrace {
        let before = traceparent.map_or_else(Context::new, |before| {
            let fields = HashMap::from([(TRACEPARENT.to_owned(), before.to_owned())]);
            TraceContextPropagator::new().extract_with_context(&Context::new(), &fields)
        });
        let kind = task.kind.to_string();
        let span = self
            .tracer
            .span_builder(format!("task {kind}"))
            .with_start_time(offered.unwrap_or_else(SystemTime::now))
            .with_attributes([
                KeyValue::new("task.id", task.id.clone()),
                KeyValue::new("task.attempt", i64::from(task.attempt)),
                KeyValue::new("task.kind", kind),
                KeyValue::new("task.resumed", offered.is_none()),
                KeyValue::new("run.id", task.run_id.clone()),
                KeyValue::new("workspace.id", task.workspace.id.clone()),
                KeyValue::new("workspace.name", task.workspace.name.clone()),
                KeyValue::new("environment.name", task.environment.name.clone()),
            ])
            .start_with_context(&self.tracer, &before);
        let task = Context::new().with_span(span);
        if let Some(offered) = offered {
            let claim = self.tracer.span_builder(phase_name(Phase::Claimed));
            claim.with_start_time(offered).start_with_context(&self.tracer, &task).end();
        }
        TaskTrace { tracer: self.tracer.clone(), task, phases: Vec::new(), memory_peak: 0 }
    }
}

impl TaskTrace {
    /// Its id, if it is sent to anybody.
    pub(crate) fn id(&self) -> Option<String> {
        let span = self.task.span();
        let context = span.span_context();
        context.is_sampled().then(|| context.trace_id().to_string())
    }

    /// Its `traceparent`, for an agent that continues the task.
    pub(crate) fn parent(&self) -> Option<String> {
        self.id()?;
        let mut fields = HashMap::new();
        TraceContextPropagator::new().inject_context(&self.task, &mut fields);
        fields.remove(TRACEPARENT)
    }

    /// The task is in this phase now, which is a part of the one that it was in.
    pub(crate) fn phase_begins(&mut self, phase: Phase) {
        let span = self.tracer.span_builder(phase_name(phase));
        let span = span.start_with_context(&self.tracer, self.inmost());
        self.phases.push(Context::new().with_span(span));
    }

    /// The phase is over.
    pub(crate) fn phase_ends(&mut self) {
        if let Some(phase) = self.phases.pop() {
            phase.span().end();
        }
    }

    /// A step of the phase that the task is in begins; it ends when the span is dropped.
    pub(crate) fn step_begins(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.tracer.span_builder(name).start_with_context(&self.tracer, self.inmost())
    }

    /// A step of the phase that the task is in has begun and ended before.
    pub(crate) fn step_was(&self, name: &'static str, begun: SystemTime, ended: SystemTime) {
        let span = self.tracer.span_builder(name).with_start_time(begun);
        span.start_with_context(&self.tracer, self.inmost()).end_with_timestamp(ended);
    }

    fn inmost(&self) -> &Context {
        self.phases.last().unwrap_or(&self.task)
    }

    /// The phase that the task is in has failed.
    pub(crate) fn phase_failed(&self) {
        if let Some(phase) = self.phases.last() {
            phase.span().set_status(Status::error(""));
        }
    }

    /// The task's container uses this much memory, in bytes.
    pub(crate) fn uses_memory(&mut self, bytes: u64) {
        self.memory_peak = self.memory_peak.max(bytes);
    }

    /// The task's container ended.
    pub(crate) fn ran(&self, exit_code: i64, oom_killed: bool) {
        self.task.span().set_attributes([
            KeyValue::new("process.exit.code", exit_code),
            KeyValue::new("task.oom_killed", oom_killed),
        ]);
    }

    /// The task is out of hand.
    pub(crate) fn end(&mut self, ended: Ended) {
        while !self.phases.is_empty() {
            self.phase_ends();
        }
        let span = self.task.span();
        span.set_attribute(KeyValue::new("task.outcome", ended.name()));
        if self.memory_peak > 0 {
            let peak = i64::try_from(self.memory_peak).unwrap_or(i64::MAX);
            span.set_attribute(KeyValue::new("task.memory.peak", peak));
        }
        if matches!(ended, Ended::With(Outcome::Errored) | Ended::Lost) {
            span.set_status(Status::error(ended.name()));
        }
        span.end();
    }
}

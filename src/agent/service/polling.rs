//! Polls: the agent asks for events, and acts on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use reqwest::StatusCode;
use tokio::sync::watch;
use tracing::{Instrument as _, Span, error, info, warn};

use super::received::{self, is_id};
use super::{Running, Service};
use crate::journal::Entry;
use crate::logging;
use crate::slots::Slot;
use crate::task::interrupt::Interrupt;
use crate::task::{TaskChannels, disk, run_task};
use protocol::{Event, Intervals, Poll, TaskState, TaskStatus};

/// How long the engine may take to tell where its data is.
const ENGINE_TELLS: Duration = Duration::from_secs(3);

/// How long before a claim the firewall rules may have been verified. They are again before the
/// container is started.
const FENCED_FOR: Duration = Duration::from_secs(10);

impl Service {
    /// Asks for tasks and other events, until the pool tells the agent to
    /// drain, or `once` is through.
    pub(super) async fn poll(self: Arc<Self>) -> Result<()> {
        let mut pause = Duration::from_millis(500);
        let mut took_one = false;
        loop {
            let draining = self.draining.load(Ordering::SeqCst) || (self.once && took_one);
            if draining && self.tasks().is_empty() {
                return Ok(());
            }
            let takes_more = !draining
                && self.engine_answers.load(Ordering::SeqCst)
                && self.context.firewall.failure().is_none()
                && !self.is_disk_nearly_full().await;
            let free_slots = if takes_more { self.context.slots.free() } else { 0 };
            let free_slots = if self.once { free_slots.min(1) } else { free_slots };
            let poll = Poll { free_slots, tasks: self.statuses() };
            let held = Duration::from_secs(self.context.intervals().poll_seconds.into());
            self.set_polling_since(Some(Instant::now()));
            let answer = tokio::select! {
                answer = self.context.client.poll(&poll, held) => answer,
                // There is room now for what was not asked for.
                () = self.freed.notified() => continue,
            };
            self.set_polling_since(None);
            match answer {
                Ok(events) => {
                    pause = Duration::from_millis(500);
                    self.context.connection.still_answers();
                    for event in events.events {
                        took_one |= matches!(event, Event::Offer { .. });
                        self.act_on(event).await;
                    }
                }
                Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => {
                    return Err(self.explain(error));
                }
                Err(error) => {
                    // 409: the heartbeat registers again.
                    warn!("cannot poll: {error}");
                    // The agents of a server that was away do not come back all at once.
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                    pause = (pause * 2).min(Duration::from_secs(15));
                }
            }
        }
    }

    fn set_polling_since(&self, since: Option<Instant>) {
        *self.polling_since.lock().expect("nothing panics while it holds the time") = since;
    }

    /// Whether the server holds a poll that stands for a heartbeat.
    pub(super) fn is_poll_a_heartbeat(&self) -> bool {
        let since = *self.polling_since.lock().expect("nothing panics while it holds the time");
        since.is_some_and(|since| is_a_heartbeat(since.elapsed(), self.context.intervals()))
    }

    /// Whether the engine's disk has no room for another run. One that does not tell, since
    /// it is not this host's, has.
    async fn is_disk_nearly_full(&self) -> bool {
        let free = tokio::time::timeout(ENGINE_TELLS, self.context.engine.free_space()).await;
        match free {
            Ok(Ok(free)) if disk::is_nearly_full(free) => {
                warn!("taking no new tasks: the engine's disk has {free} free");
                true
            }
            _ => false,
        }
    }

    async fn act_on(self: &Arc<Self>, event: Event) {
        match event {
            // Offered before the server knew that this agent accepts no new tasks.
            Event::Offer { task_id, .. } if self.draining.load(Ordering::SeqCst) => {
                info!(task = task_id, "task not taken: the agent accepts no new tasks");
            }
            Event::Offer { task_id, .. } if !is_id(&task_id) => {
                warn!("the server offers a task with an id that is none: {task_id:?}");
            }
            Event::Offer { task_id, attempt, kind } => {
                let span = logging::span(&task_id, attempt);
                span.in_scope(|| info!(%kind, "task offered"));
                self.claim(&task_id, attempt).instrument(span).await;
            }
            Event::Cancel { task_id, attempt } => {
                let tasks = self.tasks();
                if let Some(running) = tasks.get(&task_id).filter(|task| task.attempt == attempt) {
                    running.span.in_scope(|| info!("task canceled by its pool"));
                    running.orders.send_replace(Some(Interrupt::Canceled));
                }
            }
            Event::Drain => {
                info!("draining: accepting no new tasks");
                self.draining.store(true, Ordering::SeqCst);
                self.context.ahead.close().await;
            }
            Event::NewToken { session_token } => self.context.client.set_session(session_token),
            Event::NewIntervals(intervals) => self.context.set_intervals(intervals),
        }
    }

    async fn claim(self: &Arc<Self>, task_id: &str, attempt: u32) {
        let offered = SystemTime::now();
        // The server offers it again, to this agent or to another one.
        let (firewall, engine) = (&self.context.firewall, &self.context.engine);
        if !firewall.was_up_within(FENCED_FOR) && !firewall.verify(engine).await {
            warn!("task not taken: the firewall rules of runs are not up");
            return;
        }
        let Some(slot) = self.context.slots.take() else {
            warn!("no slot is free for what was offered");
            return;
        };
        let claimed = match self.context.client.claim(task_id, attempt).await {
            Ok(claimed) => claimed,
            Err(error) => {
                warn!("cannot claim the task: {error}");
                return;
            }
        };
        if let Err(error) = received::check(&claimed, task_id, attempt) {
            error!("cannot take the task: {error:#}");
            return;
        }
        let span = Span::current();
        logging::record_run(&span, &claimed.task.run_id);
        match self.context.journal.begin(claimed, slot.number()) {
            Ok(entry) => self.begin(entry, slot, span, Some(offered)),
            // Not started, so the server offers it again.
            Err(error) => error!("cannot take the task: {error:#}"),
        }
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        entry: Entry,
        slot: Slot,
        span: Span,
        offered: Option<SystemTime>,
    ) {
        let task = &entry.record().claimed.task;
        let (id, attempt) = (task.id.clone(), task.attempt);
        let (state, watched) = watch::channel(TaskState::Claimed);
        let (orders, ordered) = watch::channel(None);
        let channels = TaskChannels { state, orders: ordered, offered };
        let service = Arc::clone(self);
        // Held until the task is listed, so that its end comes after.
        let mut tasks = self.tasks();
        let running = {
            let id = id.clone();
            async move {
                let model = run_task(Arc::clone(&service.context), entry, slot, channels).await;
                service.tasks().remove(&id);
                service.freed.notify_waiters();
                // For a poll that is not waiting at this moment.
                service.freed.notify_one();
                if let Some(model) = model.filter(|_| !service.once) {
                    service.context.ahead.prepare(&service.context, model).await;
                }
            }
        };
        tokio::spawn(running.instrument(span.clone()));
        tasks.insert(id, Running { attempt, span, state: watched, orders });
    }

    pub(super) fn statuses(&self) -> Vec<TaskStatus> {
        self.tasks()
            .iter()
            .map(|(id, running)| TaskStatus {
                task_id: id.clone(),
                attempt: running.attempt,
                state: *running.state.borrow(),
            })
            .collect()
    }
}

/// Whether a poll that is held for that long stands for a heartbeat. The server takes an agent
/// for offline that has not called for three heartbeats.
fn is_a_heartbeat(held: Duration, intervals: Intervals) -> bool {
    intervals.poll_seconds <= intervals.heartbeat_seconds.saturating_mul(2)
        && held < Duration::from_secs(intervals.poll_seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_stands_for_heartbeats_if_the_server_answers_it_before_three_are_missed() {
        let intervals = |heartbeat_seconds, poll_seconds| Intervals {
            heartbeat_seconds,
            poll_seconds,
            ..Intervals::default()
        };
        for (held, heartbeat, poll, stands) in [
            (0, 10, 20, true),
            (19, 10, 20, true),
            // The connection may be dead.
            (20, 10, 20, false),
            (39, 20, 40, true),
            // Servers of earlier versions.
            (1, 10, 25, false),
        ] {
            let held = Duration::from_secs(held);
            assert_eq!(is_a_heartbeat(held, intervals(heartbeat, poll)), stands, "{held:?}");
        }
    }
}

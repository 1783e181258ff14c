//! The agent stops: it drains or interrupts its tasks, and waits until they have ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use sd_notify::NotifyState;
use tracing::{error, info, warn};

use super::{End, Service, notify};
use crate::stop::Signals;
use crate::task::interrupt::Interrupt;
use config::OnStop;

/// How often a drain asks systemd for more time.
const EXTENDING: Duration = Duration::from_secs(20);

/// How long it takes, after an interrupted run's grace, until it is killed and its
/// results are up.
const AFTER_GRACE: Duration = Duration::from_secs(60);

impl Service {
    /// The token was revoked: what runs is ended, and the agent with it.
    pub(super) async fn refused(&self, error: anyhow::Error, signals: &mut Signals) -> Result<End> {
        error!("{error:#}");
        self.stop(signals, OnStop::Interrupt).await;
        Err(error)
    }

    /// Ends the running tasks, or waits for them, and comes back when none is
    /// left.
    pub(super) async fn stop(&self, signals: &mut Signals, how: OnStop) {
        self.draining.store(true, Ordering::SeqCst);
        notify(&[NotifyState::Stopping, NotifyState::Status("waiting for tasks to end")]);
        if how == OnStop::Drain {
            let patience = self.context.config.drain;
            info!("waiting up to {} s for the running tasks", patience.as_secs());
            tokio::select! {
                () = self.all_ended() => {}
                () = tokio::time::sleep(patience) => warn!("the tasks took too long"),
                _ = signals.next() => info!("asked again to stop"),
                () = keep_from_being_killed() => {}
            }
        }
        stop_takes(self.context.config.grace + AFTER_GRACE);
        self.interrupt_all(Interrupt::Stopped);
        tokio::select! {
            () = self.all_ended() => return,
            _ = signals.next() => info!("asked again to stop: waiting no longer"),
        }
        self.interrupt_all(Interrupt::Hurried);
        self.all_ended().await;
    }

    async fn all_ended(&self) {
        loop {
            let ended = self.freed.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self.tasks().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn interrupt_all(&self, order: Interrupt) {
        for running in self.tasks().values() {
            running.orders.send_replace(Some(order));
        }
    }
}

/// systemd kills what takes longer to stop than its unit says, unless it asks for
/// more time (from systemd 236 on).
async fn keep_from_being_killed() {
    loop {
        stop_takes(3 * EXTENDING);
        tokio::time::sleep(EXTENDING).await;
    }
}

/// Asks systemd for this much time, from now on, to stop.
fn stop_takes(time: Duration) {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

//! How the agent ends: it drains or interrupts its tasks and waits until they have ended,
//! or it leaves them to the agent that comes next.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use sd_notify::NotifyState;
use tracing::{error, info, warn};

use super::{End, Service, notify};
use crate::stop::{Order, Signals};
use crate::task::interrupt::Interrupt;
use config::layout::AGENT_UNIT;
use config::{OnStop, Settings};
use host::machine::Machine;
use host::systemd::Services;

/// How often a drain asks systemd for more time.
const EXTENDING: Duration = Duration::from_secs(20);

/// How long it takes, after an interrupted run's grace, until it is killed and its
/// results are up.
const AFTER_GRACE: Duration = Duration::from_secs(60);

/// How the agent answers a signal.
pub(super) enum Answer {
    /// It ends its tasks, then itself.
    Stop,
    /// It ends at once; the next agent continues its tasks.
    LeaveTasks(End),
    /// It goes on as it is.
    Nothing,
}

impl Service {
    /// What comes of a signal. A restart by systemd interrupts no run.
    pub(super) async fn answer(&self, order: Order, file: &Path) -> Answer {
        match order {
            Order::Reload => match usable(file) {
                Ok(()) => {
                    info!("reloading; the tasks keep running");
                    Answer::LeaveTasks(End::Reload)
                }
                Err(error) => {
                    error!("not reloaded: {error:#}");
                    Answer::Nothing
                }
            },
            Order::Stop if self.tasks().is_empty() || !is_restarting().await => Answer::Stop,
            Order::Stop => match usable(file) {
                Ok(()) => {
                    info!("restarting; the tasks keep running");
                    Answer::LeaveTasks(End::Stopped)
                }
                Err(error) => {
                    error!("the next agent cannot start, so the tasks end: {error:#}");
                    Answer::Stop
                }
            },
        }
    }

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
        self.context.ahead.close().await;
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

/// Whether the settings can be used: an agent that starts with others ends.
fn usable(file: &Path) -> Result<()> {
    Settings::load(file, std::env::vars()).and_then(Settings::resolve).map(drop)
}

/// Whether systemd stops this agent to start the next one. Unknown counts as no: a
/// run that nobody continues would end unreported.
async fn is_restarting() -> bool {
    let ask = || Services::of(&Machine::at("/")).is_restarting(AGENT_UNIT);
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.map_err(anyhow::Error::new).and_then(|answer| Ok(answer?)).unwrap_or_else(|error| {
        warn!("cannot ask systemd whether it restarts the agent: {error:#}");
        false
    })
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

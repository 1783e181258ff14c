//! Ends a run that takes longer than its workspace allows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::{Job, paths};
use crate::journal::Container;
use protocol::Kind;

impl Job {
    /// Waits until the container has run for as long as the task may, and leaves a notice
    /// there, which its entry point prints when it is interrupted.
    pub(super) async fn out_of_time(&self, container: &Container, replay: bool) {
        let Some(limit) = self.time_limit() else { return std::future::pending().await };
        // Not by the clock unless it must be: that may be set while the agent runs.
        let elapsed = match container.started_at {
            Some(started_at) if replay => since_1970().saturating_sub(started_at),
            _ => 0,
        };
        tokio::time::sleep(limit.saturating_sub(Duration::from_secs(elapsed))).await;
        let (kind, seconds) = (self.task().kind, limit.as_secs());
        let notice = format!(
            "Warning: the {kind} has reached its time limit of {seconds} s. It is interrupted now, so that its state is written.\n"
        );
        warn!("{}", notice.trim_end());
        if let Err(error) = self.put_notice(&container.id, paths::TIME_NOTICE, &notice).await {
            warn!("cannot write to the run's log that it reached its time limit: {error:#}");
        }
    }

    /// How long the task's container may run; none: as long as it likes.
    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.task().timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Why a task failed that reached its limit, and what to do.
pub(super) fn reason(kind: Kind, limit: Duration) -> String {
    format!(
        "Error: the {kind} was interrupted because it reached its time limit of {} s. To allow more time, set the workspace's {kind}-timeout-seconds.",
        limit.as_secs()
    )
}

/// The time now, in seconds.
pub(super) fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! Ends a run before the kernel does: a run that is killed for memory loses the
//! state that it has not written, one that is interrupted writes it.

use std::time::Duration;

use anyhow::Result;
use tracing::{debug, warn};

use super::{Job, paths};
use crate::task::input_archive::Archive;

/// The share of its memory at which a run is interrupted, in percent.
pub(super) const PRESSED_PERCENT: u64 = 80;

/// What to do about it.
pub(super) const ADVICE: &str = "Give runs more with `scalr-agent configure --memory MB` on the agent's host, and restart the agent.";

/// Between two looks at a container's memory.
const LOOK: Duration = Duration::from_millis(500);

impl Job {
    /// Waits until the container has nearly used up its memory, and leaves the
    /// notice there that its entry point prints when it is interrupted: so it
    /// stands in the log before what Terraform says of that, also when the log
    /// is made again. `replay`: an earlier agent may have done so, and then its
    /// interrupt is said again.
    pub(super) async fn pressed_for_memory(&self, container: &str, replay: bool) {
        let engine = &self.context.engine;
        let limit = self.context.config.memory;
        if replay && matches!(engine.read(container, paths::MEMORY_NOTICE).await, Ok(Some(_))) {
            return;
        }
        let used = loop {
            tokio::time::sleep(LOOK).await;
            match engine.memory_used(container).await {
                Ok(Some(used)) => {
                    self.progress.uses_memory(used);
                    if used * 100 >= limit * 1024 * 1024 * PRESSED_PERCENT {
                        break used;
                    }
                }
                Ok(None) => {}
                Err(error) => debug!(container, "cannot tell how much memory it uses: {error:#}"),
            }
        };
        let notice = format!(
            "Warning: the run uses {} MB, more than {PRESSED_PERCENT} % of its {limit} MB of memory. It is interrupted now, so that its state is written before it runs out.\n",
            used / (1024 * 1024),
        );
        warn!("{}", notice.trim_end());
        if let Err(error) = self.put_notice(container, paths::MEMORY_NOTICE, &notice).await {
            warn!("cannot tell in the run's log: {error:#}");
        }
    }

    /// Leaves a line in the container that its entry point prints when it is interrupted.
    pub(super) async fn put_notice(&self, container: &str, path: &str, notice: &str) -> Result<()> {
        let directory = self.entry.directory();
        let mut archive = Archive::new(directory, paths::SCALR, self.context.user)?;
        archive.file(path, 0o644, notice.as_bytes())?;
        self.context.engine.upload(container, paths::SCALR, archive.finish()?).await
    }
}

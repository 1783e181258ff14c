//! Has the firewall rules of runs verified while runs depend on them, and until they
//! are up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Service;

/// How often the rules are verified while tasks run. With the time that a verification
/// takes, what is missing is back within 30 s.
const WHILE_RUNNING: Duration = Duration::from_secs(20);

/// How soon after a failure they are verified again.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

impl Service {
    /// Verifies the rules from time to time. Each claim does so, and each task before its
    /// container is started, so an agent that waits for tasks does not.
    pub(super) async fn keep_firewall(self: Arc<Self>) {
        let firewall = &self.context.firewall;
        let mut verified = Instant::now();
        loop {
            let had_failed = firewall.failure().is_some();
            let has_containers = !self.tasks().is_empty() || self.context.ahead.is_any();
            let is_due = had_failed || (verified.elapsed() >= WHILE_RUNNING && has_containers);
            // The private engine's unit takes the rules down with it.
            if is_due && self.engine_answers.load(Ordering::SeqCst) {
                let are_up = firewall.verify(&self.context.engine).await;
                if had_failed && are_up {
                    self.freed.notify_one();
                }
                verified = Instant::now();
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

//! Wakes the polls that are held for the agents of a pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// One bell for each pool, and one for the end.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pools: Mutex<HashMap<String, Arc<Notify>>>,
    stopping: CancellationToken,
}

impl Wake {
    /// The bell of a pool. Who waits for it has to be enabled
    /// ([`tokio::sync::futures::Notified::enable`]) before looking at the
    /// database, else a change in between is missed.
    pub(crate) fn of_pool(&self, pool_id: &str) -> Arc<Notify> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pools.entry(pool_id.to_owned()).or_default())
    }

    /// Wakes all polls that are held for a pool.
    pub(crate) fn pool(&self, pool_id: &str) {
        self.of_pool(pool_id).notify_waiters();
    }

    /// Ends all polls, now and from now on.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits for [`Wake::stop`].
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether [`Wake::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

//! What is kept in memory of the logs that somebody reads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::lines::Index;

/// How many logs have an index at a time. That of the longest log takes 128 KiB.
const MOST: usize = 64;

/// The indexes of logs, and who waits for their growth.
#[derive(Clone, Debug, Default)]
pub(super) struct Indexes(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    indexes: HashMap<PathBuf, (Instant, Arc<Mutex<Index>>)>,
    growth: HashMap<PathBuf, Weak<Notify>>,
}

impl Indexes {
    /// The index of a log, as far as it goes.
    pub(super) fn of(&self, log: &Path) -> Arc<Mutex<Index>> {
        let indexes = &mut self.kept().indexes;
        if indexes.len() == MOST && !indexes.contains_key(log) {
            let oldest = indexes.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(log, _)| log.clone()) {
                indexes.remove(&oldest);
            }
        }
        let (used, index) =
            indexes.entry(log.to_owned()).or_insert_with(|| (Instant::now(), Arc::default()));
        *used = Instant::now();
        Arc::clone(index)
    }

    /// Forgets the index of a log whose beginning has changed.
    pub(super) fn forget(&self, log: &Path) {
        self.kept().indexes.remove(log);
        self.grown(log);
    }

    /// Notifies its waiters each time that a log grows.
    pub(super) fn growth(&self, log: &Path) -> Arc<Notify> {
        let growth = &mut self.kept().growth;
        if let Some(notify) = growth.get(log).and_then(Weak::upgrade) {
            return notify;
        }
        growth.retain(|_, notify| notify.strong_count() > 0);
        let notify = Arc::new(Notify::new());
        growth.insert(log.to_owned(), Arc::downgrade(&notify));
        notify
    }

    /// A log has grown.
    pub(super) fn grown(&self, log: &Path) {
        if let Some(notify) = self.kept().growth.get(log).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

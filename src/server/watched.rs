//! Which logs somebody watches: those that were asked for a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long a log counts as watched after somebody asked for it.
const MOMENT: Duration = Duration::from_secs(15);

/// How long after a piece of a log an agent sends more of it, in milliseconds, while
/// somebody watches it and while nobody does.
const WATCHED: u32 = 50;
const UNWATCHED: u32 = 1_000;

/// When each log was last asked for, by its task's id.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<HashMap<String, Instant>>);

impl Watched {
    /// Somebody asked for a task's log.
    pub(crate) fn asked(&self, task_id: &str) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| at.elapsed() < MOMENT);
        asked.insert(task_id.to_owned(), Instant::now());
    }

    /// How long the agent is to collect before it sends more of a task's log, in
    /// milliseconds.
    pub(crate) fn interval(&self, task_id: &str) -> u32 {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get(task_id) {
            Some(at) if at.elapsed() < MOMENT => WATCHED,
            _ => UNWATCHED,
        }
    }
}

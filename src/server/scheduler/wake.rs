//! Wakes the polls that are held for agents: for a queued task exactly one, so that its cost
//! does not grow with the number of idle agents.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The polls that are held, by pool, and the end of them all.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pools: Mutex<HashMap<String, Pool>>,
    stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Pool {
    polls: BTreeMap<PollId, Poll>,
    /// Those that a queued task may wake: the first one gets it.
    ready: BTreeSet<(Rank, PollId)>,
    last_number: u64,
}

/// The agent, and a number, since an agent's next poll may come before its last one ends.
type PollId = (String, u64);

#[derive(Debug)]
struct Poll {
    rank: Rank,
    /// What its agent can do ([`protocol::LEVEL`]).
    level: i64,
    bell: Arc<Notify>,
    /// The level of the queued task that woke it, while it has not looked for that.
    chosen_for: Option<i64>,
}

/// Which poll comes first: most free slots, then longest idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    free_slots: Reverse<u32>,
    idle_since: u64,
}

impl Rank {
    /// The rank of an agent's poll; `idle_since` is lower for agents that got their last task
    /// earlier.
    pub(crate) fn new(free_slots: u32, idle_since: u64) -> Self {
        Self { free_slots: Reverse(free_slots), idle_since }
    }
}

impl Wake {
    /// Holds a poll until this is dropped.
    pub(crate) fn hold(&self, pool_id: &str, agent_id: &str, rank: Rank, level: i64) -> Held<'_> {
        let bell = Arc::new(Notify::new());
        let mut pools = self.pools();
        let pool = pools.entry(pool_id.to_owned()).or_default();
        pool.last_number += 1;
        let id = (agent_id.to_owned(), pool.last_number);
        let poll = Poll { rank, level, bell: Arc::clone(&bell), chosen_for: None };
        pool.polls.insert(id.clone(), poll);
        Held { wake: self, pool_id: pool_id.to_owned(), id, bell }
    }

    /// Wakes the poll that a queued task of a pool is for, if one is held whose agent can do
    /// the task; whether it is.
    pub(crate) fn queued(&self, pool_id: &str, level: i64) -> bool {
        self.pools().get_mut(pool_id).is_some_and(|pool| pool.wake_first(level))
    }

    /// Wakes the polls of an agent.
    pub(crate) fn agent(&self, agent_id: &str) {
        for pool in self.pools().values() {
            let from = (agent_id.to_owned(), 0);
            let polls = pool.polls.range(from..).take_while(|((agent, _), _)| agent == agent_id);
            polls.for_each(|(_, poll)| poll.bell.notify_one());
        }
    }

    /// Wakes all polls of a pool, whose sessions may have ended.
    pub(crate) fn pool(&self, pool_id: &str) {
        if let Some(pool) = self.pools().get(pool_id) {
            pool.polls.values().for_each(|poll| poll.bell.notify_one());
        }
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

    fn pools(&self) -> MutexGuard<'_, HashMap<String, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn wake_first(&mut self, level: i64) -> bool {
        let can = |id: &PollId| self.polls.get(id).is_some_and(|poll| poll.level >= level);
        let Some(first) = self.ready.iter().find(|(_, id)| can(id)).cloned() else { return false };
        self.ready.remove(&first);
        if let Some(poll) = self.polls.get_mut(&first.1) {
            poll.chosen_for = Some(level);
            poll.bell.notify_one();
        }
        true
    }
}

/// A poll that is held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    wake: &'a Wake,
    pool_id: String,
    id: PollId,
    bell: Arc<Notify>,
}

impl Held<'_> {
    /// From here on a queued task may wake this poll. It has to look at the database after
    /// that, else a change in between is missed.
    pub(crate) fn ready(&self) {
        let mut pools = self.wake.pools();
        let Some(pool) = pools.get_mut(&self.pool_id) else { return };
        let Some(poll) = pool.polls.get_mut(&self.id) else { return };
        poll.chosen_for = None;
        // One without a free slot can take nothing.
        if poll.rank.free_slots.0 > 0 {
            pool.ready.insert((poll.rank, self.id.clone()));
        }
    }

    /// Waits until there may be something for this poll.
    pub(crate) async fn woken(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut pools = self.wake.pools();
        let Some(pool) = pools.get_mut(&self.pool_id) else { return };
        let Some(poll) = pool.polls.remove(&self.id) else { return };
        pool.ready.remove(&(poll.rank, self.id.clone()));
        // It did not look for the task that it was woken for: the next one does.
        if let Some(level) = poll.chosen_for {
            pool.wake_first(level);
        }
        if pool.polls.is_empty() {
            pools.remove(&self.pool_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn hold<'a>(wake: &'a Wake, agent: &str, free_slots: u32, idle_since: u64) -> Held<'a> {
        hold_of_level(wake, agent, free_slots, idle_since, 1)
    }

    fn hold_of_level<'a>(
        wake: &'a Wake,
        agent: &str,
        free_slots: u32,
        idle_since: u64,
        level: i64,
    ) -> Held<'a> {
        let held = wake.hold("pool", agent, Rank::new(free_slots, idle_since), level);
        held.ready();
        held
    }

    fn woken(polls: &[Held<'_>]) -> Vec<usize> {
        let is_woken = |poll: &Held<'_>| poll.woken().now_or_never().is_some();
        (0..polls.len()).filter(|number| is_woken(&polls[*number])).collect()
    }

    #[test]
    fn a_queued_task_wakes_exactly_one_poll() {
        let wake = Wake::default();
        let polls: Vec<_> = (0..1000).map(|number| hold(&wake, "one", 1, number)).collect();
        assert!(wake.queued("pool", 1));
        assert_eq!(woken(&polls), [0]);
        assert!(woken(&polls).is_empty());
    }

    #[test]
    fn most_free_slots_come_first_and_then_the_longest_idle() {
        let wake = Wake::default();
        let polls = [
            hold(&wake, "busy", 0, 1),
            hold(&wake, "small", 1, 2),
            hold(&wake, "late", 3, 9),
            hold(&wake, "early", 3, 4),
        ];
        for expected in [3, 2, 1] {
            assert!(wake.queued("pool", 1));
            assert_eq!(woken(&polls), [expected]);
        }
        assert!(!wake.queued("pool", 1), "nobody else has a free slot");
        polls[1].ready();
        assert!(wake.queued("pool", 1));
        assert_eq!(woken(&polls), [1]);
    }

    #[test]
    fn a_poll_that_ends_before_it_looked_wakes_the_next() {
        let wake = Wake::default();
        let first = hold(&wake, "first", 1, 1);
        let polls = [hold(&wake, "second", 1, 2)];
        wake.queued("pool", 1);
        drop(first);
        assert_eq!(woken(&polls), [0]);
    }

    #[test]
    fn a_task_wakes_no_agent_that_is_too_old_for_it() {
        let wake = Wake::default();
        let polls = [
            hold_of_level(&wake, "old", 9, 1, 1),
            hold_of_level(&wake, "new", 1, 2, 2),
            hold_of_level(&wake, "newer", 1, 3, 3),
        ];
        assert!(wake.queued("pool", 2));
        assert_eq!(woken(&polls), [1]);
        assert!(wake.queued("pool", 2));
        assert_eq!(woken(&polls), [2]);
        assert!(!wake.queued("pool", 2));
        assert!(wake.queued("pool", 1));
        assert_eq!(woken(&polls), [0]);
    }

    #[test]
    fn a_poll_that_looked_wakes_nobody_when_it_ends() {
        let wake = Wake::default();
        let first = hold(&wake, "first", 1, 1);
        let polls = [hold(&wake, "second", 1, 2)];
        wake.queued("pool", 1);
        first.ready();
        drop(first);
        assert!(woken(&polls).is_empty());
    }

    #[test]
    fn only_the_polls_of_an_agent_are_woken_for_it() {
        let wake = Wake::default();
        let polls = [
            hold(&wake, "agent-1", 1, 1),
            hold(&wake, "agent-10", 1, 1),
            hold(&wake, "agent-1", 0, 1),
        ];
        wake.agent("agent-1");
        assert_eq!(woken(&polls), [0, 2]);
        wake.pool("other");
        assert!(woken(&polls).is_empty());
        wake.pool("pool");
        assert_eq!(woken(&polls), [0, 1, 2]);
    }

    #[test]
    fn pools_without_polls_are_forgotten() {
        let wake = Wake::default();
        drop(hold(&wake, "one", 1, 1));
        assert!(wake.pools().is_empty());
    }
}

//! How many tasks fit on this host, and which network each gets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::host_memory;
use config::layout::NETWORK_PREFIX;

/// The slots of this agent.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    /// The numbers of those in use.
    taken: Arc<Mutex<BTreeSet<usize>>>,
    concurrency: usize,
    /// In MB.
    memory_of_task: u64,
}

/// A slot in use; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    number: usize,
    slots: Slots,
}

impl Slots {
    /// `concurrency` free slots for tasks of `memory_of_task` MB.
    pub(crate) fn new(concurrency: u32, memory_of_task: u64) -> Self {
        Self { taken: Arc::default(), concurrency: concurrency as usize, memory_of_task }
    }

    /// How many more tasks can be taken now: as many as there are free slots,
    /// and no more than the host's free memory holds.
    pub(crate) fn free(&self) -> u32 {
        let free = self.concurrency.saturating_sub(self.lock().len()) as u64;
        // A kernel that does not tell is no reason to do nothing.
        let fitting = host_memory::available().map_or(free, |memory| memory / self.memory_of_task);
        u32::try_from(free.min(fitting)).unwrap_or(u32::MAX)
    }

    /// How many have a task.
    pub(crate) fn busy(&self) -> u32 {
        self.lock().len().try_into().unwrap_or(u32::MAX)
    }

    /// Whether a task has this slot.
    pub(crate) fn is_taken(&self, number: usize) -> bool {
        self.lock().contains(&number)
    }

    /// Takes a free slot; none is left when this gives nothing.
    pub(crate) fn take(&self) -> Option<Slot> {
        let mut taken = self.lock();
        if taken.len() >= self.concurrency {
            return None;
        }
        let number = (0..).find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(Slot { number, slots: self.clone() })
    }

    /// Takes the slot of a task that outlived a restart, which there may be more
    /// of than slots, if the concurrency was lowered since.
    pub(crate) fn take_again(&self, number: usize) -> Slot {
        self.lock().insert(number);
        Slot { number, slots: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.taken.lock().expect("nothing panics while it holds the slots")
    }
}

impl Slot {
    /// Its number, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The name of its network.
    pub(crate) fn network(&self) -> String {
        format!("{NETWORK_PREFIX}{}", self.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_slot_is_free_again() {
        let slots = Slots::new(2, 1);
        let first = slots.take().unwrap();
        let second = slots.take().unwrap();
        assert_eq!((first.number(), second.number(), slots.free()), (0, 1, 0));
        assert!(slots.take().is_none() && slots.busy() == 2);
        drop(first);
        assert_eq!(slots.free(), 1);
        assert_eq!(slots.take().unwrap().network(), "scalr-slot-0");
    }

    #[test]
    fn a_task_that_outlived_a_restart_keeps_its_slot() {
        let slots = Slots::new(2, 1);
        let kept = slots.take_again(0);
        assert_eq!(slots.take().unwrap().number(), 1);
        drop(kept);
    }

    #[test]
    fn a_lowered_concurrency_holds_for_what_outlived_the_restart_too() {
        let slots = Slots::new(1, 1);
        let (one, two) = (slots.take_again(1), slots.take_again(2));
        assert_eq!((slots.free(), slots.take().is_none()), (0, true));
        drop(one);
        assert_eq!((slots.free(), slots.take().is_none()), (0, true));
        drop(two);
        assert_eq!((slots.free(), slots.take().unwrap().number()), (1, 0));
    }

    #[test]
    fn no_more_tasks_than_memory_holds() {
        assert_eq!(Slots::new(4, u64::MAX).free(), 0);
    }
}

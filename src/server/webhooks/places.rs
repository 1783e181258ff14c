//! How many webhooks are called at once. Those that were slow get only some of the places, so
//! that they leave the others' free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// How many webhooks are called at once, and how many of these were slow the last time. Each
/// call is an open file ([`super::AT_ONCE`]).
const ALL: usize = 32;
const OF_SLOW: usize = 8;

/// What counts as slow.
const SLOW: Duration = Duration::from_secs(2);

/// The webhooks that are being called, by what they belong to.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// With whether they were slow the last time.
    busy: BTreeMap<String, bool>,
    slow: BTreeSet<String>,
    /// The one that was called last: the next ones follow it, so that all have their turn.
    last: String,
}

impl Places {
    /// Those that are being called.
    pub(super) fn busy(&self) -> Vec<&String> {
        self.busy.keys().collect()
    }

    /// Takes the next one of `due` for which there is a place.
    pub(super) fn take<T>(&mut self, due: &mut BTreeMap<String, T>) -> Option<(String, T)> {
        let slow_ones = self.busy.values().filter(|is_slow| **is_slow).count();
        if self.busy.len() >= ALL {
            return None;
        }
        let following = due.range::<String, _>((Excluded(&self.last), Unbounded));
        let mut in_turn = following.chain(due.range::<String, _>(..=&self.last));
        let (owner, _) =
            in_turn.find(|(owner, _)| slow_ones < OF_SLOW || !self.slow.contains(*owner))?;
        let taken = due.remove_entry(&owner.clone())?;
        self.last.clone_from(&taken.0);
        self.busy.insert(taken.0.clone(), self.slow.contains(&taken.0));
        Some(taken)
    }

    /// The calls of one are over, and took so long.
    pub(super) fn leave(&mut self, owner: String, took: Duration) {
        self.busy.remove(&owner);
        match took > SLOW {
            true => self.slow.insert(owner),
            false => self.slow.remove(&owner),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(kind: &str, count: usize) -> BTreeMap<String, ()> {
        (0..count).map(|number| (format!("{kind}-{number:03}"), ())).collect()
    }

    fn take_all(places: &mut Places, due: &mut BTreeMap<String, ()>) -> Vec<String> {
        std::iter::from_fn(|| places.take(due)).map(|(owner, ())| owner).collect()
    }

    #[test]
    fn slow_webhooks_leave_places_to_others_and_are_called_in_turn() {
        let mut places = Places::default();
        let mut called = BTreeSet::new();
        // At first, nobody knows that they are slow.
        for _ in 0..10 {
            let some = take_all(&mut places, &mut due("slow", 100));
            some.iter().for_each(|owner| places.leave(owner.clone(), 5 * SLOW));
            called.extend(some);
        }
        assert_eq!(called.len(), 100, "each has its turn");
        assert_eq!(take_all(&mut places, &mut due("slow", 100)).len(), OF_SLOW);
        let mut others = due("other", 100);
        others.append(&mut due("slow", 100));
        let taken = take_all(&mut places, &mut others);
        assert_eq!(taken.len(), ALL - OF_SLOW);
        assert!(taken.iter().all(|owner| owner.starts_with("other")), "{taken:?}");
    }

    #[test]
    fn a_webhook_that_is_fast_again_counts_as_fast() {
        let mut places = Places::default();
        for took in [5 * SLOW, SLOW / 2] {
            places.take(&mut due("one", 1)).unwrap();
            places.leave("one-000".to_owned(), took);
        }
        assert!(places.slow.is_empty() && places.busy().is_empty());
    }
}

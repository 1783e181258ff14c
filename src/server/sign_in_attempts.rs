//! How often somebody may try to sign in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many attempts of an address may fail within [`WINDOW`].
const ALLOWED: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// How many addresses are remembered at most.
const ADDRESSES: usize = 10_000;

/// The attempts that failed lately.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<Option<IpAddr>, Failed>>);

#[derive(Debug)]
struct Failed {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// Whether one more attempt may be made from `address`.
    pub(crate) fn may_try(&self, address: Option<IpAddr>) -> bool {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match attempts.get(&address) {
            Some(failed) => failed.count < ALLOWED || failed.since.elapsed() > WINDOW,
            // So many others fail at once that it is an attack.
            None => attempts.len() < ADDRESSES,
        }
    }

    /// Counts an attempt that has failed.
    pub(crate) fn failed(&self, address: Option<IpAddr>) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|_, failed| failed.since.elapsed() <= WINDOW);
        let failed =
            attempts.entry(address).or_insert_with(|| Failed { since: Instant::now(), count: 0 });
        failed.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_failed_ten_times_has_to_wait_and_others_need_not() {
        let attempts = Attempts::default();
        let (one, other) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
        for _ in 0..ALLOWED {
            assert!(attempts.may_try(one));
            attempts.failed(one);
        }
        assert!(!attempts.may_try(one));
        assert!(attempts.may_try(other));
    }
}

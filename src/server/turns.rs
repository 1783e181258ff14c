//! Who is served next where few are at once.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// So many clients are served at once, and so many calls of one.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    most_of_one: usize,
    /// By the client's hash.
    of_one: Mutex<HashMap<u64, Weak<Semaphore>>>,
    hasher: RandomState,
}

/// A client's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub of_one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    /// `all` at once, of which at most `of_one` are of one client.
    pub(crate) fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            most_of_one: of_one,
            of_one: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Whose request this is: the one's with its token, or without one whose link it is.
    pub(crate) fn client(&self, headers: &HeaderMap, uri: &Uri) -> u64 {
        match headers.get(AUTHORIZATION) {
            Some(token) => self.hasher.hash_one(token.as_bytes()),
            None => self.hasher.hash_one(uri.path()),
        }
    }

    /// Waits for the client's turn.
    ///
    /// # Errors
    /// There are no turns any more.
    pub(crate) async fn take(&self, client: u64) -> Result<Turn, AcquireError> {
        let of_one = self.of_client(client).acquire_owned().await?;
        Ok(Turn { of_one, _of_all: Arc::clone(&self.all).acquire_owned().await? })
    }

    fn of_client(&self, client: u64) -> Arc<Semaphore> {
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_one.get(&client).and_then(Weak::upgrade) {
            return known;
        }
        of_one.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.most_of_one));
        of_one.insert(client, Arc::downgrade(&turns));
        turns
    }
}

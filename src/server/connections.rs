//! How many connections the server holds.
//!
//! A connection that has not authenticated yet takes one of few places. It gives the place
//! up with its first request that authenticates, or it ends: after [`FIRST_REQUEST`] without
//! a request, or with the answer to a request that needs no token or has a wrong one. So
//! whoever has no token can hold few connections, and none for long, while agents can hold
//! as many polls as there are agents.
//!
//! Connections that have authenticated count for the one whose token it was: an agent has few
//! of all, and the agents of a pool together three quarters, so that no agent, and nobody who registers
//! many, takes the places of others. A connection stays authenticated as long as its requests
//! do.
//!
//! Who floods the server from some addresses keeps no places from others: addresses with many
//! connections get only half of them, and those that have authenticated lately, as agents'
//! have, need none but their own.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{Extensions, HeaderValue, StatusCode};
use axum::response::Response;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// How long a connection may wait for a place: as long as agents wait for their connection.
const PLACE: Duration = Duration::from_secs(20);

/// How long a TLS handshake may take, and after it the head of the first request.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long a connection that has authenticated may wait for its next request. Agents end
/// theirs after 60 seconds, and clients of the pool API usually after 90: when the server is
/// first, a request may be under way already.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

/// Open files besides connections at most: the database, objects and logs.
const OTHER_FILES: u64 = 512;

/// How many times as many connections may wait for a place as there are places: those that
/// wait take no place, but they are open files.
const WAITING: usize = 3;

/// From how many connections on an address counts as crowded.
const CROWD: usize = 8;

/// For how long an address is known that has authenticated.
const KNOWN: Duration = Duration::from_secs(60 * 60);

/// The share of all connections that one agent or other token may have, and its least: an agent
/// has two for each of its runs, and one for its poll.
const OF_ONE: usize = 40;
const LEAST_OF_ONE: usize = 256;

/// For how long a connection counts as authenticated without a request with a valid token.
const TRUSTED: Duration = Duration::from_secs(10);

/// How often the log says that connections are refused.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// How many connections the server holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In total.
    pub all: usize,
    /// Of those that have not authenticated.
    pub unauthenticated: usize,
    /// Of those, from one address.
    pub per_address: usize,
}

/// Admits connections while there is a place for them.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Places>);

#[derive(Debug)]
struct Places {
    limits: Limits,
    all: Arc<Semaphore>,
    unauthenticated: Share,
    /// Those of crowded addresses.
    crowds: Share,
    per_address: Mutex<HashMap<IpAddr, Arc<OfAddress>>>,
    /// Of those that have authenticated, by whose they are.
    per_owner: Mutex<HashMap<String, Weak<Semaphore>>>,
    warned: Mutex<Option<Instant>>,
}

/// How many connections may be unauthenticated.
#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    /// Those that have a place or wait for one.
    admitted: Arc<Semaphore>,
}

/// The connections from an address.
#[derive(Debug)]
struct OfAddress {
    share: Share,
    authenticated_at: Mutex<Option<Instant>>,
}

impl Gate {
    /// A gate with these limits, or lower ones if the process may not open that many files.
    pub(crate) fn new(mut limits: Limits) -> Self {
        let files = file_limit();
        let most = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
        if most < limits.all {
            warn!(
                "the limit of open files is {files}: at most {most} connections are accepted, not \
                 {} (--max-connections); raise LimitNOFILE= of the unit, or `ulimit -n`",
                limits.all
            );
            limits.all = most;
        }
        // Half of all connections are left to those that authenticate.
        let most = (limits.all / 2 / (1 + WAITING)).max(1);
        limits.unauthenticated = limits.unauthenticated.min(most);
        limits.per_address = limits.per_address.min(limits.unauthenticated);
        Self(Arc::new(Places {
            limits,
            all: Arc::new(Semaphore::new(limits.all)),
            unauthenticated: Share::new(limits.unauthenticated),
            crowds: Share::new((limits.unauthenticated / 2).max(1)),
            per_address: Mutex::default(),
            per_owner: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    pub(crate) async fn admit(&self, address: IpAddr) -> io::Result<Connection> {
        let places = &self.0;
        let all = Arc::clone(&places.all);
        let all = all.try_acquire_owned().map_err(|_| {
            places.refused(address, &format!("all {} connections are taken", places.limits.all))
        })?;
        let too_many =
            || places.refused(address, "too many connections have not sent a token that is valid");
        let of_address = places.of_address(address);
        let mut shares = vec![&of_address.share];
        if !of_address.is_known() {
            if of_address.is_crowded(places.limits) {
                shares.push(&places.crowds);
            }
            shares.push(&places.unauthenticated);
        }
        let mut permits = Vec::new();
        for share in &shares {
            let admitted = Arc::clone(&share.admitted).try_acquire_owned();
            permits.push(admitted.map_err(|_| too_many())?);
        }
        let wait = async {
            for share in &shares {
                permits.extend(Arc::clone(&share.places).acquire_owned().await.ok());
            }
        };
        tokio::time::timeout(PLACE, wait).await.map_err(|_| too_many())?;
        Ok(Connection(Arc::new(Held {
            address,
            of_address,
            places: Arc::clone(places),
            _all: all,
            place: Mutex::new(Place::Unauthenticated { _permits: permits }),
        })))
    }
}

impl Places {
    /// The places for connections from an address; IPv6 hosts have a network of 64 bits each.
    fn of_address(&self, address: IpAddr) -> Arc<OfAddress> {
        let address = match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => v4.into(),
                None => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
            },
            v4 => v4,
        };
        let mut per_address = lock(&self.per_address);
        if let Some(found) = per_address.get(&address) {
            return Arc::clone(found);
        }
        per_address.retain(|_, one| Arc::strong_count(one) > 1 || one.is_known());
        let share = Share::new(self.limits.per_address);
        let new = Arc::new(OfAddress { share, authenticated_at: Mutex::default() });
        per_address.insert(address, Arc::clone(&new));
        new
    }

    /// A place for one more connection of an owner.
    fn of_owner(&self, owner: &str, most: usize) -> Option<OwnedSemaphorePermit> {
        let mut per_owner = lock(&self.per_owner);
        let places = match per_owner.get(owner).and_then(Weak::upgrade) {
            Some(known) => known,
            None => {
                per_owner.retain(|_, places| places.strong_count() > 0);
                let new = Arc::new(Semaphore::new(most.max(1)));
                per_owner.insert(owner.to_owned(), Arc::downgrade(&new));
                new
            }
        };
        places.try_acquire_owned().ok()
    }

    fn refused(&self, address: IpAddr, why: &str) -> io::Error {
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|at| at.elapsed() > BETWEEN_WARNINGS) {
            *warned = Some(Instant::now());
            warn!(%address, why, "connections are refused");
        }
        io::Error::other(why.to_owned())
    }
}

impl Share {
    fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            admitted: Arc::new(Semaphore::new(places * (1 + WAITING))),
        }
    }
}

impl OfAddress {
    fn is_known(&self) -> bool {
        lock(&self.authenticated_at).is_some_and(|at| at.elapsed() < KNOWN)
    }

    fn is_crowded(&self, limits: Limits) -> bool {
        limits.per_address * (1 + WAITING) - self.share.admitted.available_permits() >= CROWD
    }
}

/// A connection, which its requests have among their extensions.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Held>);

#[derive(Debug)]
struct Held {
    address: IpAddr,
    of_address: Arc<OfAddress>,
    places: Arc<Places>,
    _all: OwnedSemaphorePermit,
    place: Mutex<Place>,
}

/// What a connection counts for.
#[derive(Debug)]
enum Place {
    Unauthenticated {
        _permits: Vec<OwnedSemaphorePermit>,
    },
    Authenticated {
        _permits: Vec<OwnedSemaphorePermit>,
        /// When the last request with a valid token began.
        at: Instant,
    },
}

/// Whose the token of a request is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    /// An agent's, or of a task of it.
    Agent { id: &'a str, pool_id: &'a str },
    /// A pool's.
    Pool(&'a str),
    /// Another one with this id.
    Token(&'a str),
}

/// Its owner has all connections that it may have.
#[derive(Debug, thiserror::Error)]
#[error("there are too many connections with this token")]
pub(crate) struct TooMany;

impl Connection {
    /// Where it comes from: a proxy's address, if there is one in between.
    pub(crate) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// Whether one of its requests has had a valid token.
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(*lock(&self.0.place), Place::Authenticated { .. })
    }

    /// Whether a request that began then has, or another one lately.
    fn is_trusted(&self, request_at: Instant) -> bool {
        let is_valid = |at: Instant| at >= request_at || at.elapsed() < TRUSTED;
        matches!(*lock(&self.0.place), Place::Authenticated { at, .. } if is_valid(at))
    }

    fn authenticate(&self, owner: Owner<'_>) -> Result<(), TooMany> {
        let held = &self.0;
        let mut place = lock(&held.place);
        if let Place::Authenticated { at, .. } = &mut *place {
            *at = Instant::now();
            return Ok(());
        }
        let all = held.places.limits.all;
        let (of_one, of_pool) = ((all / OF_ONE).max(LEAST_OF_ONE.min(all / 4)), all / 4 * 3);
        let shares = match owner {
            Owner::Agent { id, pool_id } => vec![(id, of_one), (pool_id, of_pool)],
            Owner::Pool(id) => vec![(id, of_pool)],
            Owner::Token(id) => vec![(id, of_one)],
        };
        let permits: Option<Vec<_>> =
            shares.into_iter().map(|(owner, most)| held.places.of_owner(owner, most)).collect();
        let Some(permits) = permits else {
            held.places.refused(held.address, &format!("{owner:?} has all that it may have"));
            return Err(TooMany);
        };
        *place = Place::Authenticated { _permits: permits, at: Instant::now() };
        *lock(&held.of_address.authenticated_at) = Some(Instant::now());
        Ok(())
    }
}

/// The token of the request with these extensions is valid: its connection may stay.
///
/// # Errors
/// Its owner has too many: the connection ends with the answer.
pub(crate) fn authenticated(request: &Extensions, owner: Owner<'_>) -> Result<(), TooMany> {
    match request.get::<Connection>() {
        Some(connection) => connection.authenticate(owner),
        None => Ok(()),
    }
}

/// The connection of a request that began then.
pub(crate) struct Begun {
    connection: Option<Connection>,
    at: Instant,
}

impl Begun {
    /// A request begins.
    pub(crate) fn begin(request: &Request) -> Self {
        Self { connection: request.extensions().get().cloned(), at: Instant::now() }
    }

    /// Ends the connection with the answer if it has not authenticated, or if its token is not
    /// valid any more.
    pub(crate) fn close_unauthenticated(&self, answer: &mut Response) {
        let is_refused = answer.status() == StatusCode::UNAUTHORIZED;
        let is_over = |connection: &Connection| is_refused || !connection.is_trusted(self.at);
        if self.connection.as_ref().is_some_and(is_over) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// How many files the process may open, once that is as many as it may allow itself.
fn file_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;

    const LIMITS: Limits = Limits { all: 16, unauthenticated: 2, per_address: 1 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn must_wait(gate: &Gate, from: &str) -> bool {
        tokio::time::timeout(Duration::from_millis(50), gate.admit(address(from))).await.is_err()
    }

    fn authenticate_as(connection: &Connection, owner: Owner<'_>) -> Result<(), TooMany> {
        let mut extensions = Extensions::new();
        extensions.insert(connection.clone());
        authenticated(&extensions, owner)
    }

    /// With a token of its own.
    fn authenticate(connection: &Connection) {
        let id = format!("at-{:p}", Arc::as_ptr(&connection.0));
        authenticate_as(connection, Owner::Token(&id)).unwrap();
    }

    #[tokio::test]
    async fn an_agent_and_those_of_a_pool_have_a_share_and_leave_the_rest_to_others() {
        let gate = Gate::new(LIMITS);
        let connect = async |owner: Owner<'_>| {
            let connection = gate.admit(address("192.0.2.1")).await.unwrap();
            authenticate_as(&connection, owner).map(|()| connection)
        };
        let agent = |id| Owner::Agent { id, pool_id: "apool-1" };
        let mut held = Vec::new();
        for id in ["agent-1", "agent-2", "agent-3"] {
            for _ in 0..4 {
                held.push(connect(agent(id)).await.unwrap());
            }
            // What it has goes on; one more does not.
            authenticate_as(&held[0], agent("agent-1")).unwrap();
            connect(agent(id)).await.unwrap_err();
        }
        connect(agent("agent-4")).await.expect_err("the pool has three quarters");
        held.push(connect(Owner::Agent { id: "agent-5", pool_id: "apool-2" }).await.unwrap());
        held.remove(0);
        held.push(connect(agent("agent-4")).await.unwrap());
    }

    #[tokio::test]
    async fn a_connection_waits_until_one_from_its_address_has_authenticated_or_ended() {
        let gate = Gate::new(LIMITS);
        let first = gate.admit(address("192.0.2.1")).await.unwrap();
        assert!(must_wait(&gate, "192.0.2.1").await);
        let other = gate.admit(address("192.0.2.2")).await.unwrap();
        authenticate(&first);
        let second = gate.admit(address("192.0.2.1")).await.unwrap();
        drop((other, second));
        gate.admit(address("192.0.2.1")).await.unwrap();
    }

    #[tokio::test]
    async fn connections_that_have_authenticated_count_in_the_total_alone() {
        let gate = Gate::new(Limits { all: 3, ..LIMITS });
        let mut held = Vec::new();
        for _ in 0..3 {
            let connection = gate.admit(address("192.0.2.1")).await.unwrap();
            authenticate(&connection);
            held.push(connection);
        }
        let error = gate.admit(address("192.0.2.1")).await.unwrap_err();
        assert_eq!(error.to_string(), "all 3 connections are taken");
        held.pop();
        gate.admit(address("192.0.2.1")).await.unwrap();
    }

    #[tokio::test]
    async fn those_that_wait_leave_connections_to_others() {
        let gate = Gate::new(LIMITS);
        let tried = |from: String| {
            let mut admitted = Box::pin(gate.admit(address(&from)));
            (admitted.as_mut().now_or_never(), admitted)
        };
        let of_one: Vec<_> = (0..20).map(|_| tried("192.0.2.1".to_owned())).collect();
        let refused = of_one.iter().filter(|(tried, _)| matches!(tried, Some(Err(_)))).count();
        assert_eq!(refused, 20 - LIMITS.per_address * (1 + WAITING));
        gate.admit(address("192.0.2.2")).await.unwrap();
        // Many addresses at once leave half of the connections to those that authenticate.
        drop(of_one);
        let many: Vec<_> = (10..30).map(|last| tried(format!("192.0.2.{last}"))).collect();
        let refused = many.iter().filter(|(tried, _)| matches!(tried, Some(Err(_)))).count();
        assert_eq!(refused, 20 - LIMITS.all / 2);
    }

    #[tokio::test]
    async fn crowded_addresses_leave_places_to_others() {
        let limits = Limits { all: 800, unauthenticated: 100, per_address: 50 };
        let gate = Gate::new(limits);
        let mut crowd = Vec::new();
        for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            for _ in 0..limits.per_address {
                crowd.push(Box::pin(unconstrained(gate.admit(address(from)))));
            }
        }
        let held: Vec<_> = crowd.iter_mut().map(|one| one.now_or_never()).collect();
        assert_eq!(held.iter().flatten().count(), limits.unauthenticated / 2 + 3 * CROWD);
        gate.admit(address("192.0.2.4")).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_that_have_authenticated_need_no_place_of_others() {
        let gate = Gate::new(LIMITS);
        let agent = gate.admit(address("192.0.2.1")).await.unwrap();
        authenticate(&agent);
        drop(agent);
        let flood = async |last: u8| gate.admit(address(&format!("192.0.2.{last}"))).await.unwrap();
        let _flood = [flood(2).await, flood(3).await];
        assert!(must_wait(&gate, "192.0.2.4").await);
        let _again = gate.admit(address("192.0.2.1")).await.unwrap();
        assert!(must_wait(&gate, "192.0.2.1").await, "its own places are limited");
    }

    #[tokio::test]
    async fn addresses_of_one_ipv6_network_share_their_places() {
        let gate = Gate::new(LIMITS);
        let _first = gate.admit(address("2001:db8::1")).await.unwrap();
        assert!(must_wait(&gate, "2001:db8::2").await);
        gate.admit(address("2001:db8:0:1::1")).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_without_connections_are_forgotten() {
        let gate = Gate::new(LIMITS);
        for last in 1..100 {
            gate.admit(address(&format!("192.0.2.{last}"))).await.unwrap();
        }
        assert!(lock(&gate.0.per_address).len() <= 2);
    }
}

//! How many connections the server holds.
//!
//! A connection that has not authenticated yet takes one of few places. It gives the place
//! up with its first request that authenticates, or it ends: after [`FIRST_REQUEST`] without
//! a request, or with the answer to a request that needs no token or has a wrong one. So
//! whoever has no token can hold few connections, and none for long, while agents can hold
//! as many polls as there are agents.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{Extensions, HeaderValue};
use axum::middleware::{AddExtension, Next};
use axum::response::Response;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer as _;
use tracing::warn;

use super::paced::Paced;

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
    unauthenticated: Arc<Semaphore>,
    per_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    warned: Mutex<Option<Instant>>,
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
        Self(Arc::new(Places {
            limits,
            all: Arc::new(Semaphore::new(limits.all)),
            unauthenticated: Arc::new(Semaphore::new(limits.unauthenticated)),
            per_address: Mutex::default(),
            warned: Mutex::default(),
        }))
    }

    pub(crate) async fn admit(&self, address: IpAddr) -> io::Result<Connection> {
        let places = &self.0;
        let all = Arc::clone(&places.all);
        let all = all.try_acquire_owned().map_err(|_| {
            places.refused(address, &format!("all {} connections are taken", places.limits.all))
        })?;
        let place = async {
            let of_address = places.of_address(address).acquire_owned().await;
            let unauthenticated = Arc::clone(&places.unauthenticated).acquire_owned().await;
            Place { _of_address: of_address.ok(), _unauthenticated: unauthenticated.ok() }
        };
        let place = tokio::time::timeout(PLACE, place).await.map_err(|_| {
            places.refused(address, "too many connections have not sent a token that is valid")
        })?;
        Ok(Connection(Arc::new(Held { address, _all: all, place: Mutex::new(Some(place)) })))
    }
}

impl Places {
    /// The places for connections from an address; IPv6 hosts have a network of 64 bits each.
    fn of_address(&self, address: IpAddr) -> Arc<Semaphore> {
        let address = match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => v4.into(),
                None => IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes()),
            },
            v4 => v4,
        };
        let mut per_address = lock(&self.per_address);
        if let Some(known) = per_address.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        per_address.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.limits.per_address));
        per_address.insert(address, Arc::downgrade(&places));
        places
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

impl<S: Send + 'static> Accept<TcpStream, S> for Gate {
    type Stream = Paced;
    type Service = AddExtension<S, Connection>;
    type Future = BoxFuture<'static, io::Result<(Paced, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            // Small answers wait for nothing: no Nagle.
            stream.set_nodelay(true)?;
            let connection = gate.admit(stream.peer_addr()?.ip()).await?;
            let stream = Paced::new(stream, connection.clone());
            Ok((stream, Extension(connection).layer(service)))
        })
    }
}

/// A connection, which its requests have among their extensions.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Held>);

#[derive(Debug)]
struct Held {
    address: IpAddr,
    _all: OwnedSemaphorePermit,
    /// None once a request has authenticated.
    place: Mutex<Option<Place>>,
}

#[derive(Debug)]
struct Place {
    _of_address: Option<OwnedSemaphorePermit>,
    _unauthenticated: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Where it comes from: a proxy's address, if there is one in between.
    pub(crate) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// Whether one of its requests has had a valid token.
    pub(crate) fn is_authenticated(&self) -> bool {
        lock(&self.0.place).is_none()
    }
}

/// The token of the request with these extensions is valid: its connection may stay.
pub(crate) fn authenticated(request: &Extensions) {
    if let Some(Connection(held)) = request.get() {
        lock(&held.place).take();
    }
}

/// Ends a connection that has not authenticated with the answer.
pub(crate) async fn close_unauthenticated(request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let mut answer = next.run(request).await;
    if connection.is_some_and(|connection| !connection.is_authenticated()) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
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
    use super::*;

    const LIMITS: Limits = Limits { all: 3, unauthenticated: 2, per_address: 1 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn must_wait(gate: &Gate, from: &str) -> bool {
        tokio::time::timeout(Duration::from_millis(50), gate.admit(address(from))).await.is_err()
    }

    fn authenticate(connection: &Connection) {
        let mut extensions = Extensions::new();
        extensions.insert(connection.clone());
        authenticated(&extensions);
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
        let gate = Gate::new(LIMITS);
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

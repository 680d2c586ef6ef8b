//! The running side of [`throttle`](super::throttle) and [`events`](super::events): counts wrong
//! credentials, writes their lines, and holds answers back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;
use fleetloop_protocol::Digest;
use tokio::sync::{Semaphore, watch};

use super::events::{Count, DOORS, Door, Events, Line, WINDOW};
use super::throttle::{Network, Throttle};
use crate::store::{Store, audit};

/// The longest that an answer is held back; the client is asked to wait longer.
const HELD: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 2000 });

/// Answers that are held back at once; one more goes out at once.
const HELD_AT_ONCE: usize = 64;

/// The log's line about an address.
pub(super) const WRONG: &str = "SECURITY: wrong credential";

/// The log's line about the addresses that have none of their own.
pub(super) const WRONG_ELSEWHERE: &str = "SECURITY: wrong credentials from other addresses";

/// Where a request came from, for [`Watch`]. A request that came over no connection (in tests) is
/// from nowhere, `0.0.0.0`.
#[derive(Debug, Clone, Copy)]
pub struct Asker(pub Network);

impl Asker {
    /// Whoever sent the request with those extensions.
    pub fn of(extensions: &Extensions) -> Self {
        let address = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
        Self(Network::of(address))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.extensions))
    }
}

/// The answer to a wrong credential is "later": 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// After how many seconds, for the header `Retry-After`.
    pub seconds: u64,
}

/// Counts wrong credentials; cheap to clone.
#[derive(Clone, Default)]
pub struct Watch(Arc<Inner>);

struct Inner {
    seen: Mutex<Seen>,
    held: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        Self { seen: Mutex::default(), held: Semaphore::new(HELD_AT_ONCE) }
    }
}

#[derive(Default)]
struct Seen {
    throttle: Throttle,
    events: Events,
    /// Since the start.
    counts: BTreeMap<Door, Count>,
}

impl Watch {
    /// A credential was wrong. Returns when it may be answered, and whether the answer is "later".
    /// The account is what the credential claimed, where it claims one.
    pub async fn wrong(
        &self,
        door: Door,
        asker: Asker,
        account: Option<Digest>,
    ) -> Result<(), Later> {
        let wait = self.count(door, asker.0, account);
        if wait.is_zero() {
            return Ok(());
        }
        if let Ok(_permit) = self.0.held.try_acquire() {
            tokio::time::sleep(wait.min(HELD)).await;
        }
        Err(Later { seconds: wait.as_secs() })
    }

    fn count(&self, door: Door, from: Network, account: Option<Digest>) -> Duration {
        let mut seen = self.seen();
        let wait = seen.throttle.failed(Instant::now(), from, account);
        let is_slowed = !wait.is_zero();
        let count = seen.counts.entry(door).or_default();
        count.failures += 1;
        count.slowed += u64::from(is_slowed);
        let line = seen.events.note(door, from, is_slowed);
        drop(seen);
        line.iter().for_each(log);
        wait
    }

    /// Wrong credentials since the start, by door.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.by_door(|count| count.failures)
    }

    /// Those among them that were answered with "later", by door.
    pub fn slowed(&self) -> BTreeMap<String, u64> {
        self.by_door(|count| count.slowed)
    }

    fn by_door(&self, number: impl Fn(Count) -> u64) -> BTreeMap<String, u64> {
        let seen = self.seen();
        let of = |door| number(seen.counts.get(&door).copied().unwrap_or_default());
        DOORS.iter().map(|door| (door.name().to_owned(), of(*door))).collect()
    }

    /// Writes what each window holds, until the hub stops.
    pub async fn run(self, store: Store, mut stopping: watch::Receiver<bool>) {
        loop {
            // Cancel-safe: a timer and a watch.
            let is_last = tokio::select! {
                () = tokio::time::sleep(WINDOW) => false,
                _ = stopping.wait_for(|stop| *stop) => true,
            };
            self.end_window(&store).await;
            if is_last {
                return;
            }
        }
    }

    pub(super) async fn end_window(&self, store: &Store) {
        let (lines, words) = self.seen().events.end();
        lines.iter().for_each(log);
        let Some(words) = words else { return };
        let written =
            store.write(move |tx| audit(tx, "hub", "credential.wrong", "hub", &words)).await;
        if let Err(error) = written {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write the audit log");
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(line: &Line) {
    let Count { failures, slowed } = line.count;
    match (line.door, line.from) {
        (Some(door), Some(from)) => {
            tracing::warn!(door = door.name(), %from, failures, slowed, "{WRONG}");
        }
        _ => tracing::warn!(failures, slowed, "{WRONG_ELSEWHERE}"),
    }
}

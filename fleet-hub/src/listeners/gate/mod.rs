//! The gate: the one place where a connection to any of the hub's listeners is let in, and from
//! where it is closed.
//!
//! Invariants:
//! - Connections without authentication never take the descriptors of those with it, nor those that
//!   the hub needs itself ([`budget`]). Whoever comes is let in; at a limit somebody goes ([`book`]).
//! - Every phase of a connection without an answer has an end: [`Connection::enter`] sets it, and
//!   [`Connection::closed`] is where it is waited for. An answer that is being made has none.
//! - What the gate closes is counted by listener and reason, and told in the log at most once in
//!   [`LOG_EVERY`] for each.

pub mod book;
pub mod budget;
pub mod limits;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use book::{Book, ConnectionId, Holder, ListenerKind, Phase, Reason};
use budget::Budget;
use limits::ConnectionLimits;

/// How often one reason of one listener is told in the log at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// With so many that were told to close and still hold their descriptors, no more are accepted.
const CLOSING: usize = 32;

/// When a connection is to be closed, and for what; none while it may go on.
type Due = Option<(Instant, Reason)>;

/// The gate; cheap to clone.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    limits: ConnectionLimits,
    budget: Budget,
    state: Mutex<State>,
    /// Told when a connection is gone.
    left: Notify,
}

struct State {
    book: Book,
    due: BTreeMap<ConnectionId, watch::Sender<Due>>,
    closed: BTreeMap<(ListenerKind, Reason), Closed>,
}

/// What was closed on one listener for one reason.
#[derive(Default)]
struct Closed {
    count: u64,
    /// When it was last told, and how many there were then.
    told: Option<(Instant, u64)>,
}

impl Gate {
    /// A gate for a process that may have `descriptors` open.
    pub fn new(descriptors: u64, limits: &ConnectionLimits) -> Self {
        let budget = Budget::new(descriptors, limits);
        let state =
            State { book: Book::new(budget), due: BTreeMap::new(), closed: BTreeMap::new() };
        let shared = Shared {
            limits: limits.clone(),
            budget,
            state: Mutex::new(state),
            left: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who may have how many connections.
    pub fn budget(&self) -> Budget {
        self.shared.budget
    }

    /// The limits in force.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.shared.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until those that were told to close have done so, but for a few.
    pub(super) async fn settled(&self) {
        loop {
            let left = self.shared.left.notified();
            if self.state().book.closing() < CLOSING {
                return;
            }
            left.await;
        }
    }

    /// Lets in a connection that was accepted.
    pub(super) fn admit(&self, listener: ListenerKind, from: SocketAddr) -> Admitted {
        let due = Instant::now() + seconds(self.shared.limits.handshake_s);
        let (tx, rx) = watch::channel(Some((due, Reason::Handshake)));
        let mut state = self.state();
        let (id, goes) = state.book.admit(listener, from.ip());
        state.due.insert(id, tx);
        for (goes, reason) in goes {
            state.close(goes, reason);
        }
        let (gate, accepted) = (self.clone(), Instant::now());
        Admitted(Connection { gate, id, listener, from, accepted, due: rx })
    }

    /// How many connections there are, by listener, kind of holder and phase.
    pub fn open(&self) -> BTreeMap<(ListenerKind, &'static str, Phase), u64> {
        self.state().book.counts()
    }

    /// How many the gate has closed, by listener and reason.
    pub fn closed(&self) -> BTreeMap<(ListenerKind, Reason), u64> {
        self.state().closed.iter().map(|(key, closed)| (*key, closed.count)).collect()
    }
}

impl State {
    fn close(&mut self, id: ConnectionId, reason: Reason) {
        if let Some(due) = self.due.get(&id) {
            due.send_replace(Some((Instant::now(), reason)));
        }
    }
}

/// A connection that was let in; dropping it says that it is gone.
pub(super) struct Admitted(pub(super) Connection);

impl Drop for Admitted {
    fn drop(&mut self) {
        let Connection { gate, id, .. } = &self.0;
        let mut state = gate.state();
        state.book.leave(*id);
        state.due.remove(id);
        drop(state);
        gate.shared.left.notify_waiters();
    }
}

/// A connection as those see it who serve it; also in each request of it.
#[derive(Clone)]
pub struct Connection {
    gate: Gate,
    id: ConnectionId,
    listener: ListenerKind,
    from: SocketAddr,
    accepted: Instant,
    due: watch::Receiver<Due>,
}

impl Connection {
    /// Where it comes from.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// The limits in force.
    pub fn limits(&self) -> &ConnectionLimits {
        self.gate.limits()
    }

    /// The connection does something else from now on, within that phase's time.
    pub(crate) fn enter(&self, phase: Phase) {
        let limits = self.limits();
        let (within, reason) = match phase {
            Phase::Handshake => (limits.handshake_s, Reason::Handshake),
            Phase::Header => (limits.header_s, Reason::Header),
            Phase::Idle => (limits.keep_alive_s, Reason::KeepAlive),
            Phase::Connect => (limits.connect_s, Reason::Connect),
            Phase::Request | Phase::Session => {
                self.enter_until(phase, None);
                return;
            }
        };
        self.enter_until(phase, Some((Instant::now() + seconds(within), reason)));
    }

    /// The same for who is refused anyway: what is left of the handshake's time.
    pub(crate) fn enter_to_be_refused(&self) {
        let due = self.accepted + seconds(self.limits().handshake_s);
        self.enter_until(Phase::Connect, Some((due, Reason::Connect)));
    }

    fn enter_until(&self, phase: Phase, due: Due) {
        let mut state = self.gate.state();
        // One that was told to close stays so.
        if state.book.enter(self.id, phase)
            && let Some(tx) = state.due.get(&self.id)
        {
            tx.send_replace(due);
        }
    }

    /// Bytes came: one that waited for a request is about its header now.
    pub(super) fn heard(&self) {
        if self.gate.state().book.phase(self.id) == Some(Phase::Idle) {
            self.enter(Phase::Header);
        }
    }

    /// Whose connection it is, and how many descriptors it takes from now on. False when there are
    /// none left; it is then no better off than before.
    pub(crate) fn authenticated(&self, holder: Holder, descriptors: u64) -> bool {
        let mut state = self.gate.state();
        match state.book.authenticate(self.id, holder, descriptors) {
            Ok(goes) => {
                if let Some(goes) = goes {
                    state.close(goes, Reason::Device);
                }
                true
            }
            Err(book::Full) => {
                drop(state);
                self.gate.count(self.listener, Reason::Full, self.from.ip());
                false
            }
        }
    }

    /// Somebody proved with a token or a session of the page that the connection is theirs.
    pub fn authenticated_by_token(&self) {
        if self.gate.state().book.is_unauthenticated(self.id) {
            self.authenticated(Holder::Token, 2);
        }
    }

    /// Takes down why the connection ends.
    pub(crate) fn ended_by(&self, reason: Reason) {
        self.gate.count(self.listener, reason, self.from.ip());
    }

    /// Waits until the connection must be closed and takes that down. Cancel-safe.
    pub(super) async fn closed(&self) {
        let mut due = self.due.clone();
        loop {
            let now = *due.borrow_and_update();
            let over = async {
                match now {
                    Some((at, reason)) => {
                        tokio::time::sleep_until(at).await;
                        reason
                    }
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: the time is set anew from what `due` holds.
            tokio::select! {
                reason = over => {
                    self.ended_by(reason);
                    return;
                }
                changed = due.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Gate {
    fn count(&self, listener: ListenerKind, reason: Reason, from: IpAddr) {
        let mut state = self.state();
        let closed = state.closed.entry((listener, reason)).or_default();
        closed.count += 1;
        // The ordinary end of a connection is worth no line.
        if reason == Reason::KeepAlive {
            return;
        }
        let (since, before) = closed.told.unzip();
        if since.is_some_and(|since| since.elapsed() < LOG_EVERY) {
            return;
        }
        let more = closed.count - before.unwrap_or(0);
        closed.told = Some((Instant::now(), closed.count));
        drop(state);
        let (listener, reason) = (listener.name(), reason.name());
        tracing::warn!(
            listener,
            reason,
            connections = more,
            last_from = %from,
            "closed connections"
        );
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

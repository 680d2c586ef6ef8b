//! Who is connected, and who goes when one more comes: pure, no clock, no socket.
//!
//! A newcomer is never turned away for strangers' sake: it is let in, and at a limit the oldest
//! connection without authentication goes, one that waits between two requests before one that does
//! not. It is taken from the address that has the most, so that a crowd takes places from itself.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use fleetloop_protocol::DeviceId;

use super::budget::Budget;

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerKind {
    /// Pages, API, enrolment.
    Admin,
    /// HTTPS for devices.
    Device,
    /// MQTT for devices.
    Mqtt,
}

impl ListenerKind {
    /// Its name in metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Device => "device",
            Self::Mqtt => "mqtt",
        }
    }
}

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its TLS handshake.
    Handshake,
    /// The header of a request.
    Header,
    /// The body of a request, or its answer.
    Request,
    /// Nothing, between two requests.
    Idle,
    /// Its MQTT CONNECT.
    Connect,
    /// An MQTT session.
    Session,
}

impl Phase {
    /// Whether something is under way that would be lost.
    fn is_work(self) -> bool {
        matches!(self, Self::Request | Self::Session)
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Request => "request",
            Self::Idle => "idle",
            Self::Connect => "connect",
            Self::Session => "session",
        }
    }
}

/// Why the hub closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The TLS handshake took too long.
    Handshake,
    /// The header of a request took too long.
    Header,
    /// The body of a request was silent or slow.
    Body,
    /// No further request came.
    KeepAlive,
    /// No MQTT CONNECT came.
    Connect,
    /// What was sent was not taken.
    Write,
    /// There were too many of its address.
    Address,
    /// There were too many on its listener.
    Listener,
    /// There were too many without authentication.
    Unauthenticated,
    /// The device had too many.
    Device,
    /// All descriptors for those who authenticated are taken.
    Full,
    /// Its certificate names no enrolled device.
    NotEnrolled,
}

impl Reason {
    /// Its name in metrics and log lines: the key in `[limits.connections]` where there is one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake_s",
            Self::Header => "header_s",
            Self::Body => "body_silence_s",
            Self::KeepAlive => "keep_alive_s",
            Self::Connect => "connect_s",
            Self::Write => "write_silence_s",
            Self::Address => "unauthenticated_per_address",
            Self::Listener => "unauthenticated_per_listener",
            Self::Unauthenticated => "unauthenticated",
            Self::Device => "per_device",
            Self::Full => "descriptors",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

/// Who a connection belongs to, as far as it has proven it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody yet.
    Unauthenticated,
    /// An enrolled device, by its certificate.
    Device(DeviceId),
    /// Whoever has a token or a session of the page.
    Token,
    /// The hub's own client.
    Hub,
}

impl Holder {
    /// Its kind in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Device(_) => "device",
            Self::Token => "token",
            Self::Hub => "hub",
        }
    }
}

/// All descriptors for those who authenticated are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// A connection's number; a later one is higher.
pub type ConnectionId = u64;

/// A connection.
#[derive(Debug)]
struct Entry {
    listener: ListenerKind,
    from: IpAddr,
    holder: Holder,
    phase: Phase,
    descriptors: u64,
}

/// All connections.
#[derive(Debug)]
pub struct Book {
    budget: Budget,
    next: ConnectionId,
    open: BTreeMap<ConnectionId, Entry>,
    /// Those that were told to close and still hold their descriptors.
    closing: BTreeMap<ConnectionId, ListenerKind>,
}

impl Book {
    /// Without any connection.
    pub fn new(budget: Budget) -> Self {
        Self { budget, next: 0, open: BTreeMap::new(), closing: BTreeMap::new() }
    }

    /// Lets a connection in, and names those that must be closed for it: one, or two where its
    /// address has too many on another listener.
    pub fn admit(
        &mut self,
        listener: ListenerKind,
        from: IpAddr,
    ) -> (ConnectionId, Vec<(ConnectionId, Reason)>) {
        let from = network(from);
        let mut goes = Vec::new();
        while let Some((id, limit)) = self.goes_for(listener, from) {
            self.close(id);
            goes.push((id, limit));
        }
        let id = self.next;
        self.next += 1;
        let (holder, phase) = (Holder::Unauthenticated, Phase::Handshake);
        self.open.insert(id, Entry { listener, from, holder, phase, descriptors: 1 });
        (id, goes)
    }

    fn goes_for(&self, listener: ListenerKind, from: IpAddr) -> Option<(ConnectionId, Reason)> {
        let Budget {
            unauthenticated,
            unauthenticated_per_listener,
            unauthenticated_per_address,
            ..
        } = self.budget;
        let by_address = self.count_by(|entry| entry.from);
        if by_address.get(&from).is_some_and(|count| *count >= unauthenticated_per_address) {
            let goes = self.oldest(|entry| entry.from == from)?;
            return Some((goes, Reason::Address));
        }
        let here = self.count_by(|entry| (entry.listener == listener).then_some(entry.from));
        let here_in_all: u64 = here.iter().filter(|(from, _)| from.is_some()).map(|(_, n)| n).sum();
        if here_in_all >= unauthenticated_per_listener {
            let (most, _) =
                here.iter().filter(|(from, _)| from.is_some()).max_by_key(|(_, count)| **count)?;
            let goes =
                self.oldest(|entry| entry.listener == listener && Some(entry.from) == *most)?;
            return Some((goes, Reason::Listener));
        }
        let groups = self.count_by(|entry| (entry.listener, entry.from));
        if groups.values().sum::<u64>() >= unauthenticated {
            let (most, _) = groups.iter().max_by_key(|(_, count)| **count)?;
            let goes = self.oldest(|entry| (entry.listener, entry.from) == *most)?;
            return Some((goes, Reason::Unauthenticated));
        }
        None
    }

    fn unauthenticated(&self) -> impl Iterator<Item = (ConnectionId, &Entry)> {
        let all = self.open.iter().map(|(id, entry)| (*id, entry));
        all.filter(|(_, entry)| entry.holder == Holder::Unauthenticated)
    }

    fn count_by<K: Eq + Hash>(&self, key: impl Fn(&Entry) -> K) -> HashMap<K, u64> {
        let mut counts = HashMap::new();
        for (_, entry) in self.unauthenticated() {
            *counts.entry(key(entry)).or_default() += 1;
        }
        counts
    }

    fn oldest(&self, of: impl Fn(&Entry) -> bool) -> Option<ConnectionId> {
        self.unauthenticated()
            .filter(|(_, entry)| of(entry))
            .min_by_key(|(id, entry)| (entry.phase != Phase::Idle, *id))
            .map(|(id, _)| id)
    }

    /// Takes down whose connection it is, and that it takes `descriptors` from now on. Names the
    /// device's oldest connection where that must be closed for it, one at work last.
    ///
    /// # Errors
    /// There are not so many descriptors left; nothing has changed.
    pub fn authenticate(
        &mut self,
        id: ConnectionId,
        holder: Holder,
        descriptors: u64,
    ) -> Result<Option<ConnectionId>, Full> {
        let taken: u64 = self
            .open
            .iter()
            .filter(|(other, entry)| {
                **other != id && !matches!(entry.holder, Holder::Unauthenticated | Holder::Hub)
            })
            .map(|(_, entry)| entry.descriptors)
            .sum();
        if holder != Holder::Hub && taken + descriptors > self.budget.authenticated {
            return Err(Full);
        }
        let Some(listener) = self.open.get(&id).map(|entry| entry.listener) else {
            return Ok(None);
        };
        let of_device = |entry: &Entry| {
            matches!(holder, Holder::Device(_))
                && entry.holder == holder
                && entry.listener == listener
        };
        let others: Vec<(bool, ConnectionId)> = self
            .open
            .iter()
            .filter(|(other, entry)| **other != id && of_device(entry))
            .map(|(other, entry)| (entry.phase.is_work(), *other))
            .collect();
        let is_over = others.len() as u64 >= self.budget.per_device;
        // One at work goes last: a device that opens many does not end its own session.
        let goes = others.into_iter().min().filter(|_| is_over).map(|(_, goes)| goes);
        if let Some(goes) = goes {
            self.close(goes);
        }
        if let Some(entry) = self.open.get_mut(&id) {
            (entry.holder, entry.descriptors) = (holder, descriptors);
        }
        Ok(goes)
    }

    /// Takes down what a connection is about; false when it must close.
    pub fn enter(&mut self, id: ConnectionId, phase: Phase) -> bool {
        let entry = self.open.get_mut(&id);
        entry.map(|entry| entry.phase = phase).is_some()
    }

    /// What an open connection is about.
    pub fn phase(&self, id: ConnectionId) -> Option<Phase> {
        self.open.get(&id).map(|entry| entry.phase)
    }

    /// Whether nobody knows yet whose an open connection is.
    pub fn is_unauthenticated(&self, id: ConnectionId) -> bool {
        self.open.get(&id).is_some_and(|entry| entry.holder == Holder::Unauthenticated)
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(entry) = self.open.remove(&id) {
            self.closing.insert(id, entry.listener);
        }
    }

    /// A connection is gone, and so are its descriptors.
    pub fn leave(&mut self, id: ConnectionId) {
        self.open.remove(&id);
        self.closing.remove(&id);
    }

    /// How many were told to close and still hold their descriptors.
    pub fn closing(&self) -> usize {
        self.closing.len()
    }

    /// How many there are, by listener, kind of holder and phase.
    pub fn counts(&self) -> BTreeMap<(ListenerKind, &'static str, Phase), u64> {
        let mut counts = BTreeMap::new();
        for entry in self.open.values() {
            *counts.entry((entry.listener, entry.holder.name(), entry.phase)).or_default() += 1;
        }
        counts
    }
}

/// What counts as one address: whoever has an IPv6 address has a /64.
pub fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget {
        descriptors: 1024,
        unauthenticated: 10,
        unauthenticated_per_listener: 6,
        unauthenticated_per_address: 4,
        authenticated: 12,
        per_device: 2,
    };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn device(name: &str) -> Holder {
        Holder::Device(name.parse().unwrap())
    }

    #[test]
    fn a_crowd_of_one_address_closes_its_own_oldest_and_no_other() {
        let mut book = Book::new(BUDGET);
        let (other, _) = book.admit(ListenerKind::Mqtt, ip(2));
        let crowd: Vec<_> = (0..20).map(|_| book.admit(ListenerKind::Mqtt, ip(1))).collect();
        for (at, (_, goes)) in crowd.iter().enumerate() {
            let expected = at.checked_sub(4).map(|oldest| (crowd[oldest].0, Reason::Address));
            assert_eq!(*goes, Vec::from_iter(expected));
        }
        assert!(book.enter(other, Phase::Connect));
    }

    #[test]
    fn a_crowd_of_many_addresses_leaves_the_newest_in_and_other_listeners_alone() {
        let mut book = Book::new(BUDGET);
        let (page, _) = book.admit(ListenerKind::Admin, ip(200));
        for last in 0..100 {
            let (newest, goes) = book.admit(ListenerKind::Mqtt, ip(last));
            assert_eq!(goes.len(), usize::from(last >= 6));
            assert!(book.enter(newest, Phase::Connect));
        }
        assert!(book.enter(page, Phase::Request));
    }

    #[test]
    fn between_two_requests_goes_before_the_older_that_waits_for_its_first() {
        let mut book = Book::new(BUDGET);
        let (first, _) = book.admit(ListenerKind::Admin, ip(1));
        let (second, _) = book.admit(ListenerKind::Admin, ip(1));
        let (third, _) = book.admit(ListenerKind::Admin, ip(1));
        book.enter(second, Phase::Idle);
        book.enter(third, Phase::Header);
        book.admit(ListenerKind::Admin, ip(1));
        let (_, goes) = book.admit(ListenerKind::Admin, ip(1));
        assert_eq!(goes, [(second, Reason::Address)]);
        assert!(book.enter(first, Phase::Header));
    }

    #[test]
    fn who_authenticated_is_closed_for_no_stranger() {
        let mut book = Book::new(BUDGET);
        let (device_, _) = book.admit(ListenerKind::Mqtt, ip(1));
        assert_eq!(book.authenticate(device_, device("dev-a"), 3), Ok(None));
        for last in 0..100 {
            book.admit(ListenerKind::Mqtt, ip(1));
            book.admit(ListenerKind::Mqtt, ip(last));
        }
        assert!(book.enter(device_, Phase::Session));
    }

    #[test]
    fn a_device_over_its_number_loses_its_own_oldest() {
        let mut book = Book::new(BUDGET);
        let ids: Vec<_> = (0..4).map(|_| book.admit(ListenerKind::Device, ip(1)).0).collect();
        assert_eq!(book.authenticate(ids[0], device("dev-a"), 2), Ok(None));
        assert_eq!(book.authenticate(ids[1], device("dev-b"), 2), Ok(None));
        assert_eq!(book.authenticate(ids[2], device("dev-a"), 2), Ok(None));
        assert_eq!(book.authenticate(ids[3], device("dev-a"), 2), Ok(Some(ids[0])));
        assert!(book.enter(ids[1], Phase::Request));
        // But one at work only where all are.
        book.enter(ids[2], Phase::Session);
        let (another, _) = book.admit(ListenerKind::Device, ip(1));
        assert_eq!(book.authenticate(another, device("dev-a"), 2), Ok(Some(ids[3])));
    }

    #[test]
    fn without_descriptors_left_nobody_more_authenticates_but_the_hub() {
        let mut book = Book::new(BUDGET);
        for name in ["dev-a", "dev-b", "dev-c", "dev-d"] {
            let (id, _) = book.admit(ListenerKind::Mqtt, ip(1));
            assert_eq!(book.authenticate(id, device(name), 3), Ok(None));
        }
        let (id, _) = book.admit(ListenerKind::Mqtt, ip(1));
        assert_eq!(book.authenticate(id, device("dev-e"), 3), Err(Full));
        assert_eq!(book.authenticate(id, Holder::Hub, 3), Ok(None));
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_its_ipv4() {
        let one = |text: &str| network(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:0:0:2"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:10.0.0.1"), ip(1));
    }

    proptest! {
        /// Whatever comes and goes, no number is ever above its limit.
        #[test]
        fn no_limit_is_ever_passed(
            events in prop::collection::vec((0u8..5, 0u8..6, 0u64..40, 0u8..6), 0..200)
        ) {
            let mut book = Book::new(BUDGET);
            for (what, address, id, phase) in events {
                let listener = [ListenerKind::Admin, ListenerKind::Device, ListenerKind::Mqtt][usize::from(address % 3)];
                let phase = [Phase::Header, Phase::Idle, Phase::Connect][usize::from(phase % 3)];
                match what {
                    0 | 1 => drop(book.admit(listener, ip(address))),
                    2 => drop(book.authenticate(id, device(&format!("dev-{address}")), 3)),
                    3 => drop(book.enter(id, phase)),
                    _ => book.leave(id),
                }
                let strangers = book.count_by(|entry| entry.from);
                prop_assert!(strangers.values().all(|n| *n <= BUDGET.unauthenticated_per_address));
                prop_assert!(strangers.values().sum::<u64>() <= BUDGET.unauthenticated);
                let listeners = book.count_by(|entry| entry.listener);
                prop_assert!(listeners.values().all(|n| *n <= BUDGET.unauthenticated_per_listener));
                let taken: u64 = book.open.values()
                    .filter(|entry| entry.holder != Holder::Unauthenticated)
                    .map(|entry| entry.descriptors).sum();
                prop_assert!(taken <= BUDGET.authenticated);
            }
        }
    }
}

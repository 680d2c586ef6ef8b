//! What was dropped or slowed: counted at once, told by [`super::watch`] every few seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetloop_protocol::DeviceId;

/// Devices that are told apart between two reports; the others are one.
const DEVICES: usize = 1024;

/// Why something of a device went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Over its quota of messages or bytes, at an external broker.
    Quota,
    /// It waited too long for a place on the way from the broker to the hub.
    Way,
    /// The broker's queue for the hub's client was full, or that client's session ended.
    Queue,
    /// The broker's queue for the device was full: an answer of the hub to it.
    Answer,
    /// The hub has too many messages under way.
    Backlog,
    /// A line about a message that the log was spared.
    LogLine,
    /// A line that the audit log was spared.
    AuditLine,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Quota,
        Self::Way,
        Self::Queue,
        Self::Answer,
        Self::Backlog,
        Self::LogLine,
        Self::AuditLine,
    ];

    /// A stable word, the label of the metric.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Way => "way",
            Self::Queue => "queue",
            Self::Answer => "answer",
            Self::Backlog => "backlog",
            Self::LogLine => "log_line",
            Self::AuditLine => "audit_line",
        }
    }

    /// The same in words, after a number.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Quota => "messages over its quota",
            Self::Way => "messages that waited too long in the broker",
            Self::Queue => "messages that the broker's queue for the hub had no room for",
            Self::Answer => "answers that the broker's queue for it had no room for",
            Self::Backlog => "messages over its share of the hub's backlog",
            Self::LogLine => "log lines",
            Self::AuditLine => "audit lines",
        }
    }

    /// Whether a message was dropped, and not only a line about one.
    pub const fn is_message(self) -> bool {
        !matches!(self, Self::LogLine | Self::AuditLine)
    }
}

/// What became of one device's messages since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// How many, by reason.
    pub dropped: BTreeMap<Why, u64>,
    /// Messages that were held up.
    pub slowed: u64,
    /// For how long together.
    pub slowed_for: Duration,
}

/// The counts of all devices.
#[derive(Default)]
pub struct Drops(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    total: BTreeMap<Why, u64>,
    slowed: u64,
    /// Since the last report; none is whoever found no place.
    fresh: BTreeMap<Option<DeviceId>, Noted>,
}

impl Drops {
    /// Counts something that was dropped.
    pub fn note(&self, device: &DeviceId, why: Why) {
        let mut counts = self.counts();
        *counts.total.entry(why).or_default() += 1;
        *counts.of(device).dropped.entry(why).or_default() += 1;
    }

    /// Counts a message that was held up.
    pub fn slowed(&self, device: &DeviceId, wait: Duration) {
        let mut counts = self.counts();
        counts.slowed += 1;
        let noted = counts.of(device);
        noted.slowed += 1;
        noted.slowed_for += wait;
    }

    /// All that was dropped since the start, by reason; zeros included.
    pub fn total(&self) -> BTreeMap<String, u64> {
        let counts = self.counts();
        let of = |why: Why| counts.total.get(&why).copied().unwrap_or(0);
        Why::ALL.into_iter().map(|why| (why.word().to_owned(), of(why))).collect()
    }

    /// Messages that were held up since the start.
    pub fn total_slowed(&self) -> u64 {
        self.counts().slowed
    }

    /// What came since the last call, by device; none for those that were too many to tell apart.
    pub fn fresh(&self) -> BTreeMap<Option<DeviceId>, Noted> {
        std::mem::take(&mut self.counts().fresh)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn of(&mut self, device: &DeviceId) -> &mut Noted {
        let key = Some(device.clone());
        let known = self.fresh.len() < DEVICES || self.fresh.contains_key(&key);
        self.fresh.entry(key.filter(|_| known)).or_default()
    }
}

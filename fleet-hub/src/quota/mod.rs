//! What one device may cost: messages, bytes, places in the queues, lines in the log.
//!
//! ```text
//!              embedded broker                          hub
//! device ──► pace (slows) ──► way to the hub ──► backlog ──► ingest
//!             bucket           places              places
//! ```
//!
//! Invariants: a device over its quota is slowed, or its messages are dropped, and nobody else's are;
//! nothing is lost, for what is dropped has no receipt and its device sends it again; whatever is
//! dropped is counted, shown in the metrics, logged at a bounded rate and recorded as the finding
//! `quota.drop` of its device.
//!
//! Where: the embedded broker holds up the one session ([`crate::broker`]): its device is not read
//! from meanwhile. With an external broker the hub cannot slow anybody, so the bucket is asked when a
//! message comes in, and what is over it is refused for now.
//!
//! Limits: `limits.device_messages_per_s`, `limits.device_messages_burst`,
//! `limits.device_bytes_per_s`, `limits.device_bytes_burst`, `limits.backlog_messages`.

mod bucket;
mod drops;
mod places;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetloop_protocol::DeviceId;

pub use bucket::Bucket;
pub use drops::{Drops, Why};
pub use places::{Place, Places};
pub(crate) use watch::watch;

use crate::limits::Limits;

/// Devices whose buckets are kept before those that are full again are forgotten. A full one says
/// nothing, so any number of devices costs only what is under way.
const BUCKETS: usize = 4096;

/// The lines that one device's messages may write into the log: so many at once, and one every three
/// seconds from then on. The others are counted, and their number is logged.
const LOG_BURST: u64 = 20;
const LOG_EVERY: Duration = Duration::from_secs(3);

/// Messages on their way from the embedded broker to the hub's own client. Its session holds
/// twice as many, so none of them is ever dropped there.
pub const ON_THE_WAY: usize = 1024;

/// The quotas of all devices; cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    rates: [Rate; 3],
    devices: Mutex<HashMap<DeviceId, [Bucket; 3]>>,
    started: Instant,
    drops: Drops,
    on_the_way: Arc<Places>,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    amount: u64,
    every: Duration,
    burst: u64,
}

const MESSAGES: usize = 0;
const BYTES: usize = 1;
const LINES: usize = 2;

impl Quotas {
    /// The quotas as configured.
    pub fn new(limits: &Limits) -> Self {
        let second = Duration::from_secs(1);
        let messages = Rate {
            amount: limits.device_messages_per_s.into(),
            every: second,
            burst: limits.device_messages_burst.into(),
        };
        let bytes = Rate {
            amount: limits.device_bytes_per_s,
            every: second,
            burst: limits.device_bytes_burst,
        };
        let lines = Rate { amount: 1, every: LOG_EVERY, burst: LOG_BURST };
        Self(Arc::new(Inner {
            rates: [messages, bytes, lines],
            devices: Mutex::default(),
            started: Instant::now(),
            drops: Drops::default(),
            on_the_way: Arc::new(Places::new(ON_THE_WAY)),
        }))
    }

    /// Takes a message of `bytes` out of the device's buckets, whatever they hold, and says how long
    /// it must be held up for that: at most about a second, because a device's messages come one after another.
    pub fn pace(&self, device: &DeviceId, bytes: usize) -> Duration {
        let wait = self.with(device, |buckets, now| {
            let messages = buckets[MESSAGES].owe(1, now);
            messages.max(buckets[BYTES].owe(bytes as u64, now))
        });
        if !wait.is_zero() {
            self.0.drops.slowed(device, wait);
        }
        wait
    }

    /// Takes a message of `bytes` out of the device's buckets if both have room for it.
    pub fn admits(&self, device: &DeviceId, bytes: usize) -> bool {
        self.with(device, |buckets, now| {
            let bytes = bytes as u64;
            let fits = buckets[MESSAGES].has(1, now) && buckets[BYTES].has(bytes, now);
            if fits {
                buckets[MESSAGES].owe(1, now);
                buckets[BYTES].owe(bytes, now);
            }
            fits
        })
    }

    /// Whether a line about a message of that device may be logged as a warning; one that may not is
    /// counted.
    pub fn may_log(&self, device: &DeviceId) -> bool {
        let may = self.with(device, |buckets, now| {
            let may = buckets[LINES].has(1, now);
            if may {
                buckets[LINES].owe(1, now);
            }
            may
        });
        if !may {
            self.0.drops.note(device, Why::LogLine);
        }
        may
    }

    /// What was dropped.
    pub fn drops(&self) -> &Drops {
        &self.0.drops
    }

    /// The places on the way from the embedded broker to the hub.
    pub fn on_the_way(&self) -> &Arc<Places> {
        &self.0.on_the_way
    }

    fn with<R>(&self, device: &DeviceId, ask: impl FnOnce(&mut [Bucket; 3], Duration) -> R) -> R {
        let now = self.0.started.elapsed();
        let mut devices = self.0.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.len() >= BUCKETS && !devices.contains_key(device) {
            devices.retain(|_, buckets| !buckets.iter_mut().all(|bucket| bucket.is_full(now)));
        }
        let buckets = devices.entry(device.clone()).or_insert_with(|| {
            self.0.rates.map(|rate| Bucket::new(rate.amount, rate.every, rate.burst, now))
        });
        ask(buckets, now)
    }
}

#[cfg(test)]
mod tests;

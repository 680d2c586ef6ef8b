//! Which frames are worth sending home, and within what budget: pure, no clock and no I/O.
//!
//! [`Selector`] looks at one answer: uncertain from a threshold of normalised entropy on, or drawn
//! at random at a base rate, so that what the model is sure of is seen too. [`Budget`] is a token
//! bucket of bytes: it fills at a rate per hour up to a burst, and a sample that does not fit is
//! not sent. Over any span of `t` hours at most `burst + rate × t` bytes pass. Uncertain samples
//! leave a quarter of the burst to random ones: in a world where everything is uncertain the base
//! rate, by which that is seen at the hub, would starve.

use std::time::Duration;

use fleetloop_protocol::sample::Selection;

use crate::config::SelectionConfig;

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014):
/// small, seeded and good enough for drawing samples; nothing secret depends on it.
#[derive(Debug, Clone)]
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Equally distributed in [0, 1), 24 bits.
    fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Decides on one answer at a time. The same seed and the same answers give the same choices.
#[derive(Debug, Clone)]
pub struct Selector {
    threshold: f32,
    random_rate: f32,
    draws: Draws,
}

impl Selector {
    /// A selector as configured, whose draws start at `seed`.
    pub fn new(config: &SelectionConfig, seed: u64) -> Self {
        Self {
            threshold: config.uncertainty_threshold,
            random_rate: config.random_rate,
            draws: Draws(seed),
        }
    }

    /// Decides by `to` from now on instead of `from`. The draws go on, unless another seed is given.
    pub fn adjust(&mut self, from: &SelectionConfig, to: &SelectionConfig) {
        self.threshold = to.uncertainty_threshold;
        self.random_rate = to.random_rate;
        if let Some(seed) = to.seed.filter(|_| to.seed != from.seed) {
            self.draws = Draws(seed);
        }
    }

    /// Why a frame whose answer has this normalised entropy is worth sending, if it is.
    ///
    /// The draw happens for every frame, whatever the model thinks, so that the random share is one
    /// of all frames; a frame that is both counts as random, for only that keeps the share unbiased.
    pub fn consider(&mut self, entropy: f32) -> Option<Selection> {
        if self.draws.share() < self.random_rate {
            return Some(Selection::Random { rate: self.random_rate });
        }
        // NaN is not at least anything.
        (entropy >= self.threshold).then(|| Selection::Uncertain { score: entropy.clamp(0.0, 1.0) })
    }
}

/// A token bucket of bytes over monotonic time.
#[derive(Debug, Clone)]
pub struct Budget {
    bytes_per_hour: u64,
    burst_bytes: u64,
    /// Byte-nanoseconds-an-hour left over: level in units of 1 byte / `HOUR_NS`.
    level: u128,
    at: Duration,
}

const HOUR_NS: u128 = 3_600_000_000_000;

/// The share of the burst that only random samples may use: one in so many.
const KEPT_FOR_RANDOM: u64 = 4;

impl Budget {
    /// A full bucket at monotonic time `now`.
    pub fn new(config: &SelectionConfig, now: Duration) -> Self {
        Self {
            bytes_per_hour: config.budget_bytes_per_hour,
            burst_bytes: config.burst_bytes,
            level: u128::from(config.burst_bytes) * HOUR_NS,
            at: now,
        }
    }

    /// Fills at another rate up to another burst from `now` on. What is in the bucket stays, up to
    /// the new burst: a change never fills it.
    pub fn adjust(&mut self, config: &SelectionConfig, now: Duration) {
        self.settle(now);
        self.bytes_per_hour = config.budget_bytes_per_hour;
        self.burst_bytes = config.burst_bytes;
        self.level = self.level.min(u128::from(self.burst_bytes) * HOUR_NS);
    }

    /// Adds what came in until `now`.
    fn settle(&mut self, now: Duration) {
        let elapsed_ns = now.saturating_sub(self.at).as_nanos();
        let full = u128::from(self.burst_bytes) * HOUR_NS;
        let gained = elapsed_ns.saturating_mul(u128::from(self.bytes_per_hour));
        self.level = self.level.saturating_add(gained).min(full);
        self.at = self.at.max(now);
    }

    /// The bytes that a sample chosen for this reason could have at `now`.
    pub fn level_bytes(&mut self, now: Duration, why: &Selection) -> u64 {
        self.settle(now);
        // The level is at most the burst.
        let level = (self.level / HOUR_NS) as u64;
        match why {
            Selection::Random { .. } => level,
            Selection::Uncertain { .. } => level.saturating_sub(self.burst_bytes / KEPT_FOR_RANDOM),
        }
    }

    /// Takes `bytes` out at `now` if they fit; whether they did. A random sample larger than the
    /// burst never fits, nor an uncertain one larger than three quarters of it.
    pub fn take(&mut self, now: Duration, bytes: u64, why: &Selection) -> bool {
        if self.level_bytes(now, why) < bytes {
            return false;
        }
        self.level -= u128::from(bytes) * HOUR_NS;
        true
    }

    /// Puts back what was taken for a sample that was not stored after all.
    pub fn give_back(&mut self, bytes: u64) {
        let full = u128::from(self.burst_bytes) * HOUR_NS;
        self.level = (self.level + u128::from(bytes) * HOUR_NS).min(full);
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;

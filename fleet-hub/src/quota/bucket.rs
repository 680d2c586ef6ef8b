//! A token bucket over monotonic time. Pure: time is passed in.
//!
//! Over any span `t` at most `burst + rate × t` passes, plus one message of any size: what does not
//! fit is owed, and whoever took it waits until the debt is paid.

use std::time::Duration;

/// A bucket that fills at a steady rate.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// What it gains in [`every_ns`](Self::every_ns).
    amount: i128,
    every_ns: i128,
    burst: i128,
    /// What is in it, in units of 1 / `every_ns`; negative while something is owed.
    level: i128,
    at: Duration,
}

impl Bucket {
    /// A full bucket at `now` that holds `burst` and gains `amount` in `every`, both above 0.
    pub fn new(amount: u64, every: Duration, burst: u64, now: Duration) -> Self {
        let every_ns = every.as_nanos().max(1) as i128;
        let burst = i128::from(burst);
        Self { amount: amount.max(1).into(), every_ns, burst, level: burst * every_ns, at: now }
    }

    /// Takes `amount` out, whatever there is, and says how long to wait until nothing is owed.
    pub fn owe(&mut self, amount: u64, now: Duration) -> Duration {
        self.settle(now);
        self.level -= i128::from(amount) * self.every_ns;
        if self.level >= 0 {
            return Duration::ZERO;
        }
        let wait_ns = (-self.level + self.amount - 1) / self.amount;
        Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX))
    }

    /// Whether `amount` can be taken without owing. More than the burst passes when it is full.
    pub fn has(&mut self, amount: u64, now: Duration) -> bool {
        self.settle(now);
        self.level >= i128::from(amount).min(self.burst) * self.every_ns
    }

    /// Whether nothing was taken that has not come in again.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.settle(now);
        self.level >= self.burst * self.every_ns
    }

    fn settle(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_nanos() as i128;
        let level = self.level.saturating_add(gained.saturating_mul(self.amount));
        self.level = level.min(self.burst * self.every_ns);
        self.at = self.at.max(now);
    }
}

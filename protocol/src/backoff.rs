//! How a client waits before it tries again: longer after each failure, and by chance, so that ten
//! thousand devices that lost their hub together do not come back together.
//!
//! All programs use this one: devices, the hub towards its broker and its worker, workers towards
//! their hub, exporters towards their collector. Pure but for its random bytes; the caller sleeps.

use std::time::Duration;

use crate::keys::random_bytes;

/// The shortest wait, if nothing else is said.
pub const FIRST: Duration = Duration::from_millis(500);
/// The longest wait, if nothing else is said.
pub const LONGEST: Duration = Duration::from_secs(60);

/// How often it failed in a row, and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Waits between `first` and, after some failures, `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// It went well: the next wait is short again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.delay(chance());
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Between the first wait and twice as much for each failure before, at most the longest; where
    /// in between, `chance` (0 to 1) decides.
    fn delay(&self, chance: f64) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures.saturating_add(1)).unwrap_or(u32::MAX);
        let ceiling = self.first.saturating_mul(doubled).min(self.longest);
        let shortest = self.first.min(self.longest);
        shortest + ceiling.saturating_sub(shortest).mul_f64(chance)
    }
}

/// A wait that somebody else gave to many at once, made up to half as long again by chance.
pub fn spread(wait: Duration) -> Duration {
    wait + (wait / 2).mul_f64(chance())
}

/// 0 to 1. Without random bytes the longest wait is the safe one.
fn chance() -> f64 {
    let random = random_bytes::<8>().map_or(u64::MAX, u64::from_le_bytes);
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_are_spread_over_the_whole_range() {
        let failed = |failures| Backoff { failures, ..Backoff::default() };
        assert_eq!(failed(0).delay(0.0), FIRST);
        assert_eq!(failed(0).delay(1.0), Duration::from_secs(1));
        assert_eq!(failed(3).delay(1.0), Duration::from_secs(8));
        for failures in [7, 30, 31, 32, 1000, u32::MAX] {
            assert_eq!(failed(failures).delay(1.0), LONGEST);
            assert_eq!(failed(failures).delay(0.0), FIRST);
        }
        let mut backoff = failed(9);
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_secs(1));
    }

    #[test]
    fn a_wait_given_to_many_is_never_shortened_and_at_most_half_as_long_again() {
        let given = Duration::from_secs(3600);
        let waits: Vec<Duration> = (0..64).map(|_| spread(given)).collect();
        assert!(waits.iter().all(|wait| (given..=given * 3 / 2).contains(wait)));
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*most - *least > given / 8, "they are spread: {least:?} to {most:?}");
    }

    #[test]
    fn ten_thousand_devices_that_lost_their_hub_for_minutes_come_back_spread_over_a_minute() {
        const DEVICES: usize = 10_000;
        const DOWN: Duration = Duration::from_secs(300);
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) as f64 / u64::MAX as f64
        };
        let mut by_second = [0_usize; 61];
        for _ in 0..DEVICES {
            let (mut at, mut backoff) = (Duration::ZERO, Backoff::default());
            while at < DOWN {
                at += backoff.delay(random());
                backoff.failures += 1;
            }
            by_second[(at - DOWN).as_secs() as usize] += 1;
        }
        let most = by_second.iter().max().unwrap();
        assert!(*most <= DEVICES / 25, "{by_second:?}");
    }
}

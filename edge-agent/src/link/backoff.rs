//! Waiting longer after each failure, with full jitter, so that ten thousand devices that lost
//! their hub together do not come back together.

use std::time::Duration;

use fleetloop_protocol::keys::random_bytes;

/// The shortest wait.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// How often it failed in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It went well: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        // Without random bytes the longest wait is the safe one.
        let random = random_bytes::<8>().map_or(u64::MAX, u64::from_le_bytes);
        let wait = delay(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// Between [`FIRST`] and twice as much for each failure before, at most [`LONGEST`]; where in
/// between, `random` decides.
fn delay(failures: u32, random: u64) -> Duration {
    let ceiling =
        FIRST.saturating_mul(1u32.checked_shl(failures.saturating_add(1)).unwrap_or(u32::MAX));
    let spread = ceiling.min(LONGEST).saturating_sub(FIRST);
    FIRST + spread.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_are_spread_over_the_whole_range() {
        assert_eq!(delay(0, 0), FIRST);
        assert_eq!(delay(0, u64::MAX), Duration::from_secs(1));
        assert_eq!(delay(3, u64::MAX), Duration::from_secs(8));
        for failures in [7, 30, 31, 32, 1000] {
            assert_eq!(delay(failures, u64::MAX), LONGEST);
            assert_eq!(delay(failures, 0), FIRST);
        }
        let mut backoff = Backoff { failures: 9 };
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_secs(1));
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
            z ^ (z >> 31)
        };
        let mut by_second = [0_usize; 61];
        for _ in 0..DEVICES {
            let (mut at, mut failures) = (Duration::ZERO, 0);
            while at < DOWN {
                at += delay(failures, random());
                failures += 1;
            }
            by_second[(at - DOWN).as_secs() as usize] += 1;
        }
        let most = by_second.iter().max().unwrap();
        assert!(*most <= DEVICES / 25, "{by_second:?}");
    }
}

//! How fast a long outbox is sent. Pure: whoever owns it says when a turn is over and when a second is.
//!
//! After hours without a hub, a link that sent as fast as it goes would take whatever the processors
//! have left, and a frame that comes meanwhile waits for the end of what the kernel does for the link.
//! So messages go at twice the rate at which samples are signed, and at [`LEAST_PER_SECOND`]: what waits
//! becomes less wherever frames leave time for it, and a device that signs little still sends 12,000 samples
//! a minute. They go a few at a time, so that their work lies between frames and not before a row of them.

use std::time::Duration;

/// How long a turn is: a multiple of it is a second.
pub(super) const TURN: Duration = Duration::from_millis(20);
const TURNS_PER_SECOND: usize = 1000 / TURN.subsec_millis() as usize;
const _: () = assert!(1000 % TURN.subsec_millis() == 0);

/// Messages a second that may always be sent.
const LEAST_PER_SECOND: usize = 200;

/// What may still be sent in this turn.
#[derive(Debug)]
pub(super) struct Pace {
    per_turn: usize,
    left: usize,
    /// Samples signed since start, a second ago.
    signed: Option<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        let per_turn = LEAST_PER_SECOND / TURNS_PER_SECOND;
        Self { per_turn, left: per_turn, signed: None }
    }
}

impl Pace {
    /// A second has passed, and `signed` samples were signed since start.
    pub(super) fn second(&mut self, signed: u64) {
        let before = self.signed.replace(signed).unwrap_or(signed);
        let in_it = usize::try_from(signed.saturating_sub(before)).unwrap_or(usize::MAX);
        let per_second = in_it.saturating_mul(2).max(LEAST_PER_SECOND);
        self.per_turn = per_second.div_ceil(TURNS_PER_SECOND);
    }

    /// A turn is over. What it left is not added to the next.
    pub(super) const fn turn(&mut self) {
        self.left = self.per_turn;
    }

    /// A message was sent.
    pub(super) const fn sent(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// How many messages may be sent before the next turn.
    pub(super) const fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages sent in `seconds` by a link that takes all it may, of a device that signs so many a second.
    fn sent_in(seconds: u64, signed_per_second: u64) -> usize {
        let mut pace = Pace::default();
        pace.second(0);
        let mut sent = 0;
        for second in 1..=seconds {
            for _ in 0..TURNS_PER_SECOND {
                for _ in 0..pace.left() {
                    pace.sent();
                    sent += 1;
                }
                assert_eq!(pace.left(), 0);
                pace.turn();
            }
            pace.second(second * signed_per_second);
        }
        sent
    }

    #[test]
    fn a_backlog_becomes_less_at_whatever_rate_samples_are_signed() {
        for (signed_per_second, per_second) in [(0, 200), (60, 200), (150, 300), (3000, 6000)] {
            let (a_minute, two) = (sent_in(60, signed_per_second), sent_in(120, signed_per_second));
            assert_eq!(two - a_minute, 60 * per_second, "{signed_per_second} signed a second");
        }
    }

    #[test]
    fn a_link_that_rested_sends_no_more_at_once_than_one_that_did_not() {
        let mut pace = Pace::default();
        let at_once = pace.left();
        for _ in 0..1000 {
            pace.turn();
        }
        assert_eq!(pace.left(), at_once);
    }
}

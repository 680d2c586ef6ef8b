//! Whether one machine speaks as a device, or two. Pure: history, what was heard, time → verdict.
//!
//! Each start of an agent draws a number and says it in every report. A number that is heard again
//! after another one was heard is a process that goes on beside another: a process that ended never
//! comes back. One late message could look like that, so both have to come back [`RETURNS`] times. Two
//! copies of a card do so within minutes, because each takes the other's session at the broker.
//!
//! A device that is restored from an image, or whose outbox was lost, begins a new epoch and stays
//! with it: that is no clone.

use fleetloop_protocol::{Epoch, UnixMillis};
use serde::{Deserialize, Serialize};

/// How often each of two has to come back after the other.
pub const RETURNS: u32 = 2;

/// After so long, in milliseconds, a return no longer counts, and a start that was not heard is
/// forgotten: a day.
pub const FORGET_MS: u64 = 24 * 3600 * 1000;

/// The most starts that are remembered of a device; the one that was silent longest goes first.
pub const REMEMBERED: usize = 16;

/// A start of an agent, as the hub heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its number.
    pub start: u64,
    /// The epoch that it last signed under.
    pub epoch: Epoch,
    /// When it was first heard.
    pub first_seen: UnixMillis,
    /// When it was last heard.
    pub last_seen: UnixMillis,
    /// How often it came back after another.
    pub returns: u32,
}

/// What a report says about who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One machine, as before.
    One,
    /// One machine, which began a new epoch after that one.
    NewEpoch {
        /// The epoch before.
        former: Epoch,
    },
    /// Two machines, the second of which has spoken since then.
    Two {
        /// When the second one was first heard.
        since: UnixMillis,
    },
}

/// Takes in a report. The last of `history` is who spoke last.
pub fn heard(history: &mut Vec<Start>, start: u64, epoch: Epoch, now: UnixMillis) -> Verdict {
    let speaking = history.last().map(|last| (last.start, last.epoch));
    history.retain(|known| {
        Some(known.start) == speaking.map(|(start, _)| start)
            || now.0.saturating_sub(known.last_seen.0) < FORGET_MS
    });
    let is_known_epoch = history.iter().any(|known| known.epoch == epoch);
    match history.iter().position(|known| known.start == start) {
        Some(place) => {
            let mut known = history.remove(place);
            let is_back = speaking.is_some_and(|(last, _)| last != start);
            known.returns += u32::from(is_back);
            (known.last_seen, known.epoch) = (now, epoch);
            history.push(known);
        }
        None => {
            history.push(Start { start, epoch, first_seen: now, last_seen: now, returns: 0 });
        }
    }
    if history.len() > REMEMBERED {
        history.remove(0);
    }
    let mut both: Vec<UnixMillis> = history
        .iter()
        .filter(|known| known.returns >= RETURNS)
        .map(|known| known.first_seen)
        .collect();
    if both.len() >= 2 {
        both.sort_unstable();
        return Verdict::Two { since: both[1] };
    }
    match speaking {
        Some((_, former)) if former != epoch && !is_known_epoch => Verdict::NewEpoch { former },
        _ => Verdict::One,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E1: Epoch = Epoch(1);
    const E2: Epoch = Epoch(2);

    /// The verdicts on reports that come a minute apart.
    fn verdicts(reports: &[(u64, Epoch)]) -> Vec<Verdict> {
        let mut history = Vec::new();
        let at = |minute: usize| UnixMillis(60_000 * (1 + minute as u64));
        let all = reports.iter().enumerate();
        all.map(|(minute, (start, epoch))| heard(&mut history, *start, *epoch, at(minute)))
            .collect()
    }

    #[test]
    fn a_device_that_is_restarted_again_and_again_is_one() {
        let reports: Vec<_> = (0..100).flat_map(|start| [(start, E1), (start, E1)]).collect();
        assert!(verdicts(&reports).iter().all(|verdict| *verdict == Verdict::One));
    }

    #[test]
    fn a_device_restored_from_an_image_is_one_with_a_new_epoch_that_is_said_once() {
        let all = verdicts(&[(1, E1), (1, E1), (2, E1), (2, E2), (2, E2), (3, E2)]);
        let said = all.iter().filter(|verdict| **verdict != Verdict::One).collect::<Vec<_>>();
        assert_eq!(said, [&Verdict::NewEpoch { former: E1 }]);
    }

    #[test]
    fn two_that_take_turns_are_two_since_the_second_was_first_heard() {
        let turns = |epochs: [Epoch; 2]| -> Vec<_> {
            (0..8).map(|turn| (1 + turn % 2, epochs[turn as usize % 2])).collect()
        };
        for epochs in [[E1, E1], [E1, E2]] {
            let all = verdicts(&turns(epochs));
            let since = UnixMillis(120_000);
            assert_eq!(all.last(), Some(&Verdict::Two { since }), "{all:?}");
            let first = all.iter().position(|verdict| matches!(verdict, Verdict::Two { .. }));
            assert_eq!(first, Some(5), "both came back twice");
        }
    }

    #[test]
    fn a_late_message_of_a_process_that_ended_makes_no_clone() {
        let all =
            verdicts(&[(1, E1), (2, E1), (1, E1), (2, E1), (2, E1), (3, E1), (2, E1), (3, E1)]);
        assert!(all.iter().all(|verdict| *verdict == Verdict::One), "{all:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_after_a_day() {
        let mut history = Vec::new();
        for start in 0..100 {
            heard(&mut history, start, E1, UnixMillis(start));
        }
        assert_eq!(history.len(), REMEMBERED);
        heard(&mut history, 200, E1, UnixMillis(FORGET_MS * 2));
        assert_eq!(history.len(), 2, "who spoke last, and who speaks now");
    }
}

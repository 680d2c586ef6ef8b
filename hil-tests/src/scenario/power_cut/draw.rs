//! When the power is cut: drawn from a seed, so that a run can be replayed. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::draws::Draws;

/// What the fleet is doing when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The process is starting.
    StartUp,
    /// Samples flow, nothing special happens.
    Steady,
    /// A model is being swapped.
    Swap,
    /// What waited during an outage is being sent.
    CatchingUp,
    /// The process was asked to end and is finishing.
    Stopping,
    /// The other side is away.
    Alone,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::StartUp, Self::Steady, Self::Swap, Self::CatchingUp, Self::Stopping, Self::Alone];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::StartUp => "start-up",
            Self::Steady => "steady work",
            Self::Swap => "a model swap",
            Self::CatchingUp => "catching up",
            Self::Stopping => "stopping",
            Self::Alone => "the other side away",
        }
    }

    /// How long after the state began the power is cut at the latest. What is shorter by nature
    /// is aimed at again when it was over before.
    const fn longest(self) -> Duration {
        Duration::from_millis(match self {
            Self::StartUp | Self::CatchingUp => 400,
            Self::Steady | Self::Alone => 800,
            Self::Swap => 300,
            Self::Stopping => 60,
        })
    }
}

/// One cut, as drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// In which state.
    pub state: State,
    /// How long after the state began.
    pub after: Duration,
}

/// Up to `longest`, in microseconds.
pub(super) fn up_to(draws: &mut Draws, longest: Duration) -> Duration {
    Duration::from_micros(draws.below(longest.as_micros() as u64 + 1))
}

/// Cuts without end: all states once, in an order that is drawn, then all of them again.
#[derive(Debug, Clone)]
pub struct Cuts {
    draws: Draws,
    deck: Vec<State>,
}

impl Cuts {
    /// The cuts of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { draws: Draws::new(seed), deck: Vec::new() }
    }

    /// An earlier moment in the same state, which was over at that one. A state that lasts a fifth of
    /// its longest is met in the second aim or the third, and at any of its moments alike.
    pub fn earlier(&mut self, cut: Cut) -> Cut {
        Cut { after: up_to(&mut self.draws, cut.after), ..cut }
    }
}

impl Iterator for Cuts {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        if self.deck.is_empty() {
            self.deck = State::ALL.to_vec();
        }
        let at = self.draws.below(self.deck.len() as u64);
        let state = self.deck.swap_remove(at as usize);
        Some(Cut { state, after: up_to(&mut self.draws, state.longest()) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_replays_and_another_one_differs() {
        let first: Vec<Cut> = Cuts::new(7).take(40).collect();
        assert_eq!(first, Cuts::new(7).take(40).collect::<Vec<_>>());
        assert_ne!(first, Cuts::new(8).take(40).collect::<Vec<_>>());
    }

    #[test]
    fn a_state_that_was_over_is_met_after_a_few_aims() {
        let mut cuts = Cuts::new(5);
        let lasts = Duration::from_millis(20);
        for _ in 0..60 {
            let Some(mut cut) = cuts.next() else { panic!("the cuts have ended") };
            let mut aims = 1;
            while cut.after > lasts {
                let earlier = cuts.earlier(cut);
                assert!(earlier.after <= cut.after && earlier.state == cut.state);
                (cut, aims) = (earlier, aims + 1);
            }
            assert!(aims <= 12, "{aims} aims");
        }
    }

    #[test]
    fn every_state_comes_before_one_comes_again_and_every_cut_in_time() {
        let all: Vec<Cut> = Cuts::new(3).take(60).collect();
        for round in all.chunks(State::ALL.len()) {
            let states: BTreeSet<State> = round.iter().map(|cut| cut.state).collect();
            assert_eq!(states.len(), State::ALL.len());
        }
        assert!(all.iter().all(|cut| cut.after <= cut.state.longest()));
        let late = all.iter().filter(|cut| cut.after > cut.state.longest() / 2).count();
        assert!((15..45).contains(&late), "{late} of 60 in the second half");
    }
}

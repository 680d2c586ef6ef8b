//! Disturbed pieces beside the quiet ones that followed them, over all turns at a load.
//!
//! The percentile of all disturbed pieces is held against the one of all quiet ones: they took turns every
//! two seconds, so a machine that became slower or faster did so for both. What single backlogs make of the
//! ratio is told by a bootstrap: the pairs are drawn again and again from those that there are, with
//! replacement (B. Efron, "Bootstrap Methods", Annals of Statistics 7, 1979); and by the pairs' own ratios,
//! whose median a backlog in a few of them does not move.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Turn;
use super::phases::{Disturbance, quantile};
use crate::draws::Draws;

/// How often a run is drawn again.
const DRAWS: usize = 200;

/// From where the same run is drawn again in the same way.
const SEED: u64 = 1;

/// A disturbance beside quiet, over all turns at a load that count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// The share of the capacity that no turn exceeded.
    pub load: f64,
    /// What disturbed.
    pub disturbance: Disturbance,
    /// The latency that 99 of 100 frames of the disturbed pieces do not exceed, in microseconds.
    pub disturbed_p99_us: u64,
    /// The same of the quiet pieces.
    pub quiet_p99_us: u64,
    /// Between these lies their ratio in nine of ten runs drawn from this one.
    pub between: [f64; 2],
    /// The same percentile of each disturbed piece, and of the quiet one after it.
    pub pairs_p99_us: Vec<[u64; 2]>,
}

impl Beside {
    /// The median of the pairs' ratios.
    fn middle(&self) -> f64 {
        let ratio = |[disturbed, quiet]: &[u64; 2]| *disturbed as f64 / *quiet as f64;
        let mut ratios: Vec<f64> = self.pairs_p99_us.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, high] = [(ratios.len() - 1) / 2, ratios.len() / 2];
        f64::midpoint(ratios[low], ratios[high])
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, disturbance, disturbed_p99_us, quiet_p99_us, between, pairs_p99_us } =
            self;
        write!(
            f,
            "up to {:.0} %, {:12} p99 {disturbed_p99_us:6} µs, quiet {quiet_p99_us:6} µs, of {} pieces \
             each: {:5.2} ({:.2} to {:.2}); pair by pair {:.2}",
            load * 100.0,
            disturbance.name(),
            pairs_p99_us.len(),
            *disturbed_p99_us as f64 / *quiet_p99_us as f64,
            between[0],
            between[1],
            self.middle()
        )
    }
}

/// The latencies of a disturbed piece and of the quiet one after it.
type Pair<'t> = [&'t [u64]; 2];

/// Each disturbance at each load, in the order in which they come, of the turns that count.
pub(super) fn of(turns: &[Turn]) -> Vec<Beside> {
    let turns = || turns.iter().filter(|turn| turn.counts);
    let mut cases: Vec<(f64, Disturbance)> = Vec::new();
    for turn in turns() {
        let case = (turn.load, turn.disturbance);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    let pairs = |case| -> Vec<Pair<'_>> {
        turns()
            .filter(|turn| (turn.load, turn.disturbance) == case)
            .flat_map(|turn| turn.disturbed.pieces.iter().zip(&turn.quiet.pieces))
            .map(|(disturbed, quiet)| [&disturbed[..], &quiet[..]])
            .collect()
    };
    cases.into_iter().map(|case| compare(case, &pairs(case))).collect()
}

fn compare((load, disturbance): (f64, Disturbance), pairs: &[Pair<'_>]) -> Beside {
    let [disturbed_p99_us, quiet_p99_us] = p99s(pairs);
    let mut draws = Draws::new(SEED);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let any = |_| pairs[draws.below(pairs.len() as u64) as usize];
            let [disturbed, quiet] = p99s(&(0..pairs.len()).map(any).collect::<Vec<_>>());
            disturbed as f64 / quiet as f64
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let between = [drawn[DRAWS / 20], drawn[DRAWS - 1 - DRAWS / 20]];
    let pairs_p99_us = pairs.iter().map(|pair| p99s(std::slice::from_ref(pair))).collect();
    Beside { load, disturbance, disturbed_p99_us, quiet_p99_us, between, pairs_p99_us }
}

/// Of all disturbed pieces, and of all quiet ones.
fn p99s(pairs: &[Pair<'_>]) -> [u64; 2] {
    [0, 1].map(|side| {
        let mut all: Vec<u64> = pairs.iter().flat_map(|pair| pair[side]).copied().collect();
        all.sort_unstable();
        quantile(&all, 0.99)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;

    fn turn(disturbance: Disturbance, counts: bool, pairs: &[[u64; 2]]) -> Turn {
        let phase = |side: usize| Phase {
            pieces: pairs.iter().map(|pair| vec![pair[side]; 100]).collect(),
            ..Phase::default()
        };
        Turn {
            load: 0.7,
            rate_hz: 63.0,
            capacity_hz: 100.0,
            counts,
            disturbance,
            quiet: phase(1),
            disturbed: phase(0),
        }
    }

    #[test]
    fn all_pieces_of_one_kind_stand_beside_all_of_the_other() {
        let turns = [
            turn(Disturbance::Drain, true, &[[30, 10], [20, 10]]),
            turn(Disturbance::Swap, true, &[[10, 10]]),
            turn(Disturbance::Drain, false, &[[900, 10]]),
            turn(Disturbance::Drain, true, &[[20, 20]]),
        ];
        let told = of(&turns);
        let p99 = |beside: &Beside| {
            (beside.disturbed_p99_us, beside.quiet_p99_us, beside.pairs_p99_us.clone())
        };
        assert_eq!(p99(&told[0]), (30, 20, vec![[30, 10], [20, 10], [20, 20]]));
        assert_eq!(p99(&told[1]), (10, 10, vec![[10, 10]]));
        assert_eq!(told[1].between, [1.0, 1.0]);
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_run_that_single_pieces_decide_says_so() {
        let steady = vec![[20, 10]; 24];
        let once = [vec![[10, 10]; 23], vec![[90, 10]]].concat();
        let told = |pairs: &[[u64; 2]]| of(&[turn(Disturbance::Drain, true, pairs)]).remove(0);
        let [steady, once] = [told(&steady), told(&once)];
        assert_eq!((steady.between, steady.middle()), ([2.0, 2.0], 2.0));
        assert_eq!((once.between, once.middle()), ([1.0, 9.0], 1.0));
    }

    #[test]
    fn the_middle_of_an_even_number_of_pairs_lies_between_two() {
        let told = of(&[turn(Disturbance::Drain, true, &[[30, 10], [10, 10]])]);
        assert_eq!(told[0].middle(), 2.0);
    }
}

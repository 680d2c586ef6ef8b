//! What a run counted, and what it must come to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Side;
use super::cutting::Met;
use super::draw::State;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Whose power was cut.
    pub side: Side,
    /// The seed that replays it.
    pub seed: u64,
    /// Power cuts.
    pub cuts: usize,
    /// Of these, how many met each state that was aimed at.
    pub met: BTreeMap<State, usize>,
    /// Cuts that came when their state was over.
    pub beside: usize,
    /// Samples that the device said it had stored.
    pub acknowledged: usize,
    /// Samples signed, by the outbox's own count: those of a last moment were not told.
    pub signed: u64,
    /// Receipts that the device accepted.
    pub receipted: usize,
    /// Samples on the hub's disk.
    pub stored: usize,
    /// Acknowledged samples that are not there.
    pub lost: usize,
    /// Declared gaps.
    pub gaps: usize,
    /// Samples that waited for a receipt when the power went: in the middle of all cuts.
    pub at_risk_median: usize,
    /// The most.
    pub at_risk_most: usize,
    /// From a start to a model's answer: in the middle of all cuts, in seconds.
    pub answered_after_median_s: f64,
    /// The longest, in seconds.
    pub answered_after_longest_s: f64,
    /// Rollouts that every device proved.
    pub rollouts: u64,
    /// Why others were not.
    pub rollouts_halted: Vec<String>,
    /// The whole run, in seconds.
    pub wall_s: f64,
    /// What is wrong; see [`super::judge`].
    pub faults: Vec<String>,
}

impl Figures {
    /// What misses what a run must come to, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = self.faults.clone();
        if self.stored as u64 != self.signed {
            missed.push(format!("{} samples signed, {} stored", self.signed, self.stored));
        }
        for state in State::ALL {
            if !self.met.contains_key(&state) && self.cuts >= State::ALL.len() {
                missed.push(format!("no cut met {}", state.words()));
            }
        }
        if self.at_risk_most == 0 {
            missed.push("no cut put a sample at risk".into());
        }
        if self.rollouts == 0 {
            missed.push("no rollout came to its end".into());
        }
        let halted = self.rollouts_halted.iter().map(|why| format!("a rollout was halted: {why}"));
        missed.extend(halted);
        missed
    }

    /// As lines for people.
    pub fn lines(&self) -> String {
        let mut out = String::new();
        let side = self.side.words();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "power cuts of {side}: {} in {:.0} s", self.cuts, self.wall_s);
        for (state, count) in &self.met {
            let _ = writeln!(out, "  in {:22} {count:>6}", state.words());
        }
        let _ = writeln!(out, "  when that was over        {:>6}", self.beside);
        let _ = writeln!(
            out,
            "samples: {} acknowledged, {} receipted, {} stored, {} lost, {} gaps",
            self.acknowledged, self.receipted, self.stored, self.lost, self.gaps
        );
        let _ = writeln!(
            out,
            "at risk in a cut: {} in the middle, {} at most; a model answered {:.2} s after a \
             start, {:.2} s at most",
            self.at_risk_median,
            self.at_risk_most,
            self.answered_after_median_s,
            self.answered_after_longest_s
        );
        let _ = writeln!(out, "rollouts: {} done; seed {}", self.rollouts, self.seed);
        out
    }
}

/// The middle and the most of what the cuts met.
pub(super) struct Spread {
    pub(super) at_risk: (usize, usize),
    pub(super) answered_after_s: (f64, f64),
}

impl Spread {
    pub(super) fn of(all: &[Met]) -> Self {
        let mut at_risk: Vec<usize> = all.iter().map(|met| met.at_risk).collect();
        let mut answered: Vec<Duration> = all.iter().map(|met| met.answered_after).collect();
        at_risk.sort_unstable();
        answered.sort_unstable();
        let middle = all.len() / 2;
        let seconds = |at: Option<&Duration>| at.map_or(0.0, Duration::as_secs_f64);
        Self {
            at_risk: (
                at_risk.get(middle).copied().unwrap_or(0),
                at_risk.last().copied().unwrap_or(0),
            ),
            answered_after_s: (seconds(answered.get(middle)), seconds(answered.last())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            side: Side::Agent,
            seed: 1,
            cuts: 6,
            met: State::ALL.into_iter().map(|state| (state, 1)).collect(),
            beside: 0,
            acknowledged: 9,
            signed: 10,
            receipted: 9,
            stored: 10,
            lost: 0,
            gaps: 0,
            at_risk_median: 1,
            at_risk_most: 2,
            answered_after_median_s: 0.1,
            answered_after_longest_s: 0.2,
            rollouts: 3,
            rollouts_halted: Vec::new(),
            wall_s: 1.0,
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_good_run_misses_nothing_and_each_bad_figure_is_told() {
        assert_eq!(good().missed(), Vec::<String>::new());
        let spoil: [fn(&mut Figures); 6] = [
            |f| f.stored = 9,
            |f| f.met.retain(|state, _| *state != State::Swap),
            |f| f.at_risk_most = 0,
            |f| f.rollouts = 0,
            |f| f.rollouts_halted.push("because".into()),
            |f| f.faults.push("lost".into()),
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let mut figures = good();
            spoil(&mut figures);
            assert_eq!(figures.missed().len(), 1, "case {number}");
        }
    }
}

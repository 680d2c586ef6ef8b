//! The verdict on one candidate, over counts. See the module above.
//!
//! | a share, or its change | outcome |
//! |---|---|
//! | surely less than allowed (its whole interval) | failed |
//! | may be more than [`Policy::margin`] less than allowed (a part of its interval) | too few |
//! | found less than allowed, and not surely so | too few |
//! | otherwise | passed |
//!
//! A source that is a part of what was imported is judged for harm only: it fails a model that is surely
//! worse on it, with the significance divided by the number of sources (Bonferroni), and never says "too
//! few", for many imports are small.

use std::collections::BTreeSet;

use fleetloop_protocol::api::datasets::{FLEET, IMPORT};
use fleetloop_protocol::api::reports::{Basis, Check, Interval, Outcome, Paired, Report, Verdict};

use super::covers::output_key;
use super::measure::{Measured, Part, largest_class, measure};
use super::statistics::{Pairs, change, mcnemar, wilson};

/// The significance at which a source alone fails a model, over all sources together.
const SIGNIFICANCE: f64 = 0.05;

/// What a model must reach. All are shares from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How much of the base's accuracy may be lost on what was imported.
    pub import_loss: f64,
    /// The same on what the fleet sent.
    pub fleet_loss: f64,
    /// How far a share may lie below what is asked, within its interval, for the verdict to be one.
    pub margin: f64,
    /// How wide the interval of a model without a base may be for the verdict to be one.
    pub width: f64,
    /// The accuracy over all items that a model must reach, as a person states it. Without it, one without
    /// a base must surely be better than always answering the most frequent class.
    pub floor: Option<f64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { import_loss: 0.015, fleet_loss: 0.0, margin: 0.05, width: 0.25, floor: None }
    }
}

impl Policy {
    fn allowed_loss(&self, part: &Part) -> f64 {
        match part {
            Part::Kind(kind) if kind == FLEET => self.fleet_loss,
            Part::Kind(kind) if kind != IMPORT => 0.0,
            Part::Kind(_) | Part::Source(_) => self.import_loss,
            Part::Whole => self.import_loss.max(self.fleet_loss),
        }
    }
}

/// What a gate said, in words.
pub const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::TooFew => "not enough to judge",
        Outcome::Failed => "failed",
    }
}

/// Whether `candidate` may be released, given what `base` made of the same items.
pub fn verdict(candidate: &Report, base: Option<&Report>, policy: &Policy) -> Verdict {
    let mut checks = vec![counted("items judged", candidate.outputs.len(), 1)];
    if let Some(base) = base {
        checks.push(counted(
            "same dataset as the base's report",
            usize::from(candidate.dataset == base.dataset),
            1,
        ));
        let ours: BTreeSet<_> = candidate.outputs.iter().map(output_key).collect();
        let theirs: BTreeSet<_> = base.outputs.iter().map(output_key).collect();
        let longest = candidate.outputs.len().max(base.outputs.len());
        let shared = ours.intersection(&theirs).count();
        checks.push(counted("items shared with the base's report", shared, longest));
    }
    let measured = measure(candidate, base);
    let sources = measured.iter().filter(|m| matches!(m.part, Part::Source(_))).count();
    for one in &measured {
        match (one.pairs, &one.part) {
            (Some(pairs), Part::Source(_)) => checks.push(source(one, pairs, sources, policy)),
            (Some(pairs), _) => checks.push(against(one, pairs, policy)),
            (None, Part::Whole) => {}
            // What a first model makes of a group is shown; there is nothing to compare it with.
            (None, _) => checks.push(check(one, 0.0, Outcome::Passed)),
        }
        if one.part == Part::Whole {
            checks.extend(floor(one, candidate, policy));
        }
    }
    let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Failed);
    Verdict { outcome, checks }
}

/// On the same items as the base.
fn against(measured: &Measured, pairs: Pairs, policy: &Policy) -> Check {
    let loss = policy.allowed_loss(&measured.part);
    let found = pairs.ours().share() - pairs.base().share();
    let outcome = judge(found, change(pairs), -loss, policy.margin);
    check(measured, pairs.base().share() - loss, outcome)
}

/// On a source alone.
fn source(measured: &Measured, pairs: Pairs, sources: usize, policy: &Policy) -> Check {
    let loss = policy.allowed_loss(&measured.part);
    let found = pairs.ours().share() - pairs.base().share();
    let is_worse = found < -loss && mcnemar(pairs) * real(sources) < SIGNIFICANCE;
    let outcome = if is_worse { Outcome::Failed } else { Outcome::Passed };
    check(measured, pairs.base().share() - loss, outcome)
}

/// Over all items, without comparing.
fn floor(measured: &Measured, candidate: &Report, policy: &Policy) -> Option<Check> {
    let (found, interval) = (measured.counts.share(), wilson(measured.counts));
    if let Some(floor) = policy.floor {
        let outcome = judge(found, interval, floor, policy.margin);
        let stated = check(measured, floor, outcome);
        return Some(Check { name: format!("{}, as stated", stated.name), ..stated });
    }
    if measured.pairs.is_some() {
        return None;
    }
    let largest = largest_class(candidate).share();
    let outcome = match interval {
        Interval { high, .. } if high <= largest => Outcome::Failed,
        Interval { low, high } if low <= largest || high - low > policy.width => Outcome::TooFew,
        Interval { .. } => Outcome::Passed,
    };
    let above = check(measured, largest, outcome);
    Some(Check {
        name: format!("{}, above always answering the largest class", above.name),
        ..above
    })
}

/// See the table above. The bound is a difference of quotients: a hair of rounding must not decide.
fn judge(found: f64, interval: Interval, at_least: f64, margin: f64) -> Outcome {
    const HAIR: f64 = 1e-9;
    if interval.high + HAIR < at_least {
        Outcome::Failed
    } else if interval.low + HAIR < at_least - margin || found + HAIR < at_least {
        Outcome::TooFew
    } else {
        Outcome::Passed
    }
}

fn check(measured: &Measured, at_least: f64, outcome: Outcome) -> Check {
    let Measured { metric, part, counts, pairs } = measured;
    let name = match part {
        Part::Whole => format!("{metric} over all"),
        Part::Kind(group) | Part::Source(group) => format!("{metric} on group {group}"),
    };
    let basis = Basis {
        metric: (*metric).to_owned(),
        group: part.group().map(str::to_owned),
        counts: *counts,
        interval: wilson(*counts),
        paired: pairs.map(paired),
    };
    Check { name, value: counts.share(), at_least, outcome, basis: Some(basis) }
}

fn paired(pairs: Pairs) -> Paired {
    let Pairs { won, lost, .. } = pairs;
    Paired { base: pairs.base(), won, lost, change: change(pairs), p_value: mcnemar(pairs) }
}

fn counted(name: &str, found: usize, at_least: usize) -> Check {
    let outcome = if found >= at_least { Outcome::Passed } else { Outcome::Failed };
    let (value, at_least) = (real(found), real(at_least));
    Check { name: name.to_owned(), value, at_least, outcome, basis: None }
}

#[expect(clippy::cast_precision_loss, reason = "a dataset has far fewer than 2^52 items")]
const fn real(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;

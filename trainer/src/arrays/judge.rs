//! What a model makes of arrays: the file that ships, in ONNX Runtime.
//!
//! Which figures there are follows from the loss: the share that is right for classes and for yes or
//! no; mean absolute and root mean square error for numbers; and for reconstruction the anomaly
//! score, the mean of (output − input)² over the values of a sample, with its percentiles.

use std::collections::BTreeMap;

use fleetloop_models::session::Network;
use serde::Serialize;

use super::Arrays;
use crate::evaluate::{Accuracy, EvaluateError};
use crate::onnx::Model;
use crate::train::loss::argmax;
use crate::train::{Loss, Targets};

/// Samples evaluated at a time, where the file lets the batch open.
const BATCH: usize = 64;

/// The figures over some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// How many were right.
    Right(Accuracy),
    /// How far off numbers were.
    Off {
        /// Mean absolute error.
        mae: f64,
        /// Root mean square error.
        rmse: f64,
    },
    /// Anomaly scores: the mean square error of each sample.
    Scores {
        /// Their mean.
        mean: f64,
        /// Half of the scores are at most this.
        p50: f64,
        /// 95 of 100 are.
        p95: f64,
        /// 99 of 100 are.
        p99: f64,
        /// All are.
        largest: f64,
    },
}

/// Figures over everything and by group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// Over everything.
    pub overall: Figures,
    /// By group.
    pub groups: BTreeMap<String, Figures>,
}

/// A judgement, and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The figures.
    pub judgement: Judgement,
    /// The mean square error of each sample, in their order: its anomaly score where the input is
    /// given back; 0 for classes.
    pub scores: Vec<f64>,
}

/// What one sample came to.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    right: bool,
    /// Mean over its values of the distance and of its square.
    absolute: f64,
    square: f64,
}

/// Judges a model by all samples.
///
/// # Errors
/// [`EvaluateError`]; `watch` returns false to cancel.
pub fn judge(
    model: &Model,
    network: &mut Network,
    arrays: &Arrays,
    (loss, targets): (Loss, &Targets),
    mut watch: impl FnMut(usize, usize) -> bool,
) -> Result<Judged, EvaluateError> {
    let batch = if model.has_open_batch() { BATCH } else { 1 };
    let per_input: usize = arrays.shape().iter().product();
    let threshold = if ends_in_sigmoid(model) { 0.5 } else { 0.0 };
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(arrays.len());
    for inputs in arrays.inputs().chunks(batch * per_input) {
        if !watch(outcomes.len(), arrays.len()) {
            return Err(EvaluateError::Cancelled);
        }
        let samples = inputs.len() / per_input;
        let (shape, values) = network.run(&[&[samples], arrays.shape()].concat(), inputs)?;
        let wanted = wanted(targets, arrays, per_input);
        if values.len() != samples * wanted {
            return Err(EvaluateError::Output { found: shape, samples, wanted, loss });
        }
        for (row, input) in values.chunks_exact(wanted).zip(inputs.chunks_exact(per_input)) {
            let sample = outcomes.len();
            if !row.iter().all(|v| v.is_finite()) {
                return Err(EvaluateError::NotFiniteAt(arrays.places()[sample]));
            }
            outcomes.push(outcome(row, input, sample, (loss, targets), threshold));
        }
    }
    let scores = outcomes.iter().map(|outcome| outcome.square).collect();
    Ok(Judged { judgement: judgement(loss, arrays, &outcomes), scores })
}

/// Values that a sample's output has to have.
fn wanted(targets: &Targets, arrays: &Arrays, per_input: usize) -> usize {
    match targets {
        Targets::Classes { count, .. } => *count,
        Targets::Values { values, .. } => values.len() / arrays.len(),
        Targets::Input => per_input,
    }
}

fn outcome(
    row: &[f32],
    input: &[f32],
    sample: usize,
    (loss, targets): (Loss, &Targets),
    threshold: f32,
) -> Outcome {
    let target = match targets {
        Targets::Classes { labels, .. } => {
            return Outcome { right: argmax(row) == labels[sample], absolute: 0.0, square: 0.0 };
        }
        Targets::Values { values, .. } => &values[sample * row.len()..(sample + 1) * row.len()],
        Targets::Input => input,
    };
    let pairs = || row.iter().zip(target);
    let mean = |power: i32| {
        let off = pairs().map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs().powi(power));
        off.sum::<f64>() / row.len() as f64
    };
    let right = loss == Loss::Binary && pairs().all(|(a, b)| (*a > threshold) == (*b > 0.5));
    Outcome { right, absolute: mean(1), square: mean(2) }
}

fn judgement(loss: Loss, arrays: &Arrays, outcomes: &[Outcome]) -> Judgement {
    let mut groups: BTreeMap<&str, Vec<Outcome>> = BTreeMap::new();
    for (group, outcome) in arrays.groups().iter().zip(outcomes) {
        groups.entry(group).or_default().push(*outcome);
    }
    let of = |(group, outcomes): (&str, Vec<Outcome>)| (group.to_owned(), figures(loss, &outcomes));
    Judgement { overall: figures(loss, outcomes), groups: groups.into_iter().map(of).collect() }
}

fn figures(loss: Loss, outcomes: &[Outcome]) -> Figures {
    let count = outcomes.len().max(1) as f64;
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / count;
    match loss {
        Loss::CrossEntropy | Loss::Binary => {
            let correct = outcomes.iter().filter(|outcome| outcome.right).count();
            let share = correct as f64 / count;
            Figures::Right(Accuracy { correct, total: outcomes.len(), share })
        }
        Loss::Mse | Loss::Mae | Loss::Huber => {
            Figures::Off { mae: mean(|o| o.absolute), rmse: mean(|o| o.square).sqrt() }
        }
        Loss::Reconstruction => {
            let mut scores: Vec<f64> = outcomes.iter().map(|outcome| outcome.square).collect();
            scores.sort_by(f64::total_cmp);
            let at = |percent| percentile(&scores, percent);
            let (p50, p95, p99, largest) = (at(50), at(95), at(99), at(100));
            Figures::Scores { mean: mean(|o| o.square), p50, p95, p99, largest }
        }
    }
}

/// The smallest of the sorted values that so many of a hundred do not exceed (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Whether the first output is a probability already.
fn ends_in_sigmoid(model: &Model) -> bool {
    let Some(output) = model.outputs.first() else { return false };
    let nodes = &model.proto.graph.node;
    nodes.iter().any(|node| node.op_type == "Sigmoid" && node.output.contains(&output.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(absolute: f64, square: f64, right: bool) -> Outcome {
        Outcome { right, absolute, square }
    }

    #[test]
    fn figures_by_hand() {
        let outcomes = [outcome(1.0, 1.0, true), outcome(3.0, 9.0, false)];
        let off = Figures::Off { mae: 2.0, rmse: 5f64.sqrt() };
        assert_eq!(figures(Loss::Huber, &outcomes), off);
        let right = Accuracy { correct: 1, total: 2, share: 0.5 };
        assert_eq!(figures(Loss::Binary, &outcomes), Figures::Right(right));
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        let found = [0, 50, 95, 99, 100].map(|percent| percentile(&sorted, percent));
        assert_eq!(found, [1.0, 100.0, 190.0, 198.0, 200.0]);
        assert_eq!(percentile(&[7.0], 95), 7.0);
    }

    #[test]
    fn a_row_is_right_by_its_largest_score_or_by_its_side_of_the_threshold() {
        let classes = Targets::Classes { labels: vec![0, 1], count: 2 };
        let right = |row: &[f32], sample| {
            super::outcome(row, &[], sample, (Loss::CrossEntropy, &classes), 0.0).right
        };
        assert!(right(&[2.0, 1.0], 0) && !right(&[2.0, 1.0], 1));
        let binary = Targets::Values { shape: vec![2], values: vec![1.0, 0.0] };
        let right = |row: &[f32], threshold| {
            super::outcome(row, &[], 0, (Loss::Binary, &binary), threshold).right
        };
        assert!(right(&[0.3, -2.0], 0.0) && !right(&[0.3, 0.1], 0.0));
        assert!(right(&[0.6, 0.4], 0.5) && !right(&[0.3, 0.4], 0.5));
    }
}

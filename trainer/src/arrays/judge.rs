//! What a model makes of arrays: the file that ships, in ONNX Runtime.
//!
//! Which figures there are follows from the loss: the share that is right for classes and for yes or
//! no; mean absolute and root mean square error for numbers; and for reconstruction the anomaly
//! score, the mean of (output − input)² over the values of a sample, with its percentiles. Beside them
//! stands what no model at all would score ([`Trivial`], and for classes the largest class).

use std::collections::BTreeMap;

use fleetloop_models::bundle::OutputKind;
use fleetloop_models::figures::{Figures as Classes, auc};
use fleetloop_models::session::{Network, SessionError};
use serde::Serialize;

use super::Arrays;
use crate::evaluate::{Accuracy, EvaluateError, WATCHED_EVERY};
use crate::train::loss::argmax;
use crate::train::{Loss, Targets};

/// How many samples are run to see what an output is.
const LOOKED_AT: usize = 16;

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
    /// AUC, figures by class, the confusion matrix, and what always answering the largest class would
    /// score: of classes, and of yes or no from one output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// What no model at all would score, of numbers and of anomaly scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trivial: Option<Trivial>,
}

/// What no model at all would score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Trivial {
    /// Always the mean of the numbers to reach, each output's own.
    Mean {
        /// Mean absolute error.
        mae: f64,
        /// Root mean square error.
        rmse: f64,
    },
    /// The mean of a sample's values: the brightness of a picture.
    Brightness {
        /// The model's own AUC, where the file says which samples are anomalous.
        auc: Option<f64>,
        /// The AUC of the mean alone, whichever way it goes.
        brightness_auc: Option<f64>,
        /// The mean anomaly score of giving each sample's mean back everywhere.
        flat: f64,
    },
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

/// Judges a model by all samples, one by one. `kind` says on which side of what its answer is a yes.
///
/// # Errors
/// [`EvaluateError`]; `watch` returns false to cancel.
pub fn judge(
    kind: OutputKind,
    network: &mut Network,
    arrays: &Arrays,
    (loss, targets): (Loss, &Targets),
    mut watch: impl FnMut(usize, usize) -> bool,
) -> Result<Judged, EvaluateError> {
    let per_input: usize = arrays.shape().iter().product();
    let threshold = if kind == OutputKind::Logits { 0.0 } else { 0.5 };
    let wanted = wanted(targets, arrays, per_input);
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(arrays.len());
    let mut told: Vec<f32> = Vec::new();
    for input in arrays.inputs().chunks_exact(per_input) {
        let sample = outcomes.len();
        if sample.is_multiple_of(WATCHED_EVERY) && !watch(sample, arrays.len()) {
            return Err(EvaluateError::Cancelled);
        }
        let (shape, row) = network.run(arrays.shape(), input)?;
        if row.len() != wanted {
            return Err(EvaluateError::Output { found: shape, wanted, loss });
        }
        if !row.iter().all(|v| v.is_finite()) {
            return Err(EvaluateError::NotFiniteAt(arrays.places()[sample]));
        }
        outcomes.push(outcome(&row, input, sample, (loss, targets), threshold));
        match (loss, &row[..]) {
            (Loss::CrossEntropy, row) => told.extend(row),
            // As scores of no and of yes.
            (Loss::Binary, [yes]) => told.extend([2.0 * threshold - yes, *yes]),
            _ => {}
        }
    }
    let scores: Vec<f64> = outcomes.iter().map(|outcome| outcome.square).collect();
    let mut judgement = judgement(loss, arrays, &outcomes);
    judgement.classes = classes(targets, &told);
    judgement.trivial = match (loss, targets) {
        (Loss::Mse | Loss::Mae | Loss::Huber, Targets::Values { values, .. }) => {
            Some(always_the_mean(values, arrays.len()))
        }
        (Loss::Reconstruction, _) => Some(brightness(arrays, &scores)),
        _ => None,
    };
    Ok(Judged { judgement, scores })
}

/// The figures by class; `told` holds a score for each class and sample, or nothing.
fn classes(targets: &Targets, told: &[f32]) -> Option<Classes> {
    let labels: Vec<usize> = match targets {
        Targets::Classes { labels, .. } => labels.clone(),
        Targets::Values { values, .. } => values.iter().map(|v| usize::from(*v > 0.5)).collect(),
        Targets::Input => return None,
    };
    let count = told.len().checked_div(labels.len()).filter(|count| *count > 0)?;
    Some(Classes::of(count, labels.into_iter().zip(told.chunks_exact(count))))
}

/// How far off the mean of each output's numbers is.
fn always_the_mean(values: &[f32], samples: usize) -> Trivial {
    let per_sample = (values.len() / samples.max(1)).max(1);
    let (mut absolute, mut square) = (0.0, 0.0);
    for output in 0..per_sample {
        let all = || values.iter().skip(output).step_by(per_sample).map(|v| f64::from(*v));
        let mean = all().sum::<f64>() / samples.max(1) as f64;
        absolute += all().map(|v| (v - mean).abs()).sum::<f64>();
        square += all().map(|v| (v - mean).powi(2)).sum::<f64>();
    }
    let count = values.len().max(1) as f64;
    Trivial::Mean { mae: absolute / count, rmse: (square / count).sqrt() }
}

/// What the mean of each sample's values says alone.
fn brightness(arrays: &Arrays, scores: &[f64]) -> Trivial {
    let per_input: usize = arrays.shape().iter().product();
    let means: Vec<f64> = arrays
        .inputs()
        .chunks_exact(per_input)
        .map(|input| input.iter().map(|v| f64::from(*v)).sum::<f64>() / per_input as f64)
        .collect();
    let off = arrays.inputs().chunks_exact(per_input).zip(&means);
    let flat: f64 = off
        .flat_map(|(input, mean)| input.iter().map(move |v| (f64::from(*v) - mean).powi(2)))
        .sum();
    let flat = flat / arrays.inputs().len() as f64;
    let told = |values: &[f64]| {
        let anomalous = arrays.anomalous()?;
        let mut pairs: Vec<(f32, bool)> = values.iter().map(|v| *v as f32).zip(anomalous).collect();
        auc(&mut pairs)
    };
    let brightness_auc = told(&means).map(|found| found.max(1.0 - found));
    Trivial::Brightness { auc: told(scores), brightness_auc, flat }
}

/// What the model gives for the first samples: enough to see what its output is.
///
/// # Errors
/// [`SessionError`] when it does not run.
pub fn rows(network: &mut Network, arrays: &Arrays) -> Result<Vec<Vec<f32>>, SessionError> {
    let per_input: usize = arrays.shape().iter().product();
    let first = arrays.inputs().chunks_exact(per_input.max(1)).take(LOOKED_AT);
    first.map(|input| Ok(network.run(arrays.shape(), input)?.1)).collect()
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
    let (overall, groups) = (figures(loss, outcomes), groups.into_iter().map(of).collect());
    Judgement { overall, groups, classes: None, trivial: None }
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
    fn what_no_model_would_score_by_hand() {
        // Two outputs: 1, 3 around 2, and 10, 10 around 10.
        let Trivial::Mean { mae, rmse } = always_the_mean(&[1.0, 10.0, 3.0, 10.0], 2) else {
            panic!()
        };
        assert_eq!((mae, rmse), (0.5, 0.5f64.sqrt()));
        let targets = Targets::Values { shape: vec![], values: vec![0.0, 1.0, 1.0] };
        let found = classes(&targets, &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]).unwrap();
        assert_eq!((found.correct, found.confusion), (2, vec![vec![1, 0], vec![1, 1]]));
        assert_eq!(classes(&Targets::Input, &[]), None);
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

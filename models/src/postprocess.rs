//! From a model's output to an answer: probabilities, the most probable classes, and how unsure the
//! model is.
//!
//! | output | probabilities | unsure |
//! |---|---|---|
//! | logits | their softmax | entropy |
//! | softmax | as they are | entropy |
//! | sigmoid | as they are, each its own yes or no | how far it is from one yes and no besides |

use fleetloop_protocol::sample::Prediction;

use crate::graph::output::{OutputKind, SHARE_OFF};

/// What a classifier made of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    probabilities: Vec<f32>,
    /// Whether each is its own yes or no.
    apart: bool,
}

impl Classification {
    /// The answer that `values` are, which a model's output of that kind holds. What is no probability
    /// where one is due is no number here.
    pub fn of(output: OutputKind, values: &[f32]) -> Self {
        let share = |value: &f32| {
            let near = (-SHARE_OFF..=1.0 + SHARE_OFF).contains(value);
            if near { value.clamp(0.0, 1.0) } else { f32::NAN }
        };
        match output {
            OutputKind::Logits => Self::from_logits(values),
            OutputKind::Softmax | OutputKind::Sigmoid => Self {
                probabilities: values.iter().map(share).collect(),
                apart: output == OutputKind::Sigmoid,
            },
        }
    }

    /// The softmax of `logits`, shifted by their maximum so that nothing overflows.
    pub fn from_logits(logits: &[f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut probabilities: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
        let sum: f32 = probabilities.iter().sum();
        for p in &mut probabilities {
            *p /= sum;
        }
        Self { probabilities, apart: false }
    }

    /// The probability of each class, in the order of the labels.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// Whether every probability is a number: false when the model gave NaN or infinities.
    pub fn is_finite(&self) -> bool {
        self.probabilities.iter().all(|p| p.is_finite())
    }

    /// The `k` most probable classes, the most probable first; of equals the lower index first.
    pub fn top(&self, k: usize) -> Vec<Prediction> {
        let mut order: Vec<usize> = (0..self.probabilities.len().min(1 << 16)).collect();
        order.sort_by(|a, b| self.probabilities[*b].total_cmp(&self.probabilities[*a]));
        let prediction = |i: usize| Prediction {
            // The range above ends at 2^16.
            class: i as u16,
            probability: self.probabilities[i],
        };
        order.into_iter().take(k).map(prediction).collect()
    }

    /// The most probable class and its probability; of equals the lower index.
    pub fn best(&self) -> (usize, f32) {
        let all = self.probabilities.iter().copied().enumerate();
        let better = |best: (usize, f32), next: (usize, f32)| {
            if next.1.total_cmp(&best.1).is_gt() { next } else { best }
        };
        all.reduce(better).unwrap_or((0, f32::NAN))
    }

    /// How unsure the model is: 0 is sure, 1 is no idea. Shannon's entropy of the probabilities over
    /// that of equal ones, `−Σ p ln p / ln n` (Settles, "Active Learning Literature Survey", 2009,
    /// §3.1). Where each is its own yes or no, the largest entropy of the answers "this one" and "not
    /// that one"; an answer that its probability contradicts is no idea.
    pub fn entropy(&self) -> f32 {
        if self.apart {
            let (best, _) = self.best();
            let answers = self.probabilities.iter().enumerate();
            let right = answers.map(|(class, p)| if class == best { *p } else { 1.0 - p });
            return right.map(|p| if p > 0.5 { yes_or_no(p) } else { 1.0 }).fold(0.0, f32::max);
        }
        let n = self.probabilities.len() as f32;
        let sum: f32 = self.probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        (sum / n.ln()).clamp(0.0, 1.0)
    }
}

/// The entropy of yes with probability `p`, in bits.
fn yes_or_no(p: f32) -> f32 {
    let term = |p: f32| if p > 0.0 { -p * p.log2() } else { 0.0 };
    (term(p) + term(1.0 - p)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_not_made_probabilities_again() {
        let soft = Classification::of(OutputKind::Softmax, &[0.991, 0.009]);
        assert_eq!((soft.best(), soft.probabilities()), ((0, 0.991), &[0.991, 0.009][..]));
        assert!(soft.entropy() < 0.1, "{}", soft.entropy());
        let apart = Classification::of(OutputKind::Sigmoid, &[0.97, 0.9, 0.01]);
        assert_eq!(apart.probabilities(), [0.97, 0.9, 0.01]);
        let rounded = Classification::of(OutputKind::Softmax, &[1.0004, -0.0001]);
        assert_eq!(rounded.probabilities(), [1.0, 0.0]);
        assert!(!Classification::of(OutputKind::Softmax, &[3.0, -2.0]).is_finite());
    }

    #[test]
    fn one_yes_is_sure_and_none_or_two_are_not() {
        let unsure = |values: &[f32]| Classification::of(OutputKind::Sigmoid, values).entropy();
        assert!(unsure(&[0.99, 0.01, 0.02]) < 0.2);
        assert_eq!(unsure(&[0.02, 0.01, 0.01]), 1.0, "none of them");
        assert_eq!(unsure(&[0.99, 0.98, 0.01]), 1.0, "two of them");
        assert!(unsure(&[0.6, 0.01, 0.01]) > 0.9);
    }

    #[test]
    fn softmax_adds_up_and_does_not_overflow() {
        let c = Classification::from_logits(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(c.probabilities(), [0.5, 0.5, 0.0]);
        assert_eq!(c.top(2).iter().map(|p| p.class).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(c.best(), (0, 0.5));
    }

    #[test]
    fn entropy_is_one_when_all_are_equal_and_zero_when_one_is_sure() {
        assert!((Classification::from_logits(&[0.0; 10]).entropy() - 1.0).abs() < 1e-6);
        assert_eq!(Classification::from_logits(&[1000.0, 0.0]).entropy(), 0.0);
    }

    #[test]
    fn a_model_that_gives_nan_is_noticed() {
        assert!(!Classification::from_logits(&[f32::NAN, 0.0]).is_finite());
        assert!(!Classification::from_logits(&[f32::INFINITY, 0.0]).is_finite());
    }
}

//! From logits to an answer: softmax, the most probable classes, and how unsure the model is.

use fleetloop_protocol::sample::Prediction;

/// What a classifier made of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    probabilities: Vec<f32>,
}

impl Classification {
    /// The softmax of `logits`, shifted by their maximum so that nothing overflows.
    pub fn from_logits(logits: &[f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut probabilities: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
        let sum: f32 = probabilities.iter().sum();
        for p in &mut probabilities {
            *p /= sum;
        }
        Self { probabilities }
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

    /// Shannon's entropy of the probabilities over that of equal ones: 0 is sure, 1 is no idea.
    /// `−Σ p ln p / ln n` (Settles, "Active Learning Literature Survey", 2009, §3.1).
    pub fn entropy(&self) -> f32 {
        let n = self.probabilities.len() as f32;
        let sum: f32 = self.probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        (sum / n.ln()).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Cross-entropy over logits, with optional label smoothing (Szegedy et al. 2016, section 7).

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::{Device, Tensor as Flat};

use crate::graph::Tensor;
use crate::ops::tensor;

/// The mean loss of logits `[batch, classes]`, as one element.
pub fn cross_entropy(logits: Tensor, labels: &[usize], smoothing: f32, device: &Device) -> Flat<1> {
    let shape = tensor::dims(&logits);
    let classes = shape[1];
    let spread = smoothing / classes as f32;
    let mut targets = vec![spread; shape[0] * classes];
    for (row, label) in labels.iter().enumerate() {
        targets[row * classes + label] += 1.0 - smoothing;
    }
    let targets = tensor::from_host(targets, &shape, device);
    let likelihood =
        Dispatch::float_sum(Dispatch::float_mul(Dispatch::log_softmax(logits, 1), targets));
    let mean = Dispatch::float_mul_scalar(likelihood, Scalar::Float(-1.0 / shape[0] as f64));
    Flat::from_dispatch(tensor::reshape(mean, &[1]))
}

/// How many rows of logits have their label as the first of the largest.
pub fn correct(logits: &[f32], labels: &[usize]) -> usize {
    let classes = logits.len() / labels.len().max(1);
    logits
        .chunks_exact(classes.max(1))
        .zip(labels)
        .filter(|(row, label)| argmax(row) == **label)
        .count()
}

/// The place of the largest value; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (place, v)| if *v > row[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(logits: &[f32], labels: &[usize], smoothing: f32) -> f32 {
        let device = Device::default();
        let x = tensor::from_host(
            logits.to_vec(),
            &[labels.len(), logits.len() / labels.len()],
            &device,
        );
        cross_entropy(x, labels, smoothing, &device).into_data().iter::<f32>().next().unwrap()
    }

    #[test]
    fn values_by_hand() {
        assert!((loss(&[0.0, 0.0, 5.0, 5.0], &[0, 1], 0.0) - 2f32.ln()).abs() < 1e-6);
        // −log softmax: 0.407606 for the label, 1.407606 and 2.407606 for the others
        assert!((loss(&[1.0, 2.0, 3.0], &[2], 0.0) - 0.407_606).abs() < 1e-5);
        assert!(
            (loss(&[1.0, 2.0, 3.0], &[2], 0.3)
                - (0.8 * 0.407_606 + 0.1 * 1.407_606 + 0.1 * 2.407_606))
                .abs()
                < 1e-5
        );
    }

    #[test]
    fn the_first_of_equals_is_the_answer() {
        assert_eq!(correct(&[1.0, 1.0, 0.0, 2.0], &[0, 0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}

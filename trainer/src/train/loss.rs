//! The losses: each the mean over a batch, as one element. `output` and `target` have one shape.

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};
use burn::tensor::Tensor as Flat;

use crate::graph::Tensor;
use crate::ops::tensor;

/// Cross-entropy of scores `[batch, classes]` against a distribution over the classes.
pub fn cross_entropy(scores: Tensor, target: Tensor) -> Flat<1> {
    let batch = tensor::dims(&scores)[0];
    let likelihood =
        Dispatch::float_sum(Dispatch::float_mul(Dispatch::log_softmax(scores, 1), target));
    one(Dispatch::float_mul_scalar(likelihood, Scalar::Float(-1.0 / batch as f64)))
}

/// What cross-entropy compares with: the labels, of which a share is spread over all classes
/// (Szegedy et al. 2016, section 7).
pub fn smoothed(labels: &[usize], classes: usize, smoothing: f32) -> Vec<f32> {
    let mut target = vec![smoothing / classes as f32; labels.len() * classes];
    for (row, label) in labels.iter().enumerate() {
        target[row * classes + label] += 1.0 - smoothing;
    }
    target
}

/// Binary cross-entropy of scores z against t from 0 to 1: `(1 − t) · z − ln σ(z)`, in which
/// nothing overflows.
pub fn binary(scores: Tensor, target: Tensor) -> Flat<1> {
    let no = Dispatch::float_add_scalar(Dispatch::float_neg(target), Scalar::Float(1.0));
    let linear = Dispatch::float_mul(no, scores.clone());
    mean(Dispatch::float_sub(linear, Dispatch::log_sigmoid(scores)))
}

/// Cross-entropy of probabilities `[batch, classes]`: `−Σ t · ln p`.
pub fn cross_entropy_of(shares: Tensor, target: Tensor) -> Flat<1> {
    let batch = tensor::dims(&shares)[0];
    let likelihood = Dispatch::float_sum(Dispatch::float_mul(log(shares), target));
    one(Dispatch::float_mul_scalar(likelihood, Scalar::Float(-1.0 / batch as f64)))
}

/// Binary cross-entropy of probabilities: `−t · ln p − (1 − t) · ln(1 − p)`.
pub fn binary_of(shares: Tensor, target: Tensor) -> Flat<1> {
    let rest = |of: Tensor| Dispatch::float_add_scalar(Dispatch::float_neg(of), Scalar::Float(1.0));
    let yes = Dispatch::float_mul(target.clone(), log(shares.clone()));
    let no = Dispatch::float_mul(rest(target), log(rest(shares)));
    mean(Dispatch::float_neg(Dispatch::float_add(yes, no)))
}

/// The logarithm of probabilities, one of which may be 0: no further down than e⁻¹⁶, and with a slope
/// there.
fn log(shares: Tensor) -> Tensor {
    Dispatch::float_log(Dispatch::float_add_scalar(shares, Scalar::Float(1e-7)))
}

/// The mean of the squares.
pub fn mse(output: Tensor, target: Tensor) -> Flat<1> {
    let off = Dispatch::float_sub(output, target);
    mean(Dispatch::float_mul(off.clone(), off))
}

/// The mean of the distances.
pub fn mae(output: Tensor, target: Tensor) -> Flat<1> {
    mean(Dispatch::float_abs(Dispatch::float_sub(output, target)))
}

/// Half the square up to `delta`, `delta · (distance − delta / 2)` beyond (Huber 1964). With the
/// distance a and its part m up to delta, both are `m · (a − m / 2)`.
pub fn huber(output: Tensor, target: Tensor, delta: f32) -> Flat<1> {
    let distance = Dispatch::float_abs(Dispatch::float_sub(output, target));
    let part = Dispatch::float_clamp_max(distance.clone(), Scalar::Float(f64::from(delta)));
    let half = Dispatch::float_mul_scalar(part.clone(), Scalar::Float(0.5));
    mean(Dispatch::float_mul(part, Dispatch::float_sub(distance, half)))
}

fn mean(values: Tensor) -> Flat<1> {
    one(Dispatch::float_mean(values))
}

fn one(value: Tensor) -> Flat<1> {
    Flat::from_dispatch(tensor::reshape(value, &[1]))
}

/// The place of the largest value; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (place, v)| if *v > row[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    type Formula = dyn Fn(Tensor, Tensor) -> Flat<1>;

    /// The loss and its gradient with respect to the output.
    fn both(formula: &Formula, output: &[f32], target: &[f32], rows: usize) -> (f32, Vec<f32>) {
        let device = Device::default().autodiff();
        let shape = [rows, output.len() / rows];
        let leaf = Flat::<1>::from_floats(output, &device).require_grad();
        let target = tensor::from_host(target.to_vec(), &shape, &device);
        let loss = formula(tensor::reshape(leaf.clone().into_dispatch(), &shape), target);
        let value = loss.clone().into_data().iter::<f32>().next().unwrap();
        let gradient = leaf.grad(&loss.backward()).unwrap().into_data().iter::<f32>().collect();
        (value, gradient)
    }

    fn near(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{got} instead of {want}");
        }
    }

    fn holds(formula: &Formula, output: &[f32], target: &[f32], loss: f32, gradient: &[f32]) {
        let (value, found) = both(formula, output, target, 1);
        near(&[value], &[loss]);
        near(&found, gradient);
    }

    #[test]
    fn a_loss_of_probabilities_is_that_of_their_scores() {
        // softmax of 0, ln 3 is 0.25, 0.75; sigmoid of ln 3 is 0.75
        let scores = both(&cross_entropy, &[0.0, 3f32.ln()], &[1.0, 0.0], 1).0;
        holds(&cross_entropy_of, &[0.25, 0.75], &[1.0, 0.0], scores, &[-4.0, 0.0]);
        let scores = both(&binary, &[3f32.ln()], &[1.0], 1).0;
        holds(&binary_of, &[0.75], &[1.0], scores, &[-4.0 / 3.0]);
        assert!(both(&binary_of, &[0.0], &[1.0], 1).1[0] < -1e6, "it leads back from nothing");
    }

    #[test]
    fn cross_entropy_by_hand() {
        let loss = |scores: &[f32], labels: &[usize], smoothing| {
            let target = smoothed(labels, scores.len() / labels.len(), smoothing);
            both(&cross_entropy, scores, &target, labels.len()).0
        };
        near(&[loss(&[0.0, 0.0, 5.0, 5.0], &[0, 1], 0.0)], &[2f32.ln()]);
        // −log softmax: 0.407606 for the label, 1.407606 and 2.407606 for the others
        near(&[loss(&[1.0, 2.0, 3.0], &[2], 0.0)], &[0.407_606]);
        let spread = 0.8 * 0.407_606 + 0.1 * 1.407_606 + 0.1 * 2.407_606;
        near(&[loss(&[1.0, 2.0, 3.0], &[2], 0.3)], &[spread]);
        // softmax 0.090031, 0.244728, 0.665241
        holds(
            &cross_entropy,
            &[1.0, 2.0, 3.0],
            &[0.0, 0.0, 1.0],
            0.407_606,
            &[0.090_031, 0.244_728, -0.334_759],
        );
    }

    #[test]
    fn binary_cross_entropy_by_hand() {
        // σ(2) = 0.880797, −ln σ(2) = 0.126928
        holds(&binary, &[2.0], &[1.0], 0.126_928, &[-0.119_203]);
        holds(&binary, &[2.0], &[0.0], 2.126_928, &[0.880_797]);
        holds(
            &binary,
            &[2.0, 0.0],
            &[0.0, 1.0],
            (2.126_928 + 2f32.ln()) / 2.0,
            &[0.440_398, -0.25],
        );
    }

    #[test]
    fn large_scores_overflow_nowhere() {
        holds(&binary, &[200.0, -200.0], &[1.0, 0.0], 0.0, &[0.0, 0.0]);
        holds(&binary, &[200.0, -200.0], &[0.0, 1.0], 200.0, &[0.5, -0.5]);
        holds(&cross_entropy, &[1e4, 0.0], &[0.0, 1.0], 1e4, &[1.0, -1.0]);
    }

    #[test]
    fn regression_losses_by_hand() {
        let (output, target) = ([1.0, 5.0, -1.0, 0.0], [0.5, 2.0, 1.0, 0.0]);
        // distances 0.5, 3, −2, 0
        holds(&mse, &output, &target, (0.25 + 9.0 + 4.0) / 4.0, &[0.25, 1.5, -1.0, 0.0]);
        holds(&mae, &output, &target, 5.5 / 4.0, &[0.25, 0.25, -0.25, 0.0]);
        let huber = |output, target| huber(output, target, 1.0);
        holds(&huber, &output, &target, (0.125 + 2.5 + 1.5) / 4.0, &[0.125, 0.25, -0.25, 0.0]);
    }

    #[test]
    fn gradients_match_central_differences() {
        const STEP: f32 = 1e-2;
        let wide = |output, target| huber(output, target, 0.7);
        let formulas: [&Formula; 5] = [&cross_entropy, &binary, &mse, &mae, &wide];
        let output = [0.3, -1.2, 2.0, 0.9, -0.4, 0.1];
        let target = [0.7, 0.1, 0.2, 0.15, 0.35, 0.5];
        for (which, formula) in formulas.into_iter().enumerate() {
            let gradient = both(formula, &output, &target, 2).1;
            for place in 0..output.len() {
                let at = |by: f32| {
                    let mut moved = output;
                    moved[place] += by;
                    both(formula, &moved, &target, 2).0
                };
                let want = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let got = gradient[place];
                assert!((got - want).abs() < 1e-3, "{which}, {place}: {got} instead of {want}");
            }
        }
    }

    #[test]
    fn the_first_of_equals_is_the_answer() {
        assert_eq!(argmax(&[1.0, 1.0, 0.0]), 0);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}
